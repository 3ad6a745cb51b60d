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

// Fault 20: a panic, once in each part of the program, of a build that has places for it. The one
// event is lost, each panic is counted and logged with its stack, a query's with a hash of its packet,
// and everything goes on: queries, probes, the ranking, the history, hooks, reloads, the control socket.
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

	for place, q := range map[string]faulty.Question{
		"udp": ours(), "tcp": ours().TCP(), "forward": faulty.Forwarded(), "store-write": ours(), "probe": ours(),
	} {
		says := map[string]string{"udp": "packet=", "tcp": "size=32 stack=", "forward": "forwarder", "store-write": "the history", "probe": "a probe"}[place]
		arm(place)
		switch place {
		case "udp", "tcp", "forward":
			ask(s.Hard, q) // this one gets no reply
		}
		came(place, says)
		s.Wants(place+": the next query is answered", q)
		a := s.Ask(s.all()...)
		for i := range s.all() {
			a.More(i, 20)
		}
		a.Clean()
	}

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

// ask sends one query and does not care for a reply.
func ask(h *faulty.Hard, q faulty.Question) {
	name := q.Name
	if q.Each != nil {
		name = q.Each(0)
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), q.Type)
	network := q.Network
	if network == "" {
		network = "udp"
	}
	c, err := dns.Dial(network, h.DNS.String())
	if err != nil {
		h.T.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMsg(m); err != nil {
		h.T.Fatal(err)
	}
	if network == "tcp" {
		_, _ = c.ReadMsg() // until it is closed: an end at once would take the query back
	}
}
