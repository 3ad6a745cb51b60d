package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/admin"
	"hard/internal/config"
	"hard/internal/rank"
	"hard/store"
)

// historyReply is hard history -json.
type historyReply struct {
	Name      string            `json:"name"`
	From      time.Time         `json:"from"`
	To        time.Time         `json:"to"`
	Endpoints []historyEndpoint `json:"endpoints"`
	Changes   []historyChange   `json:"changes"` // events and answers, in order of time
}

// historyEndpoint is one endpoint's probes. Latencies are of good probes, from start to verdict.
type historyEndpoint struct {
	Candidate string          `json:"candidate"`
	Address   netip.Addr      `json:"address"`
	Probes    int             `json:"probes"` // those that count
	OK        int             `json:"ok"`
	P50MS     float64         `json:"p50_ms,omitempty"`
	P95MS     float64         `json:"p95_ms,omitempty"`
	MaxMS     float64         `json:"max_ms,omitempty"`
	Buckets   []historyBucket `json:"buckets"`

	totals []time.Duration
}

// historyBucket is one column of the plot.
type historyBucket struct {
	N     int     `json:"n"`
	OK    int     `json:"ok"`
	P50MS float64 `json:"p50_ms,omitempty"`

	totals []time.Duration
}

// historyChange is an event or an answer.
type historyChange struct {
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Candidate string    `json:"candidate,omitempty"`
	Address   string    `json:"address,omitempty"`
	Old       string    `json:"old,omitempty"`
	New       string    `json:"new"`
	Reason    string    `json:"reason,omitempty"`
}

// historyColumns is how many buckets a span is cut into.
const historyColumns = 60

// history is hard history: what the database knows of a name.
func history(o *options, stdout, stderr io.Writer) int {
	now := time.Now()
	since, err := o.sinceTime(now, time.Hour)
	if err != nil {
		fmt.Fprintln(stderr, "hard: history:", err)
		return exitUsage
	}
	r, err := openStore(o)
	if err != nil {
		return fail(stderr, err)
	}
	defer r.Close()
	name, candidate := target(o.args[0])
	f := store.Filter{Name: admin.Canonical(name), Candidate: candidate, Since: since, Until: now}
	var reply *historyReply
	for _, f.Name = range admin.Covering(name) {
		if reply, err = readHistory(context.Background(), r, f); err != nil {
			return fail(stderr, err)
		}
		if !reply.empty(candidate) {
			break
		}
	}
	if reply.empty(candidate) {
		return fail(stderr, noHistory(r, o.args[0], admin.Canonical(name), since))
	}
	if o.csv {
		if err := writeCSV(stdout, r, f); err != nil {
			return fail(stderr, err)
		}
		return exitOK
	}
	if o.json {
		return printJSON(stdout, reply)
	}
	p := newPage(stdout)
	if o.plot {
		showPlot(p, reply)
	} else {
		showHistory(p, reply)
	}
	return p.print(stdout)
}

// noHistory tells what to do where nothing is known of what was asked for.
func noHistory(r *store.Reader, asked, name string, since time.Time) error {
	what := fmt.Errorf("there is no history of %s since %s", asked, since.Local().Format("2006-01-02 15:04:05"))
	names, err := r.Names(context.Background())
	switch {
	case err != nil || len(names) == 0:
		return what
	case slices.Contains(names, name):
		return fmt.Errorf("%w; -since 48h reaches further back, and hard status lists the candidates", what)
	}
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("%w (did you mean %q?)", what, near)
	}
	if more := len(names) - shownNames; more > 0 {
		names = append(names[:shownNames], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w; it knows %s", what, strings.Join(names, ", "))
}

// shownNames bounds the list of names in a hint.
const shownNames = 8

// empty reports whether nothing is known of what was asked for. The answers are the name's: they say
// nothing of a candidate.
func (h *historyReply) empty(candidate string) bool {
	return len(h.Endpoints) == 0 && !slices.ContainsFunc(h.Changes, func(c historyChange) bool {
		return candidate == "" || c.Candidate == candidate
	})
}

func writeCSV(w io.Writer, r *store.Reader, f store.Filter) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"time", "name", "candidate", "address", "outcome", "status", "connect_ms", "first_byte_ms", "total_ms", "detail"})
	number := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return strconv.FormatFloat(ms(d), 'f', 3, 64)
	}
	for s, err := range r.Samples(context.Background(), f) {
		if err != nil {
			return err
		}
		_ = c.Write([]string{
			s.At.UTC().Format("2006-01-02T15:04:05.000000Z"), s.Key.Name, s.Key.Candidate, s.Key.Addr.String(), s.Outcome.String(),
			strconv.Itoa(s.Status), number(s.Phases.Connect), number(s.Phases.FirstByte), number(s.Phases.Total), s.Detail,
		})
	}
	c.Flush()
	return c.Error() // the first one, of any Write
}

func readHistory(ctx context.Context, r *store.Reader, f store.Filter) (*historyReply, error) {
	out := &historyReply{Name: f.Name, From: f.Since, To: f.Until, Endpoints: []historyEndpoint{}, Changes: []historyChange{}}
	byKey := make(map[rank.Key]*historyEndpoint)
	bucket := func(k rank.Key, at time.Time) (*historyEndpoint, *historyBucket) {
		e := byKey[k]
		if e == nil {
			e = &historyEndpoint{Candidate: k.Candidate, Address: k.Addr, Buckets: make([]historyBucket, historyColumns)}
			byKey[k] = e
		}
		i := int(at.Sub(f.Since) * historyColumns / max(f.Until.Sub(f.Since), 1))
		return e, &e.Buckets[min(max(i, 0), historyColumns-1)]
	}
	extent, err := r.Extent(ctx)
	if err != nil {
		return nil, err
	}
	raw := f
	if extent.ProbesFrom.After(f.Since) { // probes of then are gone, their minutes may still be there
		raw.Since = extent.ProbesFrom
		old := f
		old.Until = extent.ProbesFrom.Truncate(time.Minute)
		rollups, err := r.Rollups(ctx, old)
		if err != nil {
			return nil, err
		}
		for i := range rollups {
			u := &rollups[i]
			e, b := bucket(u.Key, u.At)
			e.add(b, u.N, u.OK, u.P50)
		}
	}
	for s, err := range r.Samples(ctx, raw) {
		if err != nil {
			return nil, err
		}
		if e, b := bucket(s.Key, s.At); s.Counted() && s.Outcome == rank.OK {
			e.add(b, 1, 1, s.Phases.Total)
		} else if s.Counted() {
			e.add(b, 1, 0, 0)
		}
	}
	for _, e := range byKey {
		e.finish()
		out.Endpoints = append(out.Endpoints, *e)
	}
	slices.SortFunc(out.Endpoints, func(a, b historyEndpoint) int {
		return cmp.Or(cmp.Compare(a.Candidate, b.Candidate), a.Address.Compare(b.Address))
	})
	return out, out.changes(ctx, r, f)
}

// add takes n probes, of which ok were good and took about that long.
func (e *historyEndpoint) add(b *historyBucket, n, ok int, took time.Duration) {
	e.Probes, e.OK, b.N, b.OK = e.Probes+n, e.OK+ok, b.N+n, b.OK+ok
	if ok > 0 && took > 0 {
		e.totals, b.totals = append(e.totals, took), append(b.totals, took)
	}
}

func (e *historyEndpoint) finish() {
	slices.Sort(e.totals)
	if n := len(e.totals); n > 0 {
		e.P50MS, e.P95MS, e.MaxMS = ms(e.totals[n/2]), ms(e.totals[n*95/100]), ms(e.totals[n-1])
	}
	for i := range e.Buckets {
		if b := &e.Buckets[i]; len(b.totals) > 0 {
			slices.Sort(b.totals)
			b.P50MS = ms(b.totals[len(b.totals)/2])
		}
	}
}

// changes reads events and answers.
func (h *historyReply) changes(ctx context.Context, r *store.Reader, f store.Filter) error {
	events, err := r.Events(ctx, f)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		c := historyChange{At: e.At, Kind: e.Kind, Candidate: e.Key.Candidate, Old: e.Old, New: e.New, Reason: e.Reason}
		if e.Key.Addr.IsValid() {
			c.Address = e.Key.Addr.String()
		}
		h.Changes = append(h.Changes, c)
	}
	answers, err := r.Answers(ctx, f)
	if err != nil {
		return err
	}
	for i := range answers {
		a := &answers[i]
		h.Changes = append(h.Changes, historyChange{At: a.At, Kind: "answer " + a.Type, New: addrList(a.Addresses), Reason: a.Reason})
	}
	slices.SortStableFunc(h.Changes, func(a, b historyChange) int { return a.At.Compare(b.At) })
	return nil
}

// shownChanges bounds the list for people; -json has all.
const shownChanges = 60

func showHistory(p *page, h *historyReply) {
	p.line(bold, "%s, %s since %s", h.Name, span(h.To.Sub(h.From)), h.From.Local().Format("2006-01-02 15:04:05"))
	dimmed := func(text string) cell { return cell{text: text, style: dim, right: true} }
	p.add(cell{text: "candidate", style: dim}, cell{text: "address", style: dim}, dimmed("probes"), dimmed("ok"), dimmed("p50"), dimmed("p95"), dimmed("max"))
	right := func(text string) cell { return cell{text: text, right: true} }
	for i := range h.Endpoints {
		e := &h.Endpoints[i]
		p.add(cell{text: e.Candidate}, cell{text: e.Address.String()}, right(strconv.Itoa(e.Probes)), right(percent(e.OK, e.Probes)),
			right(msText(e.P50MS)), right(msText(e.P95MS)), right(msText(e.MaxMS)))
	}
	p.line(plain, "")
	list := h.Changes
	if more := len(list) - shownChanges; more > 0 {
		p.line(dim, "%d earlier changes: -json has all", more)
		list = list[more:]
	}
	for i := range list {
		c := &list[i]
		who := c.Candidate
		if c.Address != "" && c.Address != who {
			who = strings.TrimSpace(who + " " + c.Address)
		}
		what := orDash(c.New)
		if c.Old != "" {
			what = c.Old + " -> " + what
		}
		text := fmt.Sprintf("%s %s: %s", clock(c.At, h.To), strings.TrimSpace(c.Kind+" "+who), what)
		if c.At.Before(h.From) {
			text = "before, " + text
		}
		p.line(changeColour(c), "%s", text)
		if c.Reason != "" {
			p.line(dim, "    %s", c.Reason)
		}
	}
}

func changeColour(c *historyChange) colour {
	switch {
	case c.Kind == "state" && c.New == rank.Unhealthy.String():
		return red
	case c.Kind == "state":
		return green
	case strings.HasPrefix(c.Kind, "answer"):
		return bold
	}
	return plain
}

func percent(part, whole int) string {
	if whole == 0 {
		return "-"
	}
	if part == whole {
		return "100 %"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(part)/float64(whole))
}
