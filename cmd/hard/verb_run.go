package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"hard/internal/admin"
	"hard/internal/config"
)

// reload is hard reload. It fails when the configuration in force stays.
func reload(o *options, stdout, stderr io.Writer) int {
	ok := true
	code := ask(o, stdout, stderr, "POST", "/v1/reload", struct{}{}, func(p *page, r *admin.Reloaded) {
		if r.Reloaded {
			p.line(plain, "%s: reloaded", r.File)
			return
		}
		p.line(red, "%s: refused, the configuration in force stays", r.File)
	}, func(r *admin.Reloaded) {
		ok = r.Reloaded
		if o.json {
			return
		}
		for _, p := range r.Problems {
			fmt.Fprintln(stderr, p.Text)
		}
		if r.Error != "" {
			fmt.Fprintln(stderr, "hard:", r.Error)
		}
	}, http.StatusUnprocessableEntity)
	if code == exitOK && !ok {
		return exitFailed
	}
	return code
}

// logLevel is hard log.
func logLevel(o *options, stdout, stderr io.Writer) int {
	if _, err := config.ParseLevel(o.args[0]); err != nil {
		fmt.Fprintln(stderr, "hard: log:", err)
		return exitUsage
	}
	return ask(o, stdout, stderr, "POST", "/v1/log", admin.LogRequest{Level: o.args[0]}, func(p *page, r *admin.LogReply) {
		p.line(plain, "log level %s (was %s)", r.Level, r.Was)
	}, nil)
}

// stats is hard stats.
func stats(o *options, stdout, stderr io.Writer) int {
	return ask(o, stdout, stderr, "GET", "/v1/stats", nil, showStats, nil)
}

func showStats(p *page, s *admin.Stats) {
	value := func(what string, v any) { p.add(cell{text: what}, cell{text: fmt.Sprint(v), right: true}) }
	list := func(m map[string]uint64) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			value("  "+k, m[k])
		}
	}
	value("up", span(s.At.Sub(s.Started)))
	value("queries answered", s.Queries)
	list(s.BySource)
	list(s.ByProtocol)
	list(s.ByRcode)
	value("packets dropped", s.Dropped)
	value("replies lost", s.Lost)
	value("loops", s.Loops)
	value("panics", s.Panics)
	value("TCP connections", s.TCPConns)
	for _, u := range s.Upstreams {
		value("upstream "+u.Upstream, u.Queries)
		list(u.Rcodes)
		list(u.Failures)
	}
	value("probes scheduled", s.Prober.Scheduled)
	list(s.Prober.Outcomes)
	value("  delayed by ourselves", s.Prober.Delayed)
	value("history", s.Store.State)
	value("  rows written", s.Store.Written)
	value("  rows lost", sum(s.Store.Dropped))
	value("  size", bytesText(s.Store.SizeBytes))
	value("hooks sent", s.Hooks.Sent)
	value("hooks failed", s.Hooks.Failed)
	value("hooks dropped", s.Hooks.Dropped)
	value("log lines lost", s.LogDropped)
	value("goroutines", s.Goroutines)
	value("heap", bytesText(int64(s.HeapBytes)))
}
