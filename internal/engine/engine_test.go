package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/rank"
)

const twoNames = `
[defaults]
check = "tcp://:80"
[name."a.example"]
candidates = ["192.0.2.1", "192.0.2.2"]
[name."b.example"]
candidates = ["192.0.2.3"]
`

func TestFirstVerdictsThenFailover(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		if _, wait := s.ask(t, "a.example"); !wait {
			t.Fatal("a query before the first verdict doesn't wait")
		}
		s.probe("a.example", "192.0.2.1", rank.OK, 5*time.Millisecond)
		s.wants("a.example", "192.0.2.1")
		s.probe("a.example", "192.0.2.2", rank.OK, 20*time.Millisecond)
		s.wants("a.example", "192.0.2.1")
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		s.wants("a.example", "192.0.2.1") // fall is 2
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		s.wants("a.example", "192.0.2.2") // at once, no time has passed
		if !slices.ContainsFunc(seen(s, &s.events), func(e Event) bool {
			return e.Kind == "state" && e.Key.Addr == netip.MustParseAddr("192.0.2.1") && e.New == "unhealthy"
		}) {
			t.Errorf("no event of it: %v", seen(s, &s.events))
		}
		if list := seen(s, &s.answers); len(list) == 0 || list[len(list)-1].Reason == "" {
			t.Errorf("no answer change, or one without a reason: %v", list)
		}
	})
}

func TestPublishCoalesces(t *testing.T) {
	var text strings.Builder
	text.WriteString("[defaults]\ncheck = \"tcp://:80\"\n")
	for i := range 200 {
		fmt.Fprintf(&text, "[name.\"n%d.example\"]\ncandidates = [\"192.0.2.%d\", \"198.51.100.%d\"]\nselect = \"group\"\ngroup_within = \"1s\"\n", i, i, i)
	}
	play(t, text.String(), nil, func(s *stage) {
		for i := range 200 { // first verdicts: somebody may wait for them
			s.probe(fmt.Sprintf("n%d.example", i), fmt.Sprintf("192.0.2.%d", i), rank.OK, time.Millisecond)
		}
		s.pass(time.Second)
		before := s.far.published
		for i := range 200 { // second endpoints join their groups: nobody waits
			s.probe(fmt.Sprintf("n%d.example", i), fmt.Sprintf("198.51.100.%d", i), rank.OK, time.Millisecond)
		}
		s.pass(coalesce)
		if n := s.far.published - before; n == 0 || n > 3 {
			t.Errorf("%d tables for one burst", n)
		}
		if got, _ := s.ask(t, "n7.example"); len(got) != 1 {
			t.Errorf("answer %v", got)
		}
	})
}

func TestHoldEndsByItself(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		s.probe("a.example", "192.0.2.1", rank.OK, 50*time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, 60*time.Millisecond)
		for range 30 { // the second becomes truly faster
			s.pass(2 * time.Second)
			s.probe("a.example", "192.0.2.1", rank.OK, 50*time.Millisecond)
			s.probe("a.example", "192.0.2.2", rank.OK, 5*time.Millisecond)
		}
		s.wants("a.example", "192.0.2.2")
	})
}

func TestIntervals(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		a1 := rank.Key{Name: "a.example", Candidate: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1")}
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, time.Millisecond)
		if d := s.interval(a1); d != 2*time.Second {
			t.Errorf("steady: %v", d)
		}
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		if d := s.interval(a1); d != 250*time.Millisecond {
			t.Errorf("verdict pending: %v", d)
		}
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		for range 100 {
			s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		}
		if d := s.interval(a1); d != 30*time.Second {
			t.Errorf("backed off: %v", d)
		}
		s.probe("a.example", "192.0.2.2", rank.Refused, 0)
		s.probe("a.example", "192.0.2.2", rank.Refused, 0)
		if d := s.interval(a1); d != 2*time.Second {
			t.Errorf("back-off while the name has nothing eligible: %v", d)
		}
	})
}

func TestIdle(t *testing.T) {
	play(t, `
[name."idle.example"]
candidates = ["192.0.2.1", "192.0.2.2"]
check = "tcp://:80"
idle_after = "80s"
idle_interval = "30s"
`, nil, func(s *stage) {
		k := rank.Key{Name: "idle.example", Candidate: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1")}
		s.probe("idle.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.pass(79 * time.Second)
		if d := s.interval(k); d != 2*time.Second {
			t.Errorf("before idle_after: %v", d)
		}
		s.pass(12 * time.Second)
		if d := s.interval(k); d != 30*time.Second {
			t.Errorf("after idle_after: %v", d)
		}
		s.far.with(func() { s.probed = nil })
		s.Asked(0)
		synctest.Wait()
		if d := s.interval(k); d != 2*time.Second || !slices.Contains(seen(s, &s.probed), k) {
			t.Errorf("woken: %v, probed %v", d, seen(s, &s.probed))
		}
		s.pass(85 * time.Second) // asked again while watched: not idle
		s.Asked(0)
		s.pass(70 * time.Second)
		if d := s.interval(k); d != 2*time.Second {
			t.Errorf("asked in time, and yet idle: %v", d)
		}
	})
}

func TestOverrides(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		ctx := context.Background()
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, 9*time.Millisecond)
		first := HostKey{"a.example", "192.0.2.1"}
		drain := Override{Host: first, State: rank.Drain, Until: time.Now().Add(time.Minute), Who: "uid 7", Why: "upgrade"}
		out, err := s.Force(ctx, drain, false)
		if err != nil || len(out) != 1 || out[0].Since.IsZero() {
			t.Fatalf("%v %v", out, err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.2")
		last := Override{Host: HostKey{"a.example", "192.0.2.2"}, State: rank.Down}
		if _, err := s.Force(ctx, last, false); err == nil || !strings.Contains(err.Error(), "healthy") {
			t.Errorf("the last healthy endpoint could be taken away: %v", err)
		}
		if _, err := s.Force(ctx, Override{Host: HostKey{"nobody.example", ""}, State: rank.Down}, true); err == nil {
			t.Error("an unknown name")
		}
		s.pass(61 * time.Second) // it expires, and is truly faster for hold
		s.wants("a.example", "192.0.2.2")
		s.pass(10 * time.Second)
		s.wants("a.example", "192.0.2.1")
		snap, err := s.Snapshot(ctx, "a.example")
		if err != nil || len(snap.Overrides) != 0 || len(snap.Names) != 1 || len(snap.Names[0].Endpoints) != 2 {
			t.Errorf("%+v %v", snap, err)
		}
		if _, err := s.Force(ctx, Override{Host: HostKey{"a.example", "192.0.2.1"}, What: ForceWeight, Weight: 0}, false); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.2")
	})
}

func TestAddresses(t *testing.T) {
	const text = `
[name."h.example"]
candidates = ["backend.example.net"]
check = "tcp://:80"
on_all_down = "nodata"
`
	play(t, text, nil, func(s *stage) {
		if len(s.far.hosts) != 1 || s.far.hosts[0].Hosts[0] != "backend.example.net" {
			t.Fatalf("looked up: %+v", s.far.hosts)
		}
		if _, wait := s.ask(t, "h.example"); !wait {
			t.Error("a query doesn't wait for the first look-up")
		}
		host := HostKey{"h.example", "backend.example.net"}
		one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		s.Engine.Addresses(host, []netip.Addr{one}, nil, true)
		synctest.Wait()
		s.Sample(rank.Sample{Key: rank.Key{Name: "h.example", Candidate: "backend.example.net", Addr: one}, At: time.Now(), Final: true})
		synctest.Wait()
		s.wants("h.example", "192.0.2.1")
		s.Engine.Addresses(host, []netip.Addr{two}, nil, true)
		s.Sample(rank.Sample{Key: rank.Key{Name: "h.example", Candidate: "backend.example.net", Addr: two}, At: time.Now(), Final: true})
		synctest.Wait()
		s.wants("h.example", "192.0.2.2")
		if list := seen(s, &s.forgotten); len(list) != 1 || list[0].Addr != one {
			t.Errorf("forgotten: %v", list)
		}
		s.Engine.Addresses(host, nil, nil, true)
		s.pass(coalesce)
		s.wants("h.example") // DNS has none: NODATA, no wait
	})
}

func TestReload(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("b.example", "192.0.2.3", rank.OK, time.Millisecond)
		next := parse(t, `
[name."a.example"]
candidates = ["192.0.2.2", "192.0.2.1"]
check = "tcp://:80"
[name."c.example"]
candidates = ["192.0.2.4"]
check = "static:"
`)
		if err := s.Apply(context.Background(), next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.1") // its health was kept
		s.wants("c.example", "192.0.2.4")
		if c, ok := s.checks["b.example"]; !ok || c != nil {
			t.Errorf("b.example is still probed: %v", c)
		}
		changed := parse(t, "[name.\"a.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\ncheck = \"tcp://:81\"\n")
		if err := s.Apply(context.Background(), changed); err != nil {
			t.Fatal(err)
		}
		snap, err := s.Snapshot(context.Background(), "a.example")
		if err != nil || snap.Names[0].Endpoints[0].Health.State != rank.Unknown {
			t.Errorf("another check, and yet the old verdict: %+v %v", snap, err)
		}
	})
}

func TestWarmStart(t *testing.T) {
	key := func(name, addr string) rank.Key {
		return rank.Key{Name: name, Candidate: addr, Addr: netip.MustParseAddr(addr)}
	}
	saved := func(age time.Duration, other uint64) func() Saved {
		return func() Saved {
			c := parse(t, twoNames)
			print := c.Names[0].Candidates[0].Check.Fingerprint + other
			at := time.Now().Add(-age)
			return Saved{Endpoints: map[rank.Key]SavedEndpoint{
				key("a.example", "192.0.2.1"):    {Health: rank.Health{State: rank.Unhealthy, Checked: at}, Fingerprint: print, At: at},
				key("a.example", "192.0.2.2"):    {Health: rank.Health{State: rank.Healthy, Checked: at}, Fingerprint: print, At: at},
				key("gone.example", "192.0.2.9"): {At: at},
			}}
		}
	}
	play(t, twoNames, saved(time.Minute, 0), func(s *stage) {
		s.wants("a.example", "192.0.2.2")
		if _, wait := s.ask(t, "b.example"); !wait {
			t.Error("a name without stored state doesn't wait")
		}
		if list := seen(s, &s.forgotten); len(list) != 1 || list[0].Name != "gone.example" {
			t.Errorf("forgotten: %v", list)
		}
	})
	for what, left := range map[string]func() Saved{
		"too old": saved(6*time.Minute, 0), "of the future": saved(-time.Hour, 0), "of another check": saved(time.Minute, 1),
	} {
		t.Run(what, func(t *testing.T) {
			play(t, twoNames, left, func(s *stage) {
				if _, wait := s.ask(t, "a.example"); !wait {
					t.Error("the stored state was used")
				}
			})
		})
	}
}

// TestGuard: with three endpoints at distinct addresses, silence of all of them changes nothing;
// one that is silent while another answers is dropped.
func TestGuard(t *testing.T) {
	text := "[name.\"g.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\"]\ncheck = \"tcp://:80\"\n"
	all := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
	play(t, text, nil, func(s *stage) {
		for i, a := range all {
			s.probe("g.example", a, rank.OK, time.Duration(i+1)*10*time.Millisecond)
		}
		s.wants("g.example", "192.0.2.1")
		for range 20 { // our own network is cut
			s.pass(time.Second)
			for _, a := range all {
				s.probe("g.example", a, rank.Timeout, time.Second)
			}
		}
		s.wants("g.example", "192.0.2.1")
		snap, err := s.Snapshot(context.Background(), "")
		if err != nil || !snap.LocalFault {
			t.Errorf("no local fault: %v", err)
		}
		s.far.with(func() { s.probed = nil })
		s.probe("g.example", "192.0.2.2", rank.OK, 20*time.Millisecond) // it is back
		if snap, _ := s.Snapshot(context.Background(), ""); snap.LocalFault {
			t.Error("still a local fault")
		}
		if list := seen(s, &s.probed); len(list) < 3 {
			t.Errorf("probed at once: %v", list)
		}
		for range 4 { // the first is truly dead
			s.pass(time.Second)
			s.probe("g.example", "192.0.2.1", rank.Timeout, time.Second)
			s.probe("g.example", "192.0.2.2", rank.OK, 20*time.Millisecond)
		}
		s.wants("g.example", "192.0.2.2")
	})
}

func TestStaticIsAtOnce(t *testing.T) {
	play(t, "[name.\"s.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\ncheck = \"static:\"\n", nil, func(s *stage) {
		s.wants("s.example", "192.0.2.1")
		if len(s.checks["s.example"]) != 0 {
			t.Errorf("a static endpoint is probed: %v", s.checks)
		}
		s.pass(5 * time.Second)
		if len(s.rows) != 2 {
			t.Errorf("rows: %v", s.rows)
		}
	})
}

// TestManyStaticNames: the history of a large static configuration's start is written bit by bit,
// but whole, and a change in between finds its first answer recorded.
func TestManyStaticNames(t *testing.T) {
	const count = currentBatch + 100
	var text strings.Builder
	text.WriteString("[defaults]\ncheck = \"static:\"\n")
	for i := range count {
		fmt.Fprintf(&text, "[name.\"n%d.example\"]\ncandidates = [\"192.0.2.%d\", \"198.51.100.%d\"]\n", i, i%250, i%250)
	}
	play(t, text.String(), nil, func(s *stage) {
		s.wants("n599.example", "192.0.2.99")
		if n := len(seen(s, &s.answers)); n > 4*backlogBatch {
			t.Errorf("%d answers recorded at once", n)
		}
		if _, err := s.Force(context.Background(), Override{Host: HostKey{"n599.example", "192.0.2.99"}, State: rank.Down}, false); err != nil {
			t.Fatal(err)
		}
		s.pass(count / backlogBatch * backlogPause * 2)
		s.wants("n599.example", "198.51.100.99")
		got := map[string][]string{}
		for _, a := range seen(s, &s.answers) {
			if a.Family == rank.V4 {
				got[a.Name] = append(got[a.Name], joinAddrs(a.Addresses))
			}
		}
		if len(got) != count || !slices.Equal(got["n599.example"], []string{"192.0.2.99", "198.51.100.99"}) {
			t.Errorf("%d names have answers; n599.example: %v", len(got), got["n599.example"])
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.rows) != 2*count {
			t.Errorf("%d rows", len(s.rows))
		}
	})
}
