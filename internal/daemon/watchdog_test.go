package daemon

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/handover"
)

// told gathers what a service manager is told.
type told struct {
	mu   sync.Mutex
	text []string
}

func (w *told) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, string(b))
	return len(b), nil
}

func (w *told) count(what string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.text {
		if strings.Contains(t, what) {
			n++
		}
	}
	return n
}

// TestWatchdog: the service manager hears that we are alive as long as a query to ourselves over UDP
// is answered, and no longer.
func TestWatchdog(t *testing.T) {
	dir, err := os.MkdirTemp("", "hard")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard, logged := new(told), new(told)
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			_, _ = heard.Write(b[:n])
		}
	}()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "80000")
	t.Setenv("FDSTORE", "0") // this manager stores nothing
	m := handover.FromEnvironment()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("children would inherit %s=%s", name, v)
		}
	}
	c, report := config.Parse("test", []byte("[listen]\ndns=[\"127.0.0.1:0\"]\nhttp=\"\"\ncontrol=\"\"\n[upstream]\nservers=[\"127.0.0.1:9\"]\n[store]\npath=\""+dir+"/hard.db\"\n"+
		"[name.\"a.example\"]\ncandidates=[\"192.0.2.1\",\"192.0.2.2\"]\ncheck=\"static:\"\n"))
	if c == nil {
		t.Fatal(report.Err())
	}
	level := new(slog.LevelVar)
	d, err := Start(c, Options{Log: slog.New(slog.NewTextHandler(logged, nil)), Level: level, Version: "test", Manager: m})
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within 30 s: %s", what)
			}
		}
	}
	wait("we are alive", func() bool { return heard.count("WATCHDOG=1") >= 3 })
	if heard.count("READY=1") != 1 || heard.count("FDSTORE=1") != 0 {
		t.Errorf("told: %q", heard.text)
	}
	d.resolver.Leave() // nobody reads queries any more
	wait("our silence is noticed", func() bool { return logged.count("a query to ourselves got no answer") > 0 })
	before := heard.count("WATCHDOG=1")
	wait("it is noticed again", func() bool { return logged.count("a query to ourselves got no answer") > 1 })
	if after := heard.count("WATCHDOG=1"); after != before {
		t.Errorf("the watchdog was fed %d times by somebody who answers nothing", after-before)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	wait("the stop is told", func() bool { return heard.count("STOPPING=1") == 1 })
}
