package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"hard/internal/admin"
	"hard/internal/rank"
)

// explain is hard explain: the very decision that made the answer.
func explain(o *options, stdout, stderr io.Writer) int {
	path, query := "/v1/explain/"+url.PathEscape(o.args[0]), url.Values{}
	if len(o.args) == 2 {
		if _, err := rank.ParseFamily(strings.ToUpper(o.args[1])); err != nil {
			fmt.Fprintf(stderr, "hard: explain: A or AAAA, not %q\n", o.args[1])
			return exitUsage
		}
		query.Set("type", o.args[1])
	}
	if o.at != "" {
		return explainAt(o, stdout, stderr)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return ask(o, stdout, stderr, "GET", path, nil, showExplain, nil)
}

func showExplain(p *page, x *admin.Explain) {
	p.line(bold, "%s", x.Name.Name)
	if x.LocalFault {
		p.line(red, "Our own network is suspect: down verdicts are held.")
	}
	for _, typ := range []string{"A", "AAAA"} {
		if a, asked := x.Answers[typ]; asked {
			p.line(answerColour(a.Kind), "  %s %s: %s", typ, answerText(&a), a.Reason)
		}
	}
	p.line(dim, "  %s", policyText(&x.Policy))
	if !x.Next.IsZero() {
		p.line(dim, "  without news nothing changes before %s", clock(x.Next, x.At))
	}
	for i := range x.Endpoints {
		showVerdict(p, &x.Endpoints[i], x)
	}
	showOverrides(p, x.Overrides, x.At)
}

func policyText(q *admin.Policy) string {
	s := "select " + q.Select + " by " + q.Latency
	if q.Select == rank.Group.String() {
		s += " within " + lengthText(q.GroupWithinMS)
	} else {
		s += fmt.Sprintf(", a challenger needs %g %% and %s for %s", q.SwitchRatio*100, lengthText(q.SwitchMinMS), lengthText(q.HoldMS))
	}
	if q.MaxLatencyMS > 0 {
		s += ", max_latency " + lengthText(q.MaxLatencyMS)
	}
	s += fmt.Sprintf("; families %s; max_answers %d; on_all_down %s", q.Families, q.MaxAnswers, q.OnAllDown)
	if q.MinHealthy > 0 {
		s += fmt.Sprintf("; min_healthy %d", q.MinHealthy)
	}
	return s
}

// showVerdict is one endpoint: kept or dropped, and why.
func showVerdict(p *page, e *admin.Endpoint, x *admin.Explain) {
	verdict, style := "dropped", plain
	switch {
	case e.Selected:
		verdict, style = "kept", green
	case !e.Eligible:
		style = red
	}
	who := e.Address.String()
	if e.Candidate != who {
		who = e.Candidate + " " + who
	}
	p.line(plain, "")
	p.line(style, "  %-7s  %s", verdict, who)
	p.line(plain, "    %s", e.Reason)
	p.line(dim, "    %s, weight %d, %d ok and %d failed in a row, checked %s ago, last: %s", e.State, e.Weight, e.Successes,
		e.Failures, since(e.Checked, x.At), orDash(e.LastOutcome))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
