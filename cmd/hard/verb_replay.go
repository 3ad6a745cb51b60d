package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"hard/internal/admin"
	"hard/internal/config"
	"hard/internal/past"
)

// replayReply is hard replay -json.
type replayReply struct {
	From        time.Time          `json:"from"`
	To          time.Time          `json:"to"`
	CoveredS    float64            `json:"covered_s"` // what could be rebuilt
	Unchanged   bool               `json:"unchanged"` // the configuration was the same all the time
	Gaps        []past.Gap         `json:"gaps"`
	Names       []replayName       `json:"names"`
	Differences []replayDifference `json:"differences"`
}

type replayName struct {
	Name     string     `json:"name"`
	Then     replaySide `json:"then"`
	Now      replaySide `json:"now"`
	WonMS    float64    `json:"latency_won_ms"` // by the mean latency; negative: lost
	DiffersS float64    `json:"differs_s"`      // how long the answers were others
	Notes    []string   `json:"notes,omitempty"`
}

type replaySide struct {
	Switches    int     `json:"switches"`
	AnsweredS   float64 `json:"answered_s"`
	DeadMinutes float64 `json:"dead_minutes"` // on endpoints whose last probe failed
	LatencyMS   float64 `json:"latency_ms"`
}

type replayDifference struct {
	From time.Time    `json:"from"`
	To   time.Time    `json:"to"`
	Name string       `json:"name"`
	Type string       `json:"type"`
	Then []netip.Addr `json:"then"`
	Now  []netip.Addr `json:"now"`
}

// replayGC is the collector's setting for a replay, in percent of the live heap, which is small: a
// day makes some GB of decisions, all short-lived.
const replayGC = 800

// replay is hard replay: what another configuration would have answered.
func replay(o *options, stdout, stderr io.Writer) int {
	now := time.Now()
	since, err := o.sinceTime(now, 24*time.Hour)
	if err != nil {
		fmt.Fprintln(stderr, "hard: replay:", err)
		return exitUsage
	}
	with, report := config.Load(o.with)
	if with == nil {
		report.WriteText(stderr)
		return exitFailed
	}
	// Checks are compared with those of stored texts, which have no secrets, and for which no file is looked at.
	if pure, _ := config.Parse(o.with, []byte(config.Redacted(with.Text))); pure != nil {
		with = pure
	}
	debug.SetGCPercent(replayGC)
	r, err := openStore(o)
	if err != nil {
		return fail(stderr, err)
	}
	defer r.Close()
	ctx := context.Background()
	opts := past.Options{Since: since, Until: now, With: with}
	if len(o.args) == 1 {
		opts.Name = admin.Canonical(o.args[0])
	}
	h, err := past.Open(ctx, r)
	if err != nil {
		return fail(stderr, err)
	}
	got, err := h.Replay(ctx, opts)
	if err != nil {
		return fail(stderr, err)
	}
	if opts.Name != "" && len(got.Names) == 0 {
		return fail(stderr, fmt.Errorf("%s is in neither configuration", opts.Name))
	}
	reply := replayView(got)
	if o.json {
		return printJSON(stdout, reply)
	}
	p := newPage(stdout)
	showReplay(p, &reply)
	return p.print(stdout)
}

func replayView(r *past.Report) replayReply {
	out := replayReply{
		From: r.From, To: r.To, CoveredS: r.Covered.Seconds(), Unchanged: r.Unchanged, Gaps: append([]past.Gap{}, r.Gaps...),
		Names: []replayName{}, Differences: []replayDifference{},
	}
	side := func(s *past.Side) replaySide {
		return replaySide{s.Switches, s.Answered.Seconds(), s.Dead.Minutes(), ms(s.Latency)}
	}
	for i := range r.Names {
		n := &r.Names[i]
		out.Names = append(out.Names, replayName{n.Name, side(&n.Then), side(&n.Now), ms(n.Won()), n.Differs.Seconds(), n.Notes})
	}
	for i := range r.Differences {
		d := &r.Differences[i]
		out.Differences = append(out.Differences, replayDifference{d.From, d.To, d.Name, d.Family.String(), d.Then, d.Now})
	}
	return out
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / 1e6 }

// shownDifferences bounds the list for people; -json has all.
const shownDifferences = 40

func showReplay(p *page, r *replayReply) {
	p.line(bold, "%s of %s replayed, since %s", span(time.Duration(r.CoveredS*1e9)), span(r.To.Sub(r.From)), r.From.Local().Format("2006-01-02 15:04:05"))
	if r.Unchanged {
		p.line(dim, "the configuration is the one of then")
	}
	for i := range r.Gaps {
		p.line(yellow, "%s", r.Gaps[i].Error())
	}
	p.line(plain, "")
	right := func(format string, v ...any) cell { return cell{text: fmt.Sprintf(format, v...), right: true} }
	p.add(cell{text: "name", style: dim}, cell{text: ""}, cell{text: "switches", style: dim, right: true},
		cell{text: "min dead", style: dim, right: true}, cell{text: "latency", style: dim, right: true},
		cell{text: "", style: dim}, cell{text: "differs", style: dim, right: true})
	for i := range r.Names {
		n := &r.Names[i]
		p.add(cell{text: n.Name}, cell{text: "then"}, right("%d", n.Then.Switches), right("%.1f", n.Then.DeadMinutes), right("%s", msText(n.Then.LatencyMS)), cell{}, cell{})
		p.add(cell{}, cell{text: "now"}, right("%d", n.Now.Switches), right("%.1f", n.Now.DeadMinutes), right("%s", msText(n.Now.LatencyMS)),
			right("%s", wonText(n.WonMS)), right("%s", span(time.Duration(n.DiffersS*1e9))))
	}
	for i := range r.Names {
		for _, note := range r.Names[i].Notes {
			p.line(yellow, "%s: %s", r.Names[i].Name, note)
		}
	}
	p.line(plain, "")
	if len(r.Differences) == 0 {
		p.line(green, "no answer differs")
		return
	}
	for i := range r.Differences[:min(len(r.Differences), shownDifferences)] {
		d := &r.Differences[i]
		p.line(plain, "%s for %s, %s %s", d.From.Local().Format("01-02 15:04:05"), span(d.To.Sub(d.From)), d.Name, d.Type)
		p.line(plain, "  then %s", orDash(addrList(d.Then)))
		p.line(plain, "  now  %s", orDash(addrList(d.Now)))
	}
	if more := len(r.Differences) - shownDifferences; more > 0 {
		p.line(dim, "and %d more: -json has all", more)
	}
}

// wonText is a gain or a loss of latency.
func wonText(ms float64) string {
	switch {
	case ms > 0:
		return "won " + msText(ms)
	case ms < 0:
		return "lost " + msText(-ms)
	}
	return "same"
}

func addrList(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}
