package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// Fault 20: a panic, once in each part of the program, of a build that has places for it. A query gets
// SERVFAIL, another event is lost, each panic is counted and logged with its stack, a query's with a hash of
// its packet, and everything goes on: queries, probes, the ranking, the history, hooks, reloads, the control socket.
func TestFault20Panic(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.Program = faulty.WithFaults(t)
	dir := filepath.Join(s.Dir, "faults")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Env = []string{"HARD_FAULTS=" + dir}
	s.MayPanic = true
	text := faulty.Head(s.up.Addr) + static + probed("api.example", s.near, s.far) +
		fmt.Sprintf("[hooks]\non_change = [\"/bin/sh\", \"-c\", \"cat >>%s/hooked\"]\n", s.Dir)
	s.Config(text)
	s.ready()
	faulty.LeakCheck(t, s.Hard)
	panics := 0
	arm := func(place string) {
		t.Helper()
		put(t, filepath.Join(dir, place), nil)
	}
	came := func(place, says string) {
		t.Helper()
		panics++
		faulty.Eventually(t, place+" has panicked", func() bool {
			_, err := os.Stat(filepath.Join(dir, place))
			return os.IsNotExist(err)
		})
		s.Says("fault of a test: "+place, 0)
		s.Says(says, 0)
		if n := s.Metric("hard_panics_total"); int(n) != panics {
			t.Errorf("%s: %v panics are counted, want %d", place, n, panics)
		}
	}

	for _, c := range []struct {
		place, says string
		q           faulty.Question // whose handling panics, and which is answered before and after
		rcode       int             // of its reply; -1: it has none
	}{
		{"udp", "a query's handling", ours(), dns.RcodeServerFailure},
		{"udp-answered", "a query's handling", ours(), dns.RcodeSuccess}, // its reply was made already
		{"tcp", "a query's handling", ours().TCP(), dns.RcodeServerFailure},
		{"forward", "the forwarder", faulty.Forwarded(), dns.RcodeServerFailure},
		{"forward", "the forwarder", faulty.Forwarded().TCP(), dns.RcodeServerFailure},
		{"forward-reply", "the forwarder", faulty.Forwarded(), dns.RcodeServerFailure},
		{"forward-reply", "the forwarder", faulty.Forwarded().TCP(), dns.RcodeServerFailure},
		{"accept", "a new connection", ours().TCP(), -1},
		{"store-write", "the history", ours(), dns.RcodeSuccess},
		{"probe", "a probe", ours(), dns.RcodeSuccess},
		{"reactor", "an event of a probe's socket", ours(), dns.RcodeSuccess},
	} {
		said := len(s.Log())
		arm(c.place)
		r, _, err := c.q.Exchange(nil, s.DNS, 0)
		switch {
		case c.rcode < 0 && err == nil:
			t.Errorf("%s: %v, want no reply", c.place, r)
		case c.rcode >= 0 && (err != nil || r.Rcode != c.rcode):
			t.Errorf("%s: %v %v, want %s", c.place, r, err, dns.RcodeToString[c.rcode])
		}
		came(c.place, c.says)
		if packet := c.rcode == dns.RcodeServerFailure || c.place == "udp-answered"; packet != strings.Contains(s.Log()[said:], "packet=") {
			t.Errorf("%s: the packet's hash is in the log: %t, want %t", c.place, !packet, packet)
		}
		s.Wants(c.place+": the next query is answered", c.q)
		a := s.Ask(s.all()...)
		for i := range s.all() {
			a.More(i, 20)
		}
		a.Clean()
	}

	// The look at connections panics while there is one; it is looked at again.
	idle, err := dns.Dial("tcp", s.DNS.String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for range 2 {
		arm("sweep")
		came("sweep", "the look at TCP connections")
	}

	// The end of a query's time panics: of the one that waits, which is told at once.
	s.up.Mute.Store(true)
	arm("forward-due")
	if r, _, err := faulty.Forwarded().Exchange(nil, s.DNS, 1); err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Errorf("forward-due: %v %v, want SERVFAIL", r, err)
	}
	came("forward-due", "the forwarder")
	s.Wants("the times of others go on", failing(dns.ExtendedErrorCodeNoReachableAuthority, dns.ExtendedErrorCodeNetworkError))
	s.up.Mute.Store(false)
	s.Wants("forwarding goes on", faulty.Forwarded())

	// A candidate dies while the ranking panics at one of its samples.
	arm("engine-sample")
	s.near.Kill()
	came("engine-sample", "the ranking")
	s.Wants("a failover comes all the same", s.api(s.far))
	s.near.Start()
	s.Wants("and its return", s.api(s.near))

	arm("reload")
	if out, code := s.Verb("reload"); code == 0 || !strings.Contains(out, "bug") {
		t.Errorf("a reload that panics: %d %s", code, out)
	}
	came("reload", "a reload")
	s.Config(text + "[name.\"new.example\"]\ncandidates = [\"192.0.2.8\"]\ncheck = \"static:\"\n")
	if out, code := s.Verb("reload"); code != 0 {
		t.Errorf("the next reload: %s", out)
	}
	s.Wants("the next reload is taken", faulty.Ours("new.example", "192.0.2.8"))

	arm("hook")
	s.near.Kill()
	came("hook", "a hook")
	s.near.Start()
	faulty.Eventually(t, "the next hook runs", func() bool {
		b, _ := os.ReadFile(s.Dir + "/hooked")
		return strings.Contains(string(b), "api.example")
	})

	arm("http")
	if out, code := s.Verb("status"); code == 0 || !strings.Contains(out, "500") {
		t.Errorf("status while it panics: %d %s", code, out)
	}
	came("http", "an answer over HTTP")
	s.Store("ok")
	s.Writes()
	faulty.Intact(t, s.DB)
	s.Wants("all is as before", s.api(s.near))
	a := s.Ask(s.all()...)
	a.More(0, 50)
	a.Clean()
}
