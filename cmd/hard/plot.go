package main

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// levels are the heights of a column, in eighths.
var levels = []rune("▁▂▃▄▅▆▇█")

// showPlot draws each endpoint as two lines: the latency, with gaps where nothing was good, and
// below it what became of the answer and of the probes.
func showPlot(p *page, h *historyReply) {
	top := 0.0
	for i := range h.Endpoints {
		for _, b := range h.Endpoints[i].Buckets {
			top = max(top, b.P50MS)
		}
	}
	p.line(bold, "%s, one column is %s, a full one %s", h.Name, span(h.To.Sub(h.From)/historyColumns), msText(top))
	for i := range h.Endpoints {
		e := &h.Endpoints[i]
		p.line(plain, "%s %s, %s ok, p50 %s, p95 %s", e.Candidate, e.Address, percent(e.OK, e.Probes), msText(e.P50MS), msText(e.P95MS))
		answered := h.answered(e.Address)
		var curve, state strings.Builder
		for k, b := range e.Buckets {
			curve.WriteRune(level(b.P50MS, top))
			state.WriteRune(stateRune(&b, answered[k]))
		}
		p.rows = append(p.rows, row{text: "  |" + curve.String() + "|"}, row{text: "  |" + state.String() + "|", style: dim})
	}
	p.line(dim, "  %-*s%s", historyColumns-4, h.From.Local().Format("01-02 15:04"), h.To.Local().Format("15:04"))
	p.line(dim, "  = answered, . not, x some probes failed, X all failed, blank: no probe")
}

func level(v, top float64) rune {
	if v <= 0 || top <= 0 {
		return ' '
	}
	return levels[min(int(v/top*float64(len(levels))), len(levels)-1)]
}

func stateRune(b *historyBucket, answered bool) rune {
	switch {
	case b.N == 0 && !answered:
		return ' '
	case b.N > 0 && b.OK == 0:
		return 'X'
	case b.OK < b.N:
		return 'x'
	case answered:
		return '='
	}
	return '.'
}

// answered tells in which columns an address was part of the answer at the column's end.
func (h *historyReply) answered(addr netip.Addr) []bool {
	out := make([]bool, historyColumns)
	kind, text := "answer A", addr.String()
	if !addr.Is4() {
		kind = "answer AAAA"
	}
	in, next := false, 0
	for k := range out {
		end := h.From.Add(h.To.Sub(h.From) * time.Duration(k+1) / historyColumns)
		for ; next < len(h.Changes) && !h.Changes[next].At.After(end); next++ {
			if c := &h.Changes[next]; c.Kind == kind {
				in = slices.Contains(strings.Fields(c.New), text)
			}
		}
		out[k] = in
	}
	return out
}
