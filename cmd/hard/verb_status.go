package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/admin"
	"hard/internal/rank"
)

// watchEvery is the pace of status -watch.
const watchEvery = time.Second

// status is hard status: what every name answers.
func status(o *options, stdout, stderr io.Writer) int {
	path := "/v1/status"
	if len(o.args) == 1 {
		path = "/v1/names/" + url.PathEscape(o.args[0])
	}
	if o.watch {
		return watchStatus(o, path, stdout, stderr)
	}
	return ask(o, stdout, stderr, "GET", path, nil, showStatus, nil)
}

// watchStatus shows the status again and again until a signal. A daemon that goes away may come
// back; only one that was never there is an error.
func watchStatus(o *options, path string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := newClient(o)
	if err != nil {
		return fail(stderr, err)
	}
	defer c.close()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for shown := false; ; shown = true {
		var s admin.Status
		err := c.call(ctx, "GET", path, nil, &s)
		var down *notRunning
		switch {
		case ctx.Err() != nil:
			return exitOK
		case err != nil && (!shown || !errors.As(err, &down)):
			return fail(stderr, err)
		}
		if err := redraw(o, stdout, &s, err); err != nil {
			return exitFailed // nobody looks any more
		}
		select {
		case <-ctx.Done():
			return exitOK
		case <-tick.C:
		}
	}
}

// redraw shows one status: over the last one on a terminal, below it elsewhere, as one line of
// JSON where that is wanted.
func redraw(o *options, w io.Writer, s *admin.Status, problem error) error {
	if o.json {
		if problem != nil {
			return nil
		}
		return json.NewEncoder(w).Encode(s)
	}
	p := newPage(w)
	if problem != nil {
		p.line(red, "%v", problem)
	} else {
		showStatus(p, s)
	}
	lines := p.lines()
	if !isTerminal(w) {
		_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n\n")
		return err
	}
	if rows := height(w); rows > 1 && len(lines) > rows-1 {
		lines = append(lines[:rows-2], fmt.Sprintf("... %d lines more: hard status NAME", len(lines)-rows+2))
	}
	// Home, each line cleared behind its end, then everything below: no flicker (ECMA-48).
	_, err := io.WriteString(w, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

// height is that of a terminal, in lines; 0 where it is not known.
func height(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Row)
}

func showStatus(p *page, s *admin.Status) {
	endpoints, healthy := 0, 0
	for i := range s.Names {
		endpoints += len(s.Names[i].Endpoints)
		healthy += s.Names[i].Healthy
	}
	p.line(bold, "hard %s, pid %d, up %s: %s, %s, %d healthy", s.Version, s.PID, span(s.At.Sub(s.Started)),
		plural(len(s.Names), "name"), plural(endpoints, "endpoint"), healthy)
	p.line(dim, "%s, loaded %s ago; log level %s", s.Config.File, since(s.Config.Loaded, s.At), s.LogLevel)
	if !s.Config.ReloadOK {
		p.line(red, "The last reload failed, an older configuration is in force: %s", firstLineOf(s.Config.ReloadFail))
	}
	if s.LocalFault {
		p.line(red, "Our own network is suspect: nothing at all answers; answers stay as they are.")
	}
	for i := range s.Names {
		showName(p, &s.Names[i], s.At)
	}
	showUpstreams(p, s.Upstreams, s.At)
	showOverrides(p, s.Overrides, s.At)
	p.line(plain, "")
	showHealth(p, &s.Store, &s.Prober)
}

// showName is one name with its answers and endpoints.
func showName(p *page, n *admin.Name, now time.Time) {
	p.line(plain, "")
	title := n.Name
	if n.AllDown {
		title += ": ALL DOWN"
	}
	p.line(bold, "%s", title)
	for _, typ := range []string{"A", "AAAA"} {
		a, asked := n.Answers[typ]
		if !asked || len(a.Addresses) == 0 && !hasType(n, typ) && len(n.Endpoints) > 0 {
			continue
		}
		p.line(answerColour(a.Kind), "  %s %s: %s", typ, answerText(&a), a.Reason)
	}
	labels := false
	for i := range n.Endpoints {
		labels = labels || n.Endpoints[i].Candidate != n.Endpoints[i].Address.String()
	}
	for i := range n.Endpoints {
		p.add(endpointCells(&n.Endpoints[i], labels, now)...)
	}
}

func hasType(n *admin.Name, typ string) bool {
	for i := range n.Endpoints {
		if n.Endpoints[i].Type == typ {
			return true
		}
	}
	return false
}

// answerText is what is answered, in short.
func answerText(a *admin.Answer) string {
	if len(a.Addresses) == 0 {
		return kindText(a.Kind)
	}
	s := make([]string, len(a.Addresses))
	for i, addr := range a.Addresses {
		s[i] = addr.String()
	}
	text := strings.Join(s, " ")
	if a.Kind != rank.Normal {
		text += " (" + a.Kind.String() + ")"
	}
	return text
}

func kindText(k rank.Kind) string {
	if k == rank.Normal {
		return "nodata"
	}
	return k.String()
}

func answerColour(k rank.Kind) colour {
	switch k {
	case rank.Normal, rank.Empty:
		return plain
	case rank.Fail, rank.StaleAll, rank.Stale:
		return red
	}
	return yellow
}

func endpointCells(e *admin.Endpoint, labels bool, now time.Time) []cell {
	mark, style := "  ", plain
	switch {
	case e.Selected:
		mark, style = "* ", green
	case e.State == rank.Unhealthy:
		style = red
	case e.State == rank.Unknown:
		style = yellow
	}
	label, address := e.Candidate, e.Address.String()
	if !labels {
		label, address = address, ""
	}
	state := e.State.String()
	if e.Override != rank.Auto {
		state = e.Override.String() + "!"
	}
	last := ""
	if e.LastOutcome != "ok" {
		last = e.LastOutcome
	}
	if e.Held {
		last += " (held)"
	}
	return []cell{
		{text: mark + label, style: style}, {text: address}, {text: state, style: style},
		{text: msText(e.LatencyMS), right: true}, {text: fmt.Sprintf("t%d w%d", e.Tier, e.Weight), style: dim},
		{text: since(e.Since, now), right: true}, {text: last, style: red},
	}
}

func showUpstreams(p *page, list []admin.Upstream, now time.Time) {
	p.line(plain, "")
	p.line(bold, "upstreams")
	if len(list) == 0 {
		p.line(red, "  none: other names than our own get SERVFAIL")
	}
	for _, u := range list {
		style := green
		if u.State != "up" {
			style = red
		}
		seen := "never answered"
		if !u.LastSeen.IsZero() {
			seen = "seen " + since(u.LastSeen, now)
		}
		p.add(cell{text: "  " + u.Upstream}, cell{}, cell{text: u.State, style: style},
			cell{text: msText(u.RTTMS), right: true}, cell{text: fmt.Sprintf("%d q", u.Queries), style: dim},
			cell{text: seen, style: dim})
	}
}

func showOverrides(p *page, list []admin.Override, now time.Time) {
	if len(list) == 0 {
		return
	}
	p.line(plain, "")
	p.line(bold, "overrides")
	for i := range list {
		p.line(yellow, "  %s", overrideText(&list[i], now))
	}
}

// overrideText is one override in a line.
func overrideText(o *admin.Override, now time.Time) string {
	s := o.Name + "/" + o.Candidate + ": "
	if o.What == "weight" {
		s += "weight "
	}
	s += o.Value
	if !o.Until.IsZero() {
		s += fmt.Sprintf(" until %s (%s more)", clock(o.Until, now), span(o.Until.Sub(now)))
	}
	if o.Who != "" {
		s += ", by " + o.Who
	}
	if o.Why != "" {
		s += ": " + o.Why
	}
	return s
}

func showHealth(p *page, st *admin.Store, pr *admin.Prober) {
	style, text := plain, "history "+st.State
	if st.Reason != "" {
		style, text = red, text+": "+st.Reason
	}
	p.line(style, "%s, %s, %d rows written, %d lost", text, bytesText(st.SizeBytes), st.Written, sum(st.Dropped))
	p.line(plain, "probes: %d scheduled, %d running, late by %s on average, %s at most", pr.Scheduled, pr.Running,
		msText(pr.LagAvgMS), msText(pr.LagMaxMS))
}

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func firstLineOf(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}
