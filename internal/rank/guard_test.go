package rank

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

const seeds = 60

// "Own network cut for a minute: no transition"; "at the first proof after a silence the held
// misses are forgotten and everything is probed at once".
func TestGuardNetworkCutForAMinute(t *testing.T) {
	for seed := range uint64(seeds) {
		for _, fall := range []int{1, 2, 3} {
			s := newSite(t, seed, 3+int(seed%6))
			s.pace.Fall = fall
			s.fast = seed%2 == 0
			s.cut = during(20, 80)
			if seed%3 == 0 {
				s.ups = 700 * msec
			}
			s.until(at(20))
			before := len(s.changes)
			s.until(at(79))
			if phase, _ := s.g.Phase(); phase != Fault || s.declared != 1 {
				t.Fatalf("seed %d, fall %d: in the cut: %v, declared %d times", seed, fall, phase, s.declared)
			}
			if took := s.declaredAt.Sub(at(20)); took > 8*time.Second {
				t.Errorf("seed %d, fall %d: declared only after %v", seed, fall, took)
			}
			s.until(at(120))
			if len(s.changes) > before {
				t.Fatalf("seed %d, fall %d, fast %v: %v", seed, fall, s.fast, s.changes[before:])
			}
			if phase, _ := s.g.Phase(); phase != Calm || s.cleared != 1 || s.g.Holding() != 0 {
				t.Fatalf("seed %d: after the cut: %v, cleared %d times", seed, phase, s.cleared)
			}
			if took := s.endsAt.Sub(at(80)); took > 3*time.Second {
				t.Errorf("seed %d: cleared %v after the network was back", seed, took)
			}
		}
	}
}

// "Half of the candidates truly dead: fails over as ever", within the worst case of a silent
// death without the guard: interval, two timeouts, fast_interval.
func TestGuardHalfTrulyDead(t *testing.T) {
	for seed := range uint64(seeds) {
		n := 3 + int(seed%8)
		s := newSite(t, seed, n)
		s.fate = func(i int, when time.Time) (Outcome, bool) {
			return Timeout, i < (n+1)/2 && !when.Before(at(20))
		}
		s.fate = okUnless(s.fate)
		s.until(at(60))
		for i := range n {
			down, ok := s.downAt[i]
			if ok != (i < (n+1)/2) {
				t.Fatalf("seed %d: endpoint %d of %d: down is %v: %v", seed, i, n, ok, s.changes)
			}
			if took := down.Sub(at(20)); ok && took > 4600*msec {
				t.Errorf("seed %d: endpoint %d of %d: down after %v", seed, i, n, took)
			}
		}
		if s.declared > 0 {
			t.Errorf("seed %d: a fault was declared", seed)
		}
	}
}

// okUnless makes a fate answer OK where nothing is wrong.
func okUnless(f func(int, time.Time) (Outcome, bool)) func(int, time.Time) (Outcome, bool) {
	return func(i int, when time.Time) (Outcome, bool) {
		if o, bad := f(i, when); bad {
			return o, true
		}
		return OK, false
	}
}

// "All of one name's candidates refusing": any other outcome counts at once, whatever the guard.
func TestGuardLetsHardOutcomesPass(t *testing.T) {
	s := newSite(t, 1, 3)
	s.fate = okUnless(func(_ int, when time.Time) (Outcome, bool) { return Refused, !when.Before(at(20)) })
	s.until(at(25))
	if s.states() != "ddd" || s.held > 0 {
		t.Errorf("states %s, %d held: %v", s.states(), s.held, s.changes)
	}
}

// One hard outcome in a streak of soft ones: the verdict does not rest on soft ones alone.
func TestGuardMixedStreakPasses(t *testing.T) {
	var h Health
	g := guardOf(3)
	p := defaultPace()
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(2), Timeout, time.Second), g)
	if c := Step(&h, p, probe(testKey, at(3), Timeout, time.Second), g); !c.Held || c.Reason == "" {
		t.Fatalf("%+v", c)
	}
	if c := Step(&h, p, probe(testKey, at(4), Reset, time.Second), g); c.New != Unhealthy || g.Holding() != 0 || h.Held {
		t.Errorf("%+v, holding %d", c, g.Holding())
	}
}

// The other way round, too.
func TestGuardHardThenSoftPasses(t *testing.T) {
	var h Health
	g, p := guardOf(3), defaultPace()
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(2), Reset, 0), g)
	g.proof = time.Time{} // as if that proof had been none for what follows
	if c := Step(&h, p, probe(testKey, at(3), Timeout, time.Second), g); c.New != Unhealthy {
		t.Errorf("%+v", c)
	}
}

// A proof carries out only what it follows; for the rest another one is sought, with a new doubt.
func TestGuardProofBetweenTwoMisses(t *testing.T) {
	g, p := guardOf(3), defaultPace()
	late := Key{Candidate: "late", Addr: netip.MustParseAddr("198.51.100.1")}
	other := Key{Candidate: "other", Addr: netip.MustParseAddr("198.51.100.2")}
	g.Configure([]Key{testKey, late, other}, time.Second)
	p.Fall = 1
	var h, l, o Health
	Step(&h, p, probe(testKey, at(10), Timeout, time.Second), g)
	if a := g.Tick(at(10)); a.Seek {
		t.Fatalf("no time for a proof to come by itself: %+v", a)
	}
	if !g.Next().Equal(at(10.02)) {
		t.Fatalf("next is %v", g.Next())
	}
	if a := g.Tick(at(10.02)); !a.Seek {
		t.Fatalf("%+v", a)
	}
	Step(&l, p, probe(late, at(10.9), Timeout, time.Second), g)
	g.Tick(at(10.9))
	Step(&o, p, probe(other, at(10.95), OK, 500*msec), g) // began at 10.45
	a := g.Tick(at(10.95))
	if !slices.Equal(a.Execute, []Key{testKey}) || g.Holding() != 1 {
		t.Fatalf("%+v, holding %d", a, g.Holding())
	}
	if !a.Seek {
		t.Errorf("no new search: %+v", a)
	}
	if a = g.Tick(at(11.94)); a.Declared {
		t.Errorf("declared %+v", a)
	}
	if a = g.Tick(at(11.95)); !a.Declared {
		t.Errorf("not declared: %+v", a)
	}
}

// A reply may have waited in a buffer while a miss overtook it.
func TestGuardReplySlack(t *testing.T) {
	for after, held := range map[time.Duration]bool{10 * msec: true, 30 * msec: false} {
		g := guardOf(3)
		g.Reply(at(1).Add(after))
		var h Health
		if c := Step(&h, defaultPace(), probe(testKey, at(1), Unreachable, 0), g); c.Held != held {
			t.Errorf("reply %v after the miss: %+v", after, c)
		}
	}
}

// A held verdict is probed once more at the fast pace, for the miss that may confirm it.
func TestGuardHeldIsProbedAtInterval(t *testing.T) {
	for start, misses := range map[Outcome]int{OK: 2, Unreachable: 1} {
		var h Health
		g, p := guardOf(3), defaultPace()
		if start == OK {
			Step(&h, p, probe(testKey, at(0), OK, msec), g)
		}
		for i := range misses {
			Step(&h, p, probe(testKey, at(float64(i+1)), Unreachable, 0), g)
		}
		if got := Interval(p, &h, PaceContext{}); !h.Held || got != p.FastInterval {
			t.Errorf("%v: held %v, %v", start, h.Held, got)
		}
		Step(&h, p, probe(testKey, at(9), Unreachable, 0), g)
		if got := Interval(p, &h, PaceContext{}); !h.Held || got != p.Interval {
			t.Errorf("%v: held %v, %v", start, h.Held, got)
		}
	}
}

// guardOf is a guard of so many addresses, testKey's the first.
func guardOf(n int) *Guard {
	g := new(Guard)
	keys := []Key{testKey, testKey} // an address twice is one address
	for i := 1; i < n; i++ {
		keys = append(keys, Key{Candidate: "x", Addr: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})})
	}
	g.Configure(keys, time.Second)
	return g
}

// "Where a configuration has at least 3 endpoints at distinct addresses."
func TestGuardNeedsThreeAddresses(t *testing.T) {
	for n, want := range map[int]bool{1: false, 2: false, 3: true, 9: true} {
		g := guardOf(n)
		if g.Enabled() != want {
			t.Errorf("%d addresses: enabled %v", n, !want)
		}
		var h Health
		if c := Step(&h, defaultPace(), probe(testKey, at(0), Timeout, time.Second), g); c.Held != want || c.Changed() == want {
			t.Errorf("%d addresses: %+v", n, c)
		}
	}
	var nobody *Guard
	if nobody.Enabled() {
		t.Error("a nil guard is on")
	}
}

// "A reply from a non-loopback upstream" is a proof: everything silent at once, but the network
// works.
func TestGuardUpstreamReplyIsProof(t *testing.T) {
	for seed := range uint64(seeds) {
		s := newSite(t, seed, 4)
		s.ups = 300 * msec
		s.fate = okUnless(func(_ int, when time.Time) (Outcome, bool) { return Timeout, !when.Before(at(20)) })
		s.until(at(26))
		if s.states() != "dddd" || s.declared > 0 {
			t.Fatalf("seed %d: states %s: %v", seed, s.states(), s.changes)
		}
		for i, down := range s.downAt {
			// Nobody answers the probes that seek a proof, so it may take one more miss.
			if took := down.Sub(at(20)); took > 4600*msec+s.pace.FastInterval+s.pace.Timeout {
				t.Errorf("seed %d: endpoint %d: down after %v", seed, i, took)
			}
		}
	}
}

// A cut too short to be declared a fault: what two misses of one cut say is not believed.
func TestGuardShortCut(t *testing.T) {
	for seed := range uint64(seeds) {
		for _, length := range []float64{0.3, 0.6, 1, 1.5, 2, 2.5, 3, 4, 6} {
			s := newSite(t, seed, 3+int(seed%9))
			s.fast = seed%2 == 0
			s.cut = during(20.1, 20.1+length)
			s.until(at(40))
			if len(s.downAt) > 0 {
				t.Errorf("seed %d, cut for %v s, unreachable %v: %v", seed, length, s.fast, s.changes[len(s.eps):])
			}
		}
	}
}

// The first verdicts are held too: a host whose network comes up late must not call all dead.
func TestGuardAtTheStart(t *testing.T) {
	for seed := range uint64(seeds) {
		s := newSite(t, seed, 5)
		s.fast = seed%2 == 0
		s.cut = during(-1, 30)
		s.until(at(29.9))
		if s.states() != "uuuuu" {
			t.Fatalf("states %s: %v", s.states(), s.changes)
		}
		s.until(at(34))
		if s.states() != "hhhhh" || len(s.changes) != 5 {
			t.Fatalf("seed %d: states %s: %v", seed, s.states(), s.changes)
		}
	}
}

// What dies while the network is out is found afterwards, by misses of that time.
func TestGuardDeathDuringTheCut(t *testing.T) {
	for seed := range uint64(seeds) {
		s := newSite(t, seed, 4)
		s.cut = during(20, 80)
		s.fate = okUnless(func(i int, when time.Time) (Outcome, bool) { return Timeout, i == 0 && !when.Before(at(50)) })
		s.until(at(90))
		if s.states() != "dhhh" {
			t.Fatalf("seed %d: states %s: %v", seed, s.states(), s.changes)
		}
		if s.downAt[0].Before(s.endsAt.Add(time.Second)) {
			t.Errorf("seed %d: down %v after the end of the fault, by a miss of the cut", seed, s.downAt[0].Sub(s.endsAt))
		}
	}
}

// A proof counts only if its probe began after the miss: replies on their way when the cable is
// pulled prove nothing. And the miss it confirms must have begun after the proof.
func TestGuardProofLiesBetweenTheMisses(t *testing.T) {
	other := Key{Candidate: "x", Addr: netip.MustParseAddr("198.51.100.1")}
	for _, tt := range []struct {
		began float64
		held  bool
	}{{1.99, true}, {2, false}, {2.25, false}, {2.26, true}} {
		g, p := guardOf(3), defaultPace()
		var h, o Health
		Step(&h, p, probe(testKey, at(0), OK, msec), g)
		Step(&h, p, probe(testKey, at(2), Timeout, time.Second), g)
		Step(&o, p, probe(other, at(tt.began+0.1), OK, 100*msec), g)
		c := Step(&h, p, probe(testKey, at(3.25), Timeout, time.Second), g) // began at 2.25
		if c.Held != tt.held || c.Changed() == tt.held {
			t.Errorf("proof began at %v s: %+v", tt.began, c)
		}
		if tt.began < 2 || !tt.held {
			continue
		}
		if a := g.Tick(at(3.25)); a.Execute != nil {
			t.Errorf("carried out without another miss: %+v", a)
		}
		if c = Step(&h, p, probe(testKey, at(4.5), Timeout, time.Second), g); c.New != Unhealthy || g.Holding() != 0 {
			t.Errorf("the next miss: %+v", c)
		}
	}
}

func TestGuardReconfigured(t *testing.T) {
	hold := func() (*Guard, *Health) {
		g, h := guardOf(3), new(Health)
		Step(h, defaultPace(), probe(testKey, at(0), Timeout, time.Second), g)
		if a := g.Tick(at(0.02)); !a.Seek || g.Holding() != 1 {
			t.Fatalf("%+v", a)
		}
		return g, h
	}
	// The endpoint is gone: nothing is held any more.
	g, _ := hold()
	g.Configure([]Key{{Addr: netip.MustParseAddr("192.0.2.7")}, {Addr: netip.MustParseAddr("192.0.2.8")}, {Addr: netip.MustParseAddr("192.0.2.9")}}, 0)
	if g.Tick(at(0.1)); g.Holding() != 0 {
		t.Error("still holds a verdict of an endpoint that is gone")
	}
	if phase, _ := g.Phase(); phase != Calm || !g.Next().IsZero() {
		t.Errorf("phase %v, next %v", phase, g.Next())
	}
	// Too few are left: the guard is off, and what it held is carried out.
	g, h := hold()
	g.Configure([]Key{testKey}, 0)
	a := g.Tick(at(0.1))
	if !slices.Equal(a.Execute, []Key{testKey}) {
		t.Fatalf("%+v", a)
	}
	if c := h.Execute(at(0.1)); c.New != Unhealthy {
		t.Errorf("%+v", c)
	}
	if c := h.Execute(at(0.2)); c.Changed() {
		t.Errorf("carried out twice: %+v", c)
	}
	// ... in a fault, too.
	g, _ = hold()
	if a := g.Tick(at(5)); !a.Declared {
		t.Fatalf("%+v", a)
	}
	g.Configure([]Key{testKey}, 0)
	if a := g.Tick(at(6)); !a.Cleared || len(a.Execute) != 1 {
		t.Errorf("%+v", a)
	}
}

func TestGuardRecoveryReleases(t *testing.T) {
	g, p := guardOf(3), defaultPace()
	var h Health
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(2), Timeout, time.Second), g)
	Step(&h, p, probe(testKey, at(3), Timeout, time.Second), g)
	g.Tick(at(3))
	if !h.Held {
		t.Fatalf("%+v", h)
	}
	c := Step(&h, p, probe(testKey, at(3.5), OK, msec), g)
	if c.Changed() || h.Held || g.Holding() != 0 {
		t.Errorf("%+v, %+v", c, h)
	}
	if a := g.Tick(at(3.5)); a.Execute != nil || a.Forget {
		t.Errorf("%+v", a)
	}
	if phase, _ := g.Phase(); phase != Calm {
		t.Errorf("%v", phase)
	}
}

func TestForgetKeepsWhatIsTrue(t *testing.T) {
	p := defaultPace()
	var h Health
	run(&h, p, "ok reset")
	if h.Forget(); h.Misses != 1 {
		t.Error("forgot a miss that is no network's fault")
	}
	run(&h, p, "ok timeout")
	if h.Forget(); h.Misses != 0 || h.State != Healthy {
		t.Errorf("%+v", h)
	}
	run(&h, p, "timeout timeout timeout timeout")
	if h.Forget(); h.State != Unhealthy || h.Backoff != 0 {
		t.Errorf("%+v", h)
	}
}
