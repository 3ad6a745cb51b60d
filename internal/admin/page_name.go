package admin

import (
	"cmp"
	"context"
	"html/template"
	"slices"
	"strconv"
	"time"

	"hard/internal/rank"
)

// maxChanges is how many changes the page of a name lists, the latest ones.
const maxChanges = 50

type namePage struct {
	frame
	Row       nameRow
	Hours     int
	Spans     []int
	Chart     template.HTML
	PastError string // why there is no history in the chart
	Policy    []fact
	Next      string // when time alone may change the answer
	Changes   []changeRow
	More      int // changes that are not listed
	Overrides []overrideRow
	Fault     bool
}

// changeRow is one event, or one change of the answer; those carry their number in the chart.
type changeRow struct {
	At        time.Time
	What      string
	Old, New  string
	Why       string
	Tone      string
	Candidate string
}

func (p *statusPage) newNamePage(ctx context.Context, name string, hours int) (*namePage, error) {
	e, err := p.server.Explain(ctx, name)
	if err != nil {
		return nil, err
	}
	past := p.past.read(ctx, p.server, e.Name.Name, hours)
	refresh := 1
	if hours > 1 {
		refresh = 10
	}
	v := &namePage{
		frame: p.frame(e.Name.Name+" · hard", refresh), Hours: hours, Spans: spans,
		Row: p.nameRow(&e.Name, e.At), Policy: policyFacts(&e.Policy), Fault: e.LocalFault,
		Overrides: overrideRows(e.Overrides, e.At),
	}
	if past.err != nil {
		v.PastError = past.err.Error()
	}
	if !e.Next.IsZero() {
		v.Next = formatAge(e.Next.Sub(e.At))
	}
	v.Changes, v.More = changeRows(&past)
	c := chart{until: e.At, hours: hours}
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		k := rank.Key{Name: e.Name.Name, Candidate: ep.Candidate, Addr: ep.Address}
		var ticks []tick
		ticks = p.trail().ticks(ticks, k, trailLen)
		c.rows = append(c.rows, chartRow{label: ep.Candidate, address: ep.Address.String(), selected: ep.Selected, spans: past.spansOf(k, ticks)})
	}
	for _, a := range past.answers {
		c.marks = append(c.marks, mark{a.At, formatUTC(a.At) + " " + a.Type + " " + joinAddrs(a.Addresses) + ": " + a.Reason})
	}
	v.Chart = c.both()
	return v, nil
}

func policyFacts(p *Policy) []fact {
	list := []fact{
		{Label: "select", Value: p.Select}, {Label: "latency", Value: p.Latency},
		{Label: "families", Value: p.Families}, {Label: "on_all_down", Value: p.OnAllDown},
		{Label: "max_answers", Value: strconv.Itoa(p.MaxAnswers)},
	}
	add := func(label string, ms float64) {
		list = append(list, fact{Label: label, Value: time.Duration(ms * 1e6).String()})
	}
	if p.Select == rank.Group.String() {
		add("group_within", p.GroupWithinMS)
	} else {
		list = append(list, fact{Label: "switch_ratio", Value: strconv.FormatFloat(p.SwitchRatio, 'g', -1, 64)})
		add("switch_min", p.SwitchMinMS)
		add("hold", p.HoldMS)
	}
	if p.MaxLatencyMS > 0 {
		add("max_latency", p.MaxLatencyMS)
	}
	if p.MinHealthy > 0 {
		list = append(list, fact{Label: "min_healthy", Value: strconv.Itoa(p.MinHealthy)})
	}
	return list
}

// changeRows are the changes of a name, the latest first.
func changeRows(v *view) (rows []changeRow, more int) {
	for _, a := range v.answers {
		rows = append(rows, changeRow{At: a.At, What: "answer " + a.Type, New: joinAddrs(a.Addresses), Why: a.Reason, Tone: "info"})
	}
	for _, e := range v.events {
		c := changeRow{At: e.At, What: e.Kind, Old: e.Old, New: e.New, Why: e.Reason, Candidate: e.Key.Candidate}
		if a := e.Key.Addr; a.IsValid() && a.String() != c.Candidate {
			c.Candidate += " " + a.String()
		}
		switch e.New {
		case rank.Unhealthy.String():
			c.Tone = "bad"
		case rank.Healthy.String():
			c.Tone = "good"
		}
		rows = append(rows, c)
	}
	slices.SortStableFunc(rows, func(a, b changeRow) int { return cmp.Compare(b.At.UnixMilli(), a.At.UnixMilli()) })
	if more = len(rows) - maxChanges; more > 0 {
		rows = rows[:maxChanges]
	}
	return rows, max(more, 0)
}
