package hook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// open makes a Hook and sees at the end that no goroutine of it is left.
func open(t *testing.T) *Hook {
	t.Helper()
	before := runtime.NumGoroutine()
	h := New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.Stop(ctx)
		eventually(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= before })
	})
	return h
}

func change(i int) *Change {
	a := netip.MustParseAddr("127.0.0.9")
	return &Change{Time: time.Unix(int64(i), 0).UTC(), Kind: "state", Name: "api.example", Candidate: "a", Address: &a,
		Old: "healthy", New: "unhealthy", Reason: fmt.Sprint(i)}
}

// script writes a program of its own.
func script(t *testing.T, text string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(f, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestProgramGetsEachChangeInOrder(t *testing.T) {
	h := open(t)
	out := filepath.Join(t.TempDir(), "out")
	h.Set([]string{script(t, `[ "$1" = "two words" ] && cat >>"$2"`), "two words", out}, "")
	for i := range 20 {
		h.Send(change(i))
	}
	eventually(t, "all are sent", func() bool { return h.Stats().Sent == 20 })
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 20 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		var c Change
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if c.Reason != fmt.Sprint(i) || c.New != "unhealthy" || c.Address.String() != "127.0.0.9" {
			t.Errorf("line %d: %s", i, line)
		}
	}
}

func TestProgramThatFailsIsCounted(t *testing.T) {
	h := open(t)
	h.Set([]string{"/nonexistent/program"}, "")
	h.Send(change(1))
	h.Set([]string{script(t, "echo broken >&2; exit 3")}, "")
	h.Send(change(2))
	eventually(t, "both failed", func() bool { return h.Stats().Failed == 2 })
}

// A program that hangs fills its queue and holds up nobody; Stop ends it with its children.
func TestProgramThatHangsIsBounded(t *testing.T) {
	h := open(t)
	h.Set([]string{script(t, "sleep 1000 & wait")}, "")
	const n = 2 * queueLen
	began := time.Now()
	for i := range n {
		h.Send(change(i))
	}
	if took := time.Since(began); took > runTime/2 {
		t.Errorf("Send waited: %v", took)
	}
	if d := h.Stats().Dropped; d == 0 || d > n-queueLen {
		t.Errorf("%d dropped", d)
	}
}

func TestWebhookIsRetried(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	fails := 1
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if fails > 0 {
			fails--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		bodies = append(bodies, string(b))
	}))
	t.Cleanup(srv.Close)
	h := open(t)
	h.Set(nil, srv.URL)
	h.Send(change(1))
	h.Send(change(2))
	eventually(t, "both are sent", func() bool { return h.Stats().Sent == 2 })
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) != 2 || !strings.Contains(bodies[0], `"reason":"1"`) || !strings.Contains(bodies[1], `"reason":"2"`) {
		t.Errorf("the server got %q", bodies)
	}
}

// What no attempt can change is not tried again, and no redirect is followed.
func TestWebhookRefused(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		mu.Unlock()
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	}))
	t.Cleanup(srv.Close)
	h := open(t)
	h.Set(nil, srv.URL)
	h.Send(change(1))
	eventually(t, "it failed", func() bool { return h.Stats().Failed == 1 })
	mu.Lock()
	defer mu.Unlock()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// What waits when the hook is stopped is still sent, as long as there is time.
func TestStopSendsWhatWaits(t *testing.T) {
	h := New(slog.New(slog.DiscardHandler))
	h.Set([]string{"/bin/true"}, "")
	for i := range 5 {
		h.Send(change(i))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h.Stop(ctx)
	if s := h.Stats(); s.Sent != 5 {
		t.Errorf("%+v", s)
	}
	h.Send(change(9)) // goes nowhere, and does not panic
}

// A webhook's URL is a password as a rule: what is logged of a failure is its host, however it fails.
func TestWebhookURLIsNotLogged(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(srv.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	for what, target := range map[string]string{"403": srv.URL, "refused": gone.URL, "not a URL": "http://[::1", "no host": "http:///"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		deliver, end := post(target + "/services/SECRETpath?token=SECRETquery")
		err := deliver(ctx, []byte("{}"))
		cancel()
		end()
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := shown("https://user:SECRET@hooks.example/SECRET"); s != "https://hooks.example/..." {
		t.Error(s)
	}
	var log strings.Builder
	h := New(slog.New(slog.NewTextHandler(&log, nil)))
	h.Set(nil, srv.URL+"/SECRETpath")
	h.Send(change(1))
	eventually(t, "it failed", func() bool { return h.Stats().Failed == 1 })
	h.Stop(t.Context())
	if text := log.String(); !strings.Contains(text, "403") || strings.Contains(text, "SECRET") {
		t.Error(text)
	}
}
