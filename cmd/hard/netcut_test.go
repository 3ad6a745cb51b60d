package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hard/internal/admin"
)

// The local-fault guard on real networks: hard in one network namespace, each candidate in one
// of its own at the other end of a cable (a veth pair), which can be pulled. All traffic stays
// between these namespaces.

// serveEnv makes this test binary a candidate: ADDRESS:PORT,DELAY.
const serveEnv = "HARD_TEST_SERVE"

func init() {
	text := os.Getenv(serveEnv)
	if text == "" {
		return
	}
	addr, wait, _ := strings.Cut(text, ",")
	delay, err := time.ParseDuration(wait)
	if err == nil {
		err = http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(delay)
			_, _ = io.WriteString(w, "ok")
		}))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// peer is a candidate in a namespace of its own.
type peer struct {
	ns, link, addr string
	cmd            *exec.Cmd
}

const peers = 4

// wire makes the candidates and their cables; the first is the fastest.
func (h *host) wire() []*peer {
	h.t.Helper()
	ip := func(args ...string) {
		h.t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			h.t.Skipf("skipped: ip %v: %v: %s", args, err, out)
		}
	}
	var list []*peer
	for i := range peers {
		p := &peer{ns: fmt.Sprintf("%s-%d", h.name, i), link: fmt.Sprintf("cable%d", i), addr: fmt.Sprintf("203.0.113.%d", 4*i+2)}
		ip("netns", "add", p.ns)
		h.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", p.ns).Run() })
		ip("link", "add", p.link, "netns", h.name, "type", "veth", "peer", "name", p.link, "netns", p.ns)
		ip("-n", h.name, "addr", "add", fmt.Sprintf("203.0.113.%d/30", 4*i+1), "dev", p.link)
		ip("-n", p.ns, "addr", "add", p.addr+"/30", "dev", p.link)
		ip("-n", h.name, "link", "set", p.link, "up")
		ip("-n", p.ns, "link", "set", p.link, "up")
		cmd := exec.Command("ip", "netns", "exec", p.ns, os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:80,%dms", serveEnv, p.addr, 15*i))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			h.t.Fatal(err)
		}
		p.cmd = cmd
		h.t.Cleanup(p.kill)
		list = append(list, p)
	}
	return list
}

// kill ends the candidate's process; its address refuses from then on.
func (p *peer) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// cable puts one end of cables up or down.
func cable(t *testing.T, state string, end func(*peer) string, list ...*peer) {
	t.Helper()
	for _, p := range list {
		if out, err := exec.Command("ip", "-n", end(p), "link", "set", p.link, state).CombinedOutput(); err != nil {
			t.Fatalf("ip link set: %v: %s", err, out)
		}
	}
}

// wired is hard, its candidates, and what it says of itself.
type wired struct {
	*host
	peers  []*peer
	log    *safeBuffer
	socket string
}

func newWired(t *testing.T, settings string) *wired {
	t.Helper()
	h := newHost(t)
	w := &wired{host: h, peers: h.wire(), socket: filepath.Join(h.dir, "control.sock")}
	file := filepath.Join(h.dir, "har.toml")
	var list []string
	for _, p := range w.peers {
		list = append(list, fmt.Sprintf("%q", p.addr))
	}
	h.write(file, fmt.Sprintf(`
[listen]
dns = ["127.0.0.1:53"]
http = ""
control = %q
[upstream]
servers = ["127.0.2.53"]
[store]
path = %q
[defaults]
check = "http://api.example.com/healthz"
%s
[name."api.example.com"]
candidates = [%s]
`, w.socket, filepath.Join(h.dir, "hard.db"), settings, strings.Join(list, ", ")))
	_, w.log = h.start(nil, h.hard, "-c", file)
	w.answers(0)
	w.allHealthy()
	return w
}

func (w *wired) allHealthy() {
	w.t.Helper()
	eventually(w.t, "all candidates are healthy", func() bool { return w.status().Names[0].Healthy == peers })
}

func (w *wired) asks() string {
	out, _ := w.command("getent", "ahostsv4", "api.example.com").CombinedOutput()
	addr, _, _ := strings.Cut(string(out), " ")
	return addr
}

// answers waits until a candidate is answered.
func (w *wired) answers(i int) {
	w.t.Helper()
	eventually(w.t, "the answer is "+w.peers[i].addr, func() bool { return w.asks() == w.peers[i].addr })
}

func (w *wired) status() admin.Status {
	w.t.Helper()
	out, err := exec.Command(w.hard, "status", "-json", "-s", w.socket).Output()
	if err != nil {
		w.t.Fatalf("status: %v: %s", err, out)
	}
	var s admin.Status
	if err := json.Unmarshal(out, &s); err != nil {
		w.t.Fatalf("status: %v", err)
	}
	return s
}

// quietly sees that no endpoint went down and no answer changed since the log had so many bytes.
func (w *wired) quietly(since int) {
	w.t.Helper()
	for line := range strings.Lines(w.log.String()[since:]) {
		if strings.Contains(line, "endpoint is ") || strings.Contains(line, "answer changed") {
			w.t.Errorf("during a cut of our own network: %s", line)
		}
	}
}

// TestNetCut, fault 29, pulls all cables at once: nothing may change. Then it kills half of the candidates,
// which must.
func TestNetCut(t *testing.T) {
	settings, rest := "interval = \"200ms\"\nfast_interval = \"50ms\"\ntimeout = \"300ms\"\nbackoff_max = \"1s\"\nhold = \"200ms\"", 300*time.Millisecond
	if os.Getenv("HARD_LONG") != "" {
		settings, rest = "", 20*time.Second
	}
	w := newWired(t, settings)
	here := func(*peer) string { return w.name }
	there := func(p *peer) string { return p.ns }
	cuts := []struct {
		what string
		end  func(*peer) string
	}{{"the far ends go down: packets vanish", there}, {"our interfaces go down: the kernel says so", here}}
	if os.Getenv("HARD_LONG") == "" {
		cuts = cuts[:1]
	}
	for _, cut := range cuts {
		since := len(w.log.String())
		began := time.Now()
		cable(t, "down", cut.end, w.peers...)
		eventually(t, "status says that our own network is suspect", func() bool { return w.status().LocalFault })
		t.Logf("%s: known after %v", cut.what, time.Since(began).Round(time.Millisecond))
		for end := time.Now().Add(rest); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // how long the cut lasts
			if got := w.asks(); got != w.peers[0].addr {
				t.Fatalf("during the cut: %q is answered", got)
			}
		}
		if !strings.Contains(w.log.String(), "our own network is suspect") { // the second time it may only be counted
			t.Error("the log does not say so")
		}
		began = time.Now()
		cable(t, "up", cut.end, w.peers...)
		eventually(t, "the fault is over", func() bool { return !w.status().LocalFault })
		t.Logf("%s: over after %v", cut.what, time.Since(began).Round(time.Millisecond))
		w.allHealthy()
		w.quietly(since)
	}

	// Half of them truly dead, and in silence: the others prove that the network works.
	began := time.Now()
	cable(t, "down", there, w.peers[0], w.peers[1])
	w.answers(2)
	t.Logf("half of them silent: the answer changed after %v", time.Since(began).Round(time.Millisecond))
	if w.status().LocalFault {
		t.Error("half of the candidates dead were taken for a fault of our own")
	}
	// The rest refuses: nothing is left, and on_all_down keeps the last that was good.
	w.peers[2].kill()
	w.peers[3].kill()
	eventually(t, "all down", func() bool { return w.status().Names[0].AllDown })
	if got := w.asks(); got != w.peers[3].addr && got != w.peers[2].addr {
		t.Errorf("all down: %q is answered, want one of the last good", got)
	}
}
