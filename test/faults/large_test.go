package faults

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/admin"
	"hard/test/faulty"
)

// flood sends queries for new names of a suffix without waiting for replies, at most so many in a
// second, until the function that it returns is called; that gives how many were sent.
func flood(t *testing.T, server netip.AddrPort, suffix string, perSecond int) func() int64 {
	t.Helper()
	c, err := net.Dial("udp", server.String())
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetQuestion("n00000000."+suffix, dns.TypeA)
	m.SetEdns0(1232, true)
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	var sent atomic.Int64
	go func() {
		defer close(done)
		defer c.Close()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := uint32(0); ; {
			for range perSecond / 100 {
				n++
				binary.BigEndian.PutUint16(query, uint16(n))
				copy(query[14:22], fmt.Sprintf("%08d", n))
				if _, err := c.Write(query); err == nil {
					sent.Add(1)
				}
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	end := func() int64 {
		select {
		case <-stop:
		default:
			close(stop)
		}
		<-done
		return sent.Load()
	}
	t.Cleanup(func() { end() })
	return end
}

// Fault 15: 64 MiB are all the memory that the program may have, its files' pages included. It starts
// with 3,000 names and stays below under a flood of forwards that nobody answers, with hundreds of TCP clients
// and reloads, whose garbage alone would be more than that; local answers come.
func TestFault15MemoryLimit(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.Program = faulty.Plain(t) // the race detector takes more by itself
	s.Config(faulty.Head(s.up.Addr) + static + probed("api.example", s.near, s.far) + statics(3000))
	dir := cgroup(t, s.Hard, "memory", "memory.limit_in_bytes", "67108864", "memory.max", "67108864")
	if file := dir + "/memory.swap.max"; exists(file) {
		put(t, file, []byte("0"))
	}
	s.ready()
	faulty.LeakCheck(t, s.Hard)
	s.up.Mute.Store(true)
	a := s.Ask(ours(), s.api(s.near), faulty.Ours("n2999.large.example", "10.11.183.1", "10.75.183.1"))
	end := flood(t, s.DNS, "flood.example.", 10000)
	var conns []net.Conn
	for range 300 {
		c, err := net.DialTimeout("tcp", s.DNS.String(), faulty.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	for range 2 {
		if out, code := s.Verb("reload"); code != 0 {
			t.Errorf("reload: %s", out)
		}
		for i := range 3 {
			a.More(i, 200)
		}
	}
	use := s.Usage()
	sent := end()
	for _, c := range conns {
		c.Close()
	}
	s.up.Mute.Store(false)
	a.Clean()
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.failcnt", "memory.peak"} {
		if b, err := os.ReadFile(dir + "/" + file); err == nil {
			t.Logf("%s: %s", file, strings.TrimSpace(string(b)))
		}
	}
	t.Logf("%d queries of the flood; %v", sent, use)
	s.Wants("forwards again", faulty.Forwarded())
	if strings.Contains(s.Log(), "level=ERROR") {
		t.Error("an error in the log")
	}
}

// statics are names n0.large.example and so on, whose answers never change: 10.N/256.N%256.1, or
// the same plus 64.
func statics(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "[name.\"n%d.large.example\"]\ncandidates = [\"10.%d.%d.1\", \"10.%d.%d.1\"]\ncheck = \"static:\"\n", i, i>>8, i&255, 64+i>>8, i&255)
	}
	return text.String()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Fault 18: 5,000 names with four candidates each, all of them probed. The start takes no longer, probes
// are spread and bounded, local answers are not delayed, and the history keeps up.
func TestFault18ThousandsOfCandidates(t *testing.T) {
	faulty.NeedLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	l, err := net.Listen("tcp", "0.0.0.0:0") // all of 127.0.0.0/8
	if err != nil {
		t.Fatal(err)
	}
	var seen, now, most atomic.Int64
	srv := &http.Server{ReadHeaderTimeout: faulty.Patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		seen.Add(1)
		_, _ = w.Write([]byte("ok"))
		now.Add(-1)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	const names, each = 5000, 4
	var text strings.Builder
	fmt.Fprintf(&text, "%s[defaults]\ncheck = \"http://:%d/\"\ninterval = \"20s\"\nfast_interval = \"1s\"\ntimeout = \"10s\"\n", faulty.Head(up.Addr), l.Addr().(*net.TCPAddr).Port)
	for i := range names {
		fmt.Fprintf(&text, "[name.\"n%d.many.example\"]\ncandidates = [", i)
		for j := range each {
			fmt.Fprintf(&text, "\"127.%d.%d.%d\", ", 200+j, i>>8, i&255)
		}
		text.WriteString("]\n")
	}
	h := faulty.New(t, nil, text.String()+static)
	h.Program, h.MayStopLate = faulty.Plain(t), true
	began := time.Now()
	h.Run()
	started := time.Since(began)
	a := h.Ask(ours(), faulty.Forwarded())
	faulty.Eventually(t, "all candidates were probed", func() bool { return seen.Load() >= names*each })
	verdicts := time.Since(began)
	a.Clean()
	a = h.Ask(ours(), faulty.Forwarded())
	cpu, probes, from := cpuTime(t, h.PID()), seen.Load(), time.Now()
	faulty.Eventually(t, "probes of some seconds", func() bool { return seen.Load() > probes+4000 })
	passed := time.Since(from)
	spent, made := cpuTime(t, h.PID())-cpu, seen.Load()-probes
	a.Clean()
	st := h.Status()
	t.Logf("answers %v after the start; all verdicts after %v; then %d probes in %v for %v of CPU; at most %d at one time; lag at most %.0f ms; %v",
		started.Round(time.Millisecond), verdicts.Round(time.Millisecond), made, passed.Round(time.Millisecond), spent, most.Load(), st.Prober.LagMaxMS, h.Usage())
	// Those that we were late for ourselves are probed again.
	faulty.Eventually(t, "most endpoints are healthy", func() bool {
		if allHealthy(st) >= names*each*3/4 {
			return true
		}
		time.Sleep(500 * time.Millisecond) // to tell of 20,000 endpoints is work, too
		st = h.Status()
		return false
	})
	// Writing has a low priority: beside a busy job it may fall behind, but some gets through.
	if n := st.Store.Dropped["probe"]; n > 0 || st.Store.State != "ok" {
		t.Logf("%d probes of %d dropped from the history, which is %s", n, seen.Load(), st.Store.State)
		if int64(n) > int64(seen.Load())*9/10 {
			t.Error("next to nothing is kept")
		}
	}
	for line := range strings.Lines(h.Log()) {
		if strings.Contains(line, "unhealthy") {
			t.Fatalf("for no fault of a candidate: %s", line)
		}
	}
}

func allHealthy(st admin.Status) (n int) {
	for i := range st.Names {
		n += st.Names[i].Healthy
	}
	return n - 1 // but for the static one
}

// Fault 19: a configuration of 10 MB with 100,000 names: it is checked in seconds, and memory grows with
// its size and no faster.
func TestFault19LargeConfiguration(t *testing.T) {
	faulty.NeedLong(t)
	dir := t.TempDir()
	check := func(names int) (took time.Duration, peakKiB int64) {
		t.Helper()
		var text strings.Builder
		text.WriteString("[defaults]\ncheck = \"static:\"\n")
		for i := range names {
			fmt.Fprintf(&text, "[name.\"n%d.of.a.large.configuration.example\"]\ncandidates = [\"10.%d.%d.%d\", \"10.%d.%d.%d\"]\n",
				i, i>>16, i>>8&255, i&255, 64+i>>16, i>>8&255, i&255)
		}
		file := filepath.Join(dir, strconv.Itoa(names)+".toml")
		put(t, file, []byte(text.String()))
		cmd := exec.Command(faulty.Plain(t), "-check", file)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		took = time.Since(began)
		if err != nil || !strings.Contains(string(out), fmt.Sprintf("ok (%d names, %d candidates", names, 2*names)) {
			t.Fatalf("-check of %d names: %v: %.300s", names, err, out)
		}
		peakKiB = maxRSS(cmd)
		t.Logf("-check of %d names, %d kB: %v, %d MiB at most", names, text.Len()/1000, took.Round(time.Millisecond), peakKiB>>10)
		return took, peakKiB
	}
	_, few := check(10000)
	_, many := check(100000)
	if many > 15*few {
		t.Errorf("ten times the names take %d times the memory", many/few)
	}
	h := faulty.New(t, nil, "")
	h.Program, h.MayStopLate = faulty.Plain(t), true
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	b, err := os.ReadFile(filepath.Join(dir, "100000.toml"))
	if err != nil {
		t.Fatal(err)
	}
	h.Config(faulty.Head(up.Addr) + string(b))
	began := time.Now()
	h.Run()
	t.Logf("100,000 names: answers %v after the start", time.Since(began).Round(time.Millisecond))
	last := faulty.Ours("n99999.of.a.large.configuration.example", "10.1.134.159", "10.65.134.159")
	h.Wants("the last name", last)
	a := h.Ask(last, faulty.Forwarded())
	h.There(h.Socket) // answers come before it
	if out, code := h.Verb("reload"); code != 0 {
		t.Errorf("reload: %s", out)
	}
	a.Clean()
	t.Log(h.Usage())
}
