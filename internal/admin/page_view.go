package admin

import (
	"cmp"
	"html/template"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/rank"
)

// This file is the overview: Status in the words and the order of the page.

// sparkLen is how many probes a sparkline shows.
const sparkLen = 60

// badge is a state: its word, and how bad it is (good, bad, warn, info, off) for the colour.
type badge struct{ Word, Tone string }

type fact struct {
	Label, Value, Note, Tone string
}

type overviewPage struct {
	frame
	Alarms    []string
	Facts     []fact
	Names     []nameRow
	Overrides []overrideRow
	Upstreams []Upstream
	Status    *Status
}

type answerCell struct {
	Type, Text, Why string
	Tone            string // "" = normal
}

type nameRow struct {
	Name, Link string
	State      badge
	Answers    []answerCell
	Changed    string // how long ago; "" = never since we know
	ChangedAt  time.Time
	Change     string
	Endpoints  []endpointRow
}

type endpointRow struct {
	*Endpoint
	Badge          badge
	Forced         string
	Spark          template.HTML
	Since, Checked string
	Outcome        string
	Share          string // weight
	Labelled       bool   // the candidate has another label than the address
}

type overrideRow struct {
	Override
	Link, Age, Left string
}

func (p *statusPage) newOverview(st *Status) *overviewPage {
	v := &overviewPage{
		frame: p.frame("hard on "+p.host, 1), Status: st, Alarms: alarms(st), Facts: facts(st),
		Names: make([]nameRow, len(st.Names)), Upstreams: st.Upstreams, Overrides: overrideRows(st.Overrides, st.At),
	}
	for i := range st.Names {
		v.Names[i] = p.nameRow(&st.Names[i], st.At)
	}
	return v
}

func (p *statusPage) nameRow(n *Name, now time.Time) nameRow {
	row := nameRow{Name: n.Name, Link: nameLink(n.Name), State: nameBadge(n), Endpoints: p.endpointRows(n, now)}
	for _, typ := range []string{rank.V4.String(), rank.V6.String()} {
		if a, ok := n.Answers[typ]; ok && !unused(n, typ) {
			row.Answers = append(row.Answers, answerOf(typ, a))
		}
	}
	if c, ok := p.trail().last(n.Name); ok {
		row.ChangedAt, row.Changed = c.at, formatAge(now.Sub(c.at))
		row.Change = c.why
		if len(row.Answers) > 1 {
			row.Change = c.typ + ", " + c.why
		}
	}
	return row
}

func (p *statusPage) trail() *trail { return &p.server.o.Meter.trail }

// unused tells whether a type has no endpoint here, while the other one has.
func unused(n *Name, typ string) bool {
	return len(n.Endpoints) > 0 && !slices.ContainsFunc(n.Endpoints, func(e Endpoint) bool { return e.Type == typ })
}

func nameLink(name string) string { return "/name/" + url.PathEscape(name) }

func nameBadge(n *Name) badge {
	count := strconv.Itoa(n.Healthy) + " of " + strconv.Itoa(len(n.Endpoints)) + " usable" // healthy, or forced up
	switch {
	case n.AllDown:
		return badge{"all down", "bad"}
	case len(n.Endpoints) == 0:
		return badge{"no address yet", "warn"}
	case n.Healthy == 0:
		return badge{count, "bad"}
	case n.Healthy < len(n.Endpoints):
		return badge{count, "warn"}
	}
	return badge{count, "good"}
}

func answerOf(typ string, a Answer) answerCell {
	c := answerCell{Type: typ, Text: joinAddrs(a.Addresses), Why: a.Reason}
	if a.Kind != rank.Normal {
		c.Tone = "warn"
		c.Text = a.Kind.String()
		if len(a.Addresses) > 0 {
			c.Text += " " + joinAddrs(a.Addresses)
		}
	}
	return c
}

func joinAddrs(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

func (p *statusPage) endpointRows(n *Name, now time.Time) []endpointRow {
	rows := make([]endpointRow, len(n.Endpoints))
	var buf [sparkLen]tick
	for i := range n.Endpoints {
		e := &n.Endpoints[i]
		row := endpointRow{Endpoint: e, Badge: stateBadge(e), Outcome: cmp.Or(e.LastOutcome, "–"), Share: strconv.Itoa(e.Weight)}
		if e.Override != rank.Auto {
			row.Forced = e.Override.String()
		}
		key := rank.Key{Name: n.Name, Candidate: e.Candidate, Addr: e.Address}
		row.Spark = sparkline(p.trail().ticks(buf[:0], key, sparkLen))
		row.Since, row.Checked = ageOrDash(now, e.Since), ageOrDash(now, e.Checked)
		row.Labelled = e.Candidate != e.Address.String()
		rows[i] = row
	}
	return rows
}

func ageOrDash(now, t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return formatAge(now.Sub(t))
}

func stateBadge(e *Endpoint) badge {
	b := badge{e.State.String(), "off"}
	switch e.State {
	case rank.Healthy:
		b.Tone = "good"
	case rank.Unhealthy:
		b.Tone = "bad"
	}
	switch {
	case e.Held:
		return badge{b.Word + ", held", "warn"} // the guard doubts our own network
	case e.State == rank.Healthy && e.Failures > 0:
		return badge{"healthy, failing", "warn"}
	}
	return b
}

func overrideRows(list []Override, now time.Time) []overrideRow {
	rows := make([]overrideRow, len(list))
	for i, o := range list {
		rows[i] = overrideRow{Override: o, Link: nameLink(o.Name), Age: ageOrDash(now, o.Since), Left: "until taken back"}
		if !o.Until.IsZero() {
			rows[i].Left = "ends in " + formatAge(o.Until.Sub(now))
		}
	}
	return rows
}

// alarms are what a reader must not miss, as sentences.
func alarms(st *Status) []string {
	var list []string
	if st.LocalFault {
		list = append(list, "This host's own network seems to be at fault: new down verdicts are held until something answers.")
	}
	if !st.Config.ReloadOK {
		list = append(list, "The last reload was refused, the configuration before it stays in force: "+st.Config.ReloadFail)
	}
	for i := range st.Names {
		if n := &st.Names[i]; n.AllDown {
			list = append(list, n.Name+" has nothing healthy to answer with: on_all_down applies.")
		}
	}
	if st.Store.Reason != "" {
		list = append(list, "History: "+st.Store.State+", "+st.Store.Reason)
	}
	if usableUpstreams(st.Upstreams) == 0 {
		list = append(list, "No upstream is up: names that are not ours get SERVFAIL.")
	}
	return list
}

func usableUpstreams(list []Upstream) (n int) {
	for i := range list {
		n += one(list[i].State == "up")
	}
	return n
}

func facts(st *Status) []fact {
	healthy, all, down := 0, 0, 0
	for i := range st.Names {
		healthy, all = healthy+st.Names[i].Healthy, all+len(st.Names[i].Endpoints)
		down += one(st.Names[i].AllDown)
	}
	up := usableUpstreams(st.Upstreams)
	dropped := uint64(0)
	for _, n := range st.Store.Dropped {
		dropped += n
	}
	store := fact{"history", st.Store.State, formatSize(st.Store.SizeBytes) + ", " + strconv.FormatUint(dropped, 10) + " rows dropped", ""}
	if st.Store.Reason != "" || dropped > 0 {
		store.Tone = "warn"
	}
	return []fact{
		{"names", strconv.Itoa(len(st.Names)), strconv.Itoa(down) + " all down", toneIf(down > 0, "bad")},
		{"endpoints usable", strconv.Itoa(healthy) + " / " + strconv.Itoa(all), strconv.Itoa(all-healthy) + " not", toneIf(healthy < all, "warn")},
		{"upstreams up", strconv.Itoa(up) + " / " + strconv.Itoa(len(st.Upstreams)), "", toneIf(up < len(st.Upstreams), "warn")},
		{"probe lag", formatMS(st.Prober.LagAvgMS) + " ms", "max " + formatMS(st.Prober.LagMaxMS) + " ms", ""},
		store,
		{"overrides", strconv.Itoa(len(st.Overrides)), "", toneIf(len(st.Overrides) > 0, "info")},
		{"up for", formatAge(st.At.Sub(st.Started)), "pid " + strconv.Itoa(st.PID), ""},
	}
}

func toneIf(cond bool, tone string) string {
	if cond {
		return tone
	}
	return ""
}
