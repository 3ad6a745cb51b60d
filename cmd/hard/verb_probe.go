package main

import (
	"fmt"
	"io"
	"strings"

	"hard/internal/admin"
	"hard/internal/rank"
)

// target splits NAME[/CANDIDATE]. A label may have slashes of its own, a name can't.
func target(s string) (name, candidate string) {
	name, candidate, _ = strings.Cut(s, "/")
	return name, candidate
}

// probe is hard probe. It fails when a probe found anything but ok.
func probe(o *options, stdout, stderr io.Writer) int {
	name, candidate := target(o.args[0])
	failed := false
	code := ask(o, stdout, stderr, "POST", "/v1/probe", admin.ProbeRequest{Name: name, Candidate: candidate, Trace: o.trace},
		showProbes, func(r *admin.Probed) {
			for i := range r.Probes {
				failed = failed || r.Probes[i].Outcome != rank.OK
			}
		})
	if code == exitOK && failed {
		return exitFailed
	}
	return code
}

func showProbes(p *page, r *admin.Probed) {
	p.line(bold, "%s", r.Name)
	for i := range r.Probes {
		showProbe(p, &r.Probes[i])
	}
}

func showProbe(p *page, b *admin.Probe) {
	style := green
	if b.Outcome != rank.OK {
		style = red
	}
	who := b.Address.String()
	if b.Candidate != who {
		who = b.Candidate + " " + who
	}
	verdict := b.Outcome.String()
	if b.Status != 0 {
		verdict += fmt.Sprintf(" %d", b.Status)
	}
	p.line(style, "  %s: %s", who, verdict)
	var phases []string
	for _, f := range []struct {
		what string
		ms   float64
	}{{"connect", b.ConnectMS}, {"tls", b.TLSMS}, {"first byte", b.FirstByteMS}, {"total", b.TotalMS}} {
		if f.ms > 0 {
			phases = append(phases, f.what+" "+msText(f.ms))
		}
	}
	if len(phases) > 0 {
		p.line(plain, "    %s", strings.Join(phases, ", "))
	}
	if b.Detail != "" {
		p.line(plain, "    %s", b.Detail)
	}
	for _, l := range b.Trace {
		p.line(dim, "    %9.3f ms %s %s", l.AtMS, l.Dir, l.Text)
	}
}
