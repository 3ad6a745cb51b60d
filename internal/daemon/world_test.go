package daemon_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/config"
	"hard/internal/daemon"
)

// patience bounds every wait of these tests; none of them depends on how fast something is.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond) // the poll's pace, not a wait for an effect
	}
}

// candidate is a real HTTP or TCP server on an address of its own, which can die and come back.
type candidate struct {
	t     *testing.T
	addr  netip.AddrPort
	delay time.Duration
	agent atomic.Value // last User-Agent seen
	host  atomic.Value // last Host header seen

	mu  sync.Mutex
	srv *http.Server
}

// newCandidate listens on ip; port 0 picks one.
func newCandidate(t *testing.T, ip string, port uint16, delay time.Duration) *candidate {
	t.Helper()
	c := &candidate{t: t, delay: delay, addr: netip.AddrPortFrom(netip.MustParseAddr(ip), port)}
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *candidate) start() {
	c.t.Helper()
	l, err := net.Listen("tcp", c.addr.String())
	if err != nil {
		c.t.Fatalf("candidate: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = l.Addr().(*net.TCPAddr).AddrPort()
	c.srv = &http.Server{Handler: c}
	srv := c.srv
	go func() { _ = srv.Serve(l) }()
}

func (c *candidate) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.srv != nil {
		c.srv.Close()
		c.srv = nil
	}
}

func (c *candidate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.agent.Store(r.UserAgent())
	c.host.Store(r.Host)
	select {
	case <-time.After(c.delay):
	case <-r.Context().Done():
		return
	}
	io.WriteString(w, "ok\n")
}

// upstream is a real DNS server (miekg/dns) over UDP and TCP.
type upstream struct {
	addr netip.AddrPort
	mu   sync.Mutex
	rrs  map[string][]string // "name. TYPE" -> records in zone-file form
	seen map[string]int
}

func newUpstream(t *testing.T, ip string) *upstream {
	t.Helper()
	u := &upstream{rrs: map[string][]string{}, seen: map[string]int{}}
	var pc net.PacketConn
	var l net.Listener
	for range 10 { // the same port for both, which somebody else may have for one of them
		var err error
		if pc, err = net.ListenPacket("udp", net.JoinHostPort(ip, "0")); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			break
		}
		pc.Close()
	}
	if l == nil {
		t.Fatal("no port for the upstream")
	}
	u.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: u}, {Listener: l, Handler: u}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return u
}

// set replaces the records of one name and type; "NXDOMAIN" alone makes that the answer.
func (u *upstream) set(name, typ string, rrs ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rrs[dns.Fqdn(name)+" "+typ] = rrs
}

func (u *upstream) asked(name, typ string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[dns.Fqdn(name)+" "+typ]
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) == 1 {
		k := strings.ToLower(q.Question[0].Name) + " " + dns.TypeToString[q.Question[0].Qtype]
		u.mu.Lock()
		u.seen[k]++
		rrs, ok := u.rrs[k]
		u.mu.Unlock()
		switch {
		case !ok:
			m.Rcode = dns.RcodeNameError
		default:
			for _, text := range rrs {
				rr, err := dns.NewRR(text)
				if err != nil {
					panic(err)
				}
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	_ = w.WriteMsg(m)
}

// house is a running daemon with its file.
type house struct {
	*daemon.Daemon
	t    *testing.T
	file string
	db   string
	logs *logBuffer

	cold     bool // the next run ignores the stored state
	badStore bool // the database is broken on purpose: a stop says that history was lost
}

// logBuffer keeps what was logged, for tests that look for a line.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a daemon on a configuration; DB stands for a database path of its own. The test's
// end stops it and sees that nothing of it stays behind.
func start(t *testing.T, text string) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, file: filepath.Join(dir, "har.toml"), db: filepath.Join(dir, "hard.db"), logs: new(logBuffer)}
	h.write(text)
	leakCheck(t, h.stop)
	h.run()
	return h
}

// leakCheck sees that after stop, at the test's end, goroutines, descriptors and memory are back where they were.
func leakCheck(t *testing.T, stop func()) {
	t.Helper()
	const (
		own  = 4        // descriptors that Go's runtime opens when it first needs them, and keeps
		heap = 32 << 20 // what a test may keep of what it has seen
	)
	goroutines, descriptors, memory := runtime.NumGoroutine(), openDescriptors(t), liveHeap()
	t.Cleanup(func() {
		stop()
		eventually(t, "goroutines are back where they began", func() bool { return runtime.NumGoroutine() <= goroutines })
		eventually(t, "descriptors are back where they began", func() bool { return openDescriptors(t) <= descriptors+own })
		if now := liveHeap(); now > memory+heap {
			t.Errorf("%d KiB of heap are live, %d before", now>>10, memory>>10)
		}
	})
}

// liveHeap is what a collection leaves.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one has only taken out of pools
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// upstreamLine is short for what most of these configurations begin with.
var upstreamLine = regexp.MustCompile(`(?m)^UPSTREAM (.*)$`)

// whole writes out the line UPSTREAM "ADDR", ...: one listener, those upstreams, a database.
func whole(text string) string {
	return upstreamLine.ReplaceAllString(text, `[listen]
dns = ["127.0.0.1:0"]
http = ""
control = ""
[upstream]
servers = [$1]
[store]
path = "DB"`)
}

func (h *house) write(text string) {
	h.t.Helper()
	text = strings.ReplaceAll(whole(text), "DB", h.db)
	if err := os.WriteFile(h.file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) run() {
	h.t.Helper()
	load := func() (*config.Config, config.Report) { return config.Load(h.file) }
	c, report := load()
	if c == nil {
		h.t.Fatalf("configuration: %v", report.Err())
	}
	level := new(slog.LevelVar)
	d, err := daemon.Start(c, daemon.Options{Load: load, Log: daemon.NewLogger(h.logs, "text", level), Level: level, Version: "test", Cold: h.cold})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Daemon = d
}

func (h *house) stop() {
	h.t.Helper()
	if h.Daemon == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.Stop(ctx); err != nil && !h.badStore {
		h.t.Errorf("stop: %v", err)
	}
	h.Daemon = nil
	if h.t.Failed() {
		h.t.Logf("log of the daemon:\n%s", h.logs)
	}
}

// ask sends one question over one transport to one listener.
func (h *house) ask(network string, listener int, name string, qtype uint16) *dns.Msg {
	h.t.Helper()
	r, err := h.try(network, listener, name, qtype)
	if err != nil {
		h.t.Fatalf("%s %s over %s: %v\n%s", name, dns.TypeToString[qtype], network, err, h.logs)
	}
	return r
}

func (h *house) try(network string, listener int, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	c := &dns.Client{Net: network, Timeout: 6 * time.Second}
	r, _, err := c.Exchange(m, h.Addrs()[listener].String())
	return r, err
}

// addresses are the A and AAAA records of a reply.
func addresses(r *dns.Msg) []string {
	var out []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	return out
}

// answers waits until a name's answer is exactly these addresses, in any order.
func (h *house) answers(name string, qtype uint16, want ...string) {
	h.t.Helper()
	slices.Sort(want)
	var got []string
	eventually(h.t, fmt.Sprintf("%s %s answers %v", name, dns.TypeToString[qtype], want), func() bool {
		r, err := h.try("udp", 0, name, qtype)
		if err != nil {
			return false
		}
		got = addresses(r)
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// sqlite runs the real sqlite3 program on the live database.
func (h *house) sqlite(query string) []string {
	h.t.Helper()
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		h.t.Skip("skipped: the sqlite3 program is not installed")
	}
	out, err := exec.Command(program, "-readonly", "-separator", " ", h.db, query).CombinedOutput()
	if err != nil {
		h.t.Logf("sqlite3 %q: %v: %s", query, err, out)
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return strings.Split(text, "\n")
	}
	return nil
}

// needIPv6 skips a test on a host without ::1.
func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("skipped: no IPv6 loopback here: %v", err)
	}
	l.Close()
}

func optionsFor(t *testing.T) daemon.Options {
	t.Helper()
	level := new(slog.LevelVar)
	return daemon.Options{Log: daemon.NewLogger(new(logBuffer), "text", level), Level: level, Version: "test"}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
