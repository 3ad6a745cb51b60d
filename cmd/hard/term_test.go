package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"hard/internal/admin"
	"hard/internal/rank"
)

// terminal opens a pseudo-terminal of that many lines; what is written to tty is read from far.
func terminal(t *testing.T, lines uint16) (tty, far *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("skipped: no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { far.Close() })
	fd := int(far.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("skipped: no pseudo-terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipped: no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return tty, far
}

// shown reads what a terminal got up to an end.
func shown(t *testing.T, far *os.File, end string) string {
	t.Helper()
	var b bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(b.String(), end) {
		n, err := far.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, b.String())
		}
		b.Write(buf[:n])
	}
	return b.String()
}

func TestColour(t *testing.T) {
	tty, _ := terminal(t, 24)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		w             any
		noColor, term string
		want          bool
	}{
		{tty, "", "xterm", true},
		{tty, "1", "xterm", false},
		{tty, "", "dumb", false},
		{null, "", "xterm", false},
		{new(bytes.Buffer), "", "xterm", false},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		got := false
		switch w := c.w.(type) {
		case *os.File:
			got = wantsColour(w)
		case *bytes.Buffer:
			got = wantsColour(w)
		}
		if got != c.want {
			t.Errorf("NO_COLOR=%s TERM=%s on %T: %v", c.noColor, c.term, c.w, got)
		}
	}
}

// aStatus has n names with long labels and addresses, one endpoint of each in trouble.
func aStatus(n int) *admin.Status {
	s := &admin.Status{At: time.Unix(1e9, 0), Started: time.Unix(1e9-3600, 0)}
	for i := range n {
		var name admin.Name
		name.Name = fmt.Sprintf("name%d.%s.example.com", i, strings.Repeat("long.", 20))
		name.Answers = map[string]admin.Answer{"A": {}, "AAAA": {Reason: strings.Repeat("because ", 30)}}
		for j, state := range []rank.State{rank.Healthy, rank.Unhealthy, rank.Unknown} {
			name.Endpoints = append(name.Endpoints, admin.Endpoint{
				Candidate: strings.Repeat("label", 10), Type: "AAAA", State: state, Selected: j == 0, LatencyMS: 1234.5,
				LastOutcome: "unreachable", Held: true, Since: time.Unix(1e9-7200, 0),
			})
			name.Endpoints[j].Address.UnmarshalText([]byte("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"))
		}
		s.Names = append(s.Names, name)
	}
	s.Overrides = []admin.Override{{Name: s.Names[0].Name, Candidate: "x", Value: "down", Why: strings.Repeat("y", 200)}}
	return s
}

// TestStatusFits: whatever is in it, no line is wider than 80 columns, colours not counted.
func TestStatusFits(t *testing.T) {
	p := newPage(new(bytes.Buffer))
	showStatus(p, aStatus(2))
	for _, line := range p.lines() {
		if utf8.RuneCountInString(line) > pageWidth || strings.HasSuffix(line, " ") {
			t.Errorf("%d columns, or blanks at the end: %q", utf8.RuneCountInString(line), line)
		}
	}
	p.colours = true
	if text := strings.Join(p.lines(), "\n"); !strings.Contains(text, "\x1b[32m") || strings.Count(text, "\x1b[0m") != strings.Count(text, "\x1b[")/2 {
		t.Errorf("colours: %q", text)
	}
}

// TestStatusWhole: what an operator must be able to copy isn't shortened while there is room beside it,
// and a name without any endpoint says why.
func TestStatusWhole(t *testing.T) {
	s := aStatus(1)
	s.Upstreams = []admin.Upstream{{Upstream: "127.0.9.77:5300", State: "down"}}
	s.Names = append(s.Names, admin.Name{Name: "x.example", Answers: map[string]admin.Answer{"A": {Kind: rank.NotReady, Reason: "because"}}})
	p := newPage(new(bytes.Buffer))
	showStatus(p, s)
	text := strings.Join(p.lines(), "\n")
	for _, want := range []string{"  127.0.9.77:5300  ", "x.example\n  A not_ready: because\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestRedraw: over the last picture, never scrolling, and nothing of the old one is left.
func TestRedraw(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "xterm")
	tty, far := terminal(t, 10)
	if err := redraw(new(options), tty, aStatus(5), nil); err != nil {
		t.Fatal(err)
	}
	got := shown(t, far, "\x1b[J")
	if !strings.HasPrefix(got, "\x1b[H") || strings.Count(got, "\n") != 9 || strings.Count(got, "\x1b[K") != 9 || !strings.Contains(got, "lines more") {
		t.Errorf("%q", got)
	}
	if err := redraw(new(options), tty, nil, &notRunning{"/x.sock", unix.ECONNREFUSED}); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, far, "\x1b[J"); !strings.Contains(got, "not running") {
		t.Errorf("%q", got)
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 90 * time.Minute: "1h30m", 50 * time.Hour: "2d02h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
