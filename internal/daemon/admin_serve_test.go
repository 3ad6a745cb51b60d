package daemon_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/admin"
)

// TestSocketFile: mode, directory, a stale socket, and a file that is not ours.
func TestSocketFile(t *testing.T) {
	text, _, _ := twoCandidates(t, "8")
	w := watch(t, text)
	info, err := os.Stat(w.socket)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != fs.ModeSocket {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if dir, err := os.Stat(filepath.Dir(w.socket)); err != nil || dir.Mode().Perm() != 0o750 {
		t.Errorf("directory: %v %v", dir.Mode(), err)
	}
	w.stop()
	if _, err := os.Stat(w.socket); err == nil {
		t.Error("the socket outlives the daemon")
	}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as kill -9 leaves it
	w.run()
	eventually(t, "the stale socket was replaced", func() bool {
		r, err := w.unix.Get("http://hard/v1/stats")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	w.stop()
	if err := os.WriteFile(w.socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run() // is no reason not to serve
	w.answers("api.example", dns.TypeA, "127.0.8.1")
	eventually(t, "the log says what is in the way", func() bool { return strings.Contains(w.logs.String(), "is not a socket") })
	if read(t, w.socket) != "precious" {
		t.Error("somebody's file was removed")
	}
	if err := os.Remove(w.socket); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is tried again", func() bool {
		info, err := os.Stat(w.socket)
		return err == nil && info.Mode().Type() == fs.ModeSocket
	})
}

// TestHTTP: what the loopback server gives, and to whom.
func TestHTTP(t *testing.T) {
	text, _, _ := twoCandidates(t, "9")
	w := watch(t, text)
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body, _ := w.get(path); code != 200 || body != "ok\n" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	code, body, header := w.get("/status.json")
	var st admin.Status
	if err := json.Unmarshal([]byte(body), &st); code != 200 || err != nil || len(st.Names) != 2 {
		t.Errorf("%d %v %s", code, err, body)
	}
	if !strings.Contains(header.Get("Content-Security-Policy"), "default-src 'none'") || header.Get("X-Content-Type-Options") != "nosniff" ||
		header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", header)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for _, c := range []struct {
		method, path, host string
		code               int
	}{
		{"GET", "/status.json", "localhost:1", 200},
		{"HEAD", "/status.json", "status.localhost", 200},
		{"GET", "/status.json", "[::1]:8053", 200},
		{"GET", "/status.json", "127.1.2.3", 200},
		{"GET", "/status.json", "attacker.example", 403},
		{"GET", "/metrics", "attacker.example:80", 403},
		{"GET", "/status.json", "192.0.2.1", 403},
		{"GET", "/status.json", "127.0.0.1.attacker.example", 403},
		{"POST", "/status.json", "localhost", 405},
		{"POST", "/v1/reload", "localhost", 405},
		{"GET", "/v1/status", "localhost", 404},
		{"GET", "/", "localhost", 200},
	} {
		req, err := http.NewRequest(c.method, "http://"+w.HTTPAddr()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		r, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != c.code {
			t.Errorf("%s %s for %s: %d, want %d", c.method, c.path, c.host, r.StatusCode, c.code)
		}
	}
}

// TestReloadMovesHTTP: off, on, and elsewhere, by reload.
func TestReloadMovesHTTP(t *testing.T) {
	text, _, _ := twoCandidates(t, "10")
	w := watch(t, text)
	eventually(t, "http listens", func() bool { return w.HTTPAddr() != "" })
	good := read(t, w.file)
	w.write(strings.ReplaceAll(good, `http = "127.0.0.1:0"`, `http = ""`))
	var r admin.Reloaded
	w.call("POST", "/v1/reload", "", &r)
	if w.HTTPAddr() != "" {
		t.Error("still listening")
	}
	moved := filepath.Join(filepath.Dir(w.socket), "moved.sock")
	w.write(strings.ReplaceAll(strings.ReplaceAll(good, `"127.0.0.1:0"`+"\ncontrol", `"127.0.0.2:0"`+"\ncontrol"), w.socket, moved))
	if code := w.call("POST", "/v1/reload", "", &r); code != 200 {
		t.Fatalf("a reload over the socket that it moves: %d %+v", code, r)
	}
	eventually(t, "the new address", func() bool { return strings.HasPrefix(w.HTTPAddr(), "127.0.0.2:") })
	eventually(t, "the new socket", func() bool { _, err := os.Stat(moved); return err == nil })
	eventually(t, "the old socket is gone", func() bool { _, err := os.Stat(w.socket); return err != nil })
}

// TestHTTPPortTaken: no reason not to serve; it is logged once, and tried until it works.
func TestHTTPPortTaken(t *testing.T) {
	text, _, _ := twoCandidates(t, "15")
	l, err := net.Listen("tcp", "127.0.15.80:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := watch(t, strings.ReplaceAll(text, `http = "127.0.0.1:0"`, fmt.Sprintf("http = %q", l.Addr())))
	w.answers("api.example", dns.TypeA, "127.0.15.1")
	eventually(t, "the log says so", func() bool {
		return strings.Contains(w.logs.String(), l.Addr().String()+": bind: address already in use")
	})
	l.Close()
	if code, _, _ := w.get("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if n := strings.Count(w.logs.String(), "address already in use"); n != 1 {
		t.Errorf("%d log lines", n)
	}
}

// TestStopDuringProbe: a request that runs while the daemon stops is answered, and no goroutine of
// the servers stays (start's clean-up looks).
func TestStopDuringProbe(t *testing.T) {
	text, near, _ := twoCandidates(t, "16")
	w := watch(t, text)
	w.healthy("api.example", 2)
	near.kill()
	slow := newCandidate(t, "127.0.16.1", near.addr.Port(), time.Minute)
	defer slow.kill()
	silent, err := net.Dial("unix", w.socket) // holds nothing up
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	done := make(chan int, 1)
	go func() {
		r, err := w.unix.Post("http://hard/v1/probe", "application/json", strings.NewReader(`{"name":"api.example","candidate":"near"}`))
		if err != nil {
			done <- 0
			return
		}
		r.Body.Close()
		done <- r.StatusCode
	}()
	eventually(t, "the probe runs", func() bool { return slow.host.Load() != nil })
	w.stop()
	if code := <-done; code != 200 {
		t.Errorf("the request that ran: %d", code)
	}
}
