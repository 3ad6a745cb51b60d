package rank

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

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
	if a = g.Tick(at(11.1)); !a.Seek { // the last search was at 10.9
		t.Errorf("no new search: %+v", a)
	}
	if a = g.Tick(at(11.94)); a.Declared {
		t.Errorf("declared %+v", a)
	}
	if a = g.Tick(at(11.95)); !a.Declared {
		t.Errorf("not declared: %+v", a)
	}
}

// What was asked for a proof may have been probed already: it is asked again, in the first second after a miss and in a doubt.
func TestGuardSeeksAgain(t *testing.T) {
	g, p := guardOf(3), defaultPace()
	var h Health
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(10), Timeout, time.Second), g)
	count := func(from, to float64) (n int) {
		for s := from; s < to; s += 0.02 {
			if g.Tick(at(s)).Seek {
				n++
			}
		}
		return n
	}
	if n := count(10, 11); n < 4 || n > 5 {
		t.Errorf("sought %d times in the first second", n)
	}
	if n := count(11, 11.98); n > 1 {
		t.Errorf("sought %d times in the second one", n)
	}
	if c := Step(&h, p, probe(testKey, at(12), Timeout, time.Second), g); !c.Held {
		t.Fatalf("%+v", c)
	}
	if n := count(12, 12.98); n < 4 || n > 5 {
		t.Errorf("sought %d times in the doubt after the second miss", n)
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

// In a declared fault every verdict is held, even where a proof from before it would do.
func TestGuardFaultHoldsAll(t *testing.T) {
	g, p := guardOf(3), defaultPace()
	other := Key{Candidate: "x", Addr: netip.MustParseAddr("198.51.100.1")}
	third := Key{Candidate: "x", Addr: netip.MustParseAddr("198.51.100.2")}
	var h, o, third3 Health
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(1), Unreachable, 0), g)
	Step(&third3, p, probe(third, at(1.1), OK, 10*msec), g)
	Step(&o, p, probe(other, at(1.2), Unreachable, 0), g) // a first verdict: held
	g.Tick(at(1.2))
	if a := g.Tick(at(2.3)); !a.Declared {
		t.Fatalf("%+v", a)
	}
	if c := Step(&h, p, probe(testKey, at(2.4), Unreachable, 0), g); !c.Held {
		t.Errorf("%+v", c)
	}
}

// No search where a proof came by itself, and none for endpoints that are down already.
func TestGuardSeeksOnlyWhatItNeeds(t *testing.T) {
	g, p := guardOf(3), defaultPace()
	var h, o Health
	Step(&h, p, probe(testKey, at(0), OK, msec), g)
	Step(&h, p, probe(testKey, at(1), Timeout, time.Second), g)
	Step(&o, p, probe(Key{Candidate: "x", Addr: netip.MustParseAddr("198.51.100.1")}, at(1.015), OK, 10*msec), g)
	if a := g.Tick(at(1.02)); a.Seek || !g.Next().IsZero() {
		t.Errorf("%+v, next %v", a, g.Next())
	}
	Step(&h, p, probe(testKey, at(3), Timeout, time.Second), g)
	Step(&h, p, probe(testKey, at(4), OK, msec), g)
	Step(&h, p, probe(testKey, at(6), Timeout, time.Second), g)
	if a := g.Tick(at(6.1)); h.State != Unhealthy || a.Seek || !g.Next().IsZero() {
		t.Errorf("%v: %+v, next %v", h.State, a, g.Next())
	}
}

// Whatever ends a streak, the guard keeps nothing of it.
func TestGuardKeepsNothing(t *testing.T) {
	for _, story := range [][]Outcome{
		{OK, Timeout, OK}, {OK, Timeout, Reset, OK}, {OK, Timeout, Timeout, Reset}, {OK, Timeout, Reset, Timeout},
	} {
		g, p := guardOf(3), defaultPace()
		p.Fall = 3
		var h Health
		for i, o := range story {
			Step(&h, p, probe(testKey, at(float64(i)), o, 0), g)
		}
		if len(g.missing) > 0 || len(g.unproven) > 0 || g.holding > 0 || g.waiting > 0 {
			t.Errorf("%v: %d missing, %d unproven, %d held, %d waiting", story, len(g.missing), len(g.unproven), g.holding, g.waiting)
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
