package rank

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// site is a simulated configuration with its network: an engine and a prober in one loop, in
// virtual time, used as Guard's comment says.
type site struct {
	t     *testing.T
	g     Guard
	pace  *Pace
	ctx   PaceContext
	eps   []*simulated
	now   time.Time
	reply time.Time // last reply from an upstream

	cut  func(time.Time) bool                      // our own network is out
	fate func(i int, at time.Time) (Outcome, bool) // what is wrong with candidate i itself, if anything
	fast bool                                      // a cut network says unreachable at once
	ups  time.Duration                             // an upstream replies so often while it can; 0 = never

	changes            []string
	downAt             map[int]time.Time
	declared, cleared  int
	held, sought       int
	declaredAt, endsAt time.Time
}

type simulated struct {
	key    Key
	health Health
	start  time.Time // next probe
	end    time.Time // of the running probe; zero: none runs
	out    Outcome
	from   time.Time // start of the running probe
}

const rtt = 5 * msec

func newSite(t *testing.T, seed uint64, addrs int) *site {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &site{
		t: t, pace: defaultPace(), ctx: PaceContext{NameHasEligible: true}, now: epoch, downAt: map[int]time.Time{},
		cut:  func(time.Time) bool { return false },
		fate: func(int, time.Time) (Outcome, bool) { return OK, false },
	}
	var keys []Key
	for i := range addrs {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		e := &simulated{key: Key{Name: "test.example", Candidate: fmt.Sprint(i), Addr: a}}
		e.start = epoch.Add(time.Duration(r.Float64() * float64(s.pace.Interval)))
		s.eps = append(s.eps, e)
		keys = append(keys, e.key)
	}
	s.g.Configure(keys, s.pace.Timeout)
	return s
}

// begin starts a probe.
func (s *site) begin(i int) {
	e := s.eps[i]
	e.from, e.start = s.now, time.Time{}
	o, bad := s.fate(i, s.now)
	switch {
	case s.cut(s.now) && s.fast:
		e.out, e.end = Unreachable, s.now
	case s.cut(s.now) || s.cut(s.now.Add(rtt)):
		e.out, e.end = Timeout, s.now.Add(s.pace.Timeout)
	case bad && o == Timeout:
		e.out, e.end = o, s.now.Add(s.pace.Timeout)
	default:
		e.out, e.end = o, s.now.Add(rtt)
	}
}

// finish hands a result to the policy and sets the next probe.
func (s *site) finish(i int) {
	e := s.eps[i]
	sample := probe(e.key, e.end, e.out, e.end.Sub(e.from))
	e.end = time.Time{}
	s.poll()
	c := Step(&e.health, s.pace, sample, &s.g)
	s.note(i, c)
	if c.Held {
		s.held++
	}
	s.act()
	if e.start.IsZero() {
		e.start = s.now.Add(Interval(s.pace, &e.health, s.ctx))
	}
}

func (s *site) note(i int, c Change) {
	if !c.Changed() {
		return
	}
	s.changes = append(s.changes, fmt.Sprintf("%v %d %v->%v (%s)", s.now.Sub(epoch), i, c.Old, c.New, c.Reason))
	if c.New == Unhealthy {
		s.downAt[i] = s.now
	}
}

// poll tells the guard of the last upstream reply.
func (s *site) poll() {
	if s.ups > 0 {
		for last := s.now.Truncate(s.ups); ; last = last.Add(-s.ups) {
			if !s.cut(last) {
				s.reply = last
				break
			}
		}
		s.g.Reply(s.reply)
	}
}

// act does what the guard asks for.
func (s *site) act() {
	a := s.g.Tick(s.now)
	for _, k := range a.Execute {
		for i, e := range s.eps {
			if e.key == k {
				s.note(i, e.health.Execute(s.now))
			}
		}
	}
	if a.Declared {
		s.declared++
		s.declaredAt = s.now
	}
	if a.Cleared {
		s.cleared++
		s.endsAt = s.now
	}
	if a.Forget {
		for _, e := range s.eps {
			e.health.Forget()
			s.probeNow(e)
		}
	}
	if a.Seek {
		s.sought++
		for n, e := range s.eps {
			if !e.health.Held && n < SeekProbes {
				s.probeNow(e)
			}
		}
	}
}

// probeNow starts a probe where none runs.
func (s *site) probeNow(e *simulated) {
	if e.end.IsZero() {
		e.start = s.now
	}
}

// until runs the simulation.
func (s *site) until(end time.Time) {
	for {
		next, which, starts := s.g.Next(), -1, false
		for i, e := range s.eps {
			for _, t := range []time.Time{e.end, e.start} {
				if t.IsZero() || (t.Equal(e.start) && !e.end.IsZero() && t != e.end) {
					continue
				}
				if next.IsZero() || t.Before(next) || (which < 0 && !t.After(next)) {
					next, which, starts = t, i, t == e.start && e.end.IsZero()
				}
			}
		}
		if next.IsZero() || next.After(end) {
			s.now = end
			return
		}
		if next.After(s.now) {
			s.now = next
		}
		switch {
		case which < 0:
			s.poll()
			s.act()
		case starts:
			s.begin(which)
		default:
			s.finish(which)
		}
	}
}

func (s *site) states() string {
	b := make([]byte, len(s.eps))
	for i, e := range s.eps {
		b[i] = "uhd"[e.health.State]
	}
	return string(b)
}

func during(from, to float64) func(time.Time) bool {
	return func(t time.Time) bool { return !t.Before(at(from)) && t.Before(at(to)) }
}

const seeds = 200

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
			if took := down.Sub(at(20)); took > 4600*msec {
				t.Errorf("seed %d: endpoint %d: down after %v", seed, i, took)
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
// pulled prove nothing.
func TestGuardProofMustBeginAfterTheMiss(t *testing.T) {
	other := Key{Candidate: "x", Addr: netip.MustParseAddr("198.51.100.1")}
	for _, tt := range []struct {
		began float64
		held  bool
	}{{1.99, true}, {2.5, false}} {
		g, p := guardOf(3), defaultPace()
		var h, o Health
		Step(&h, p, probe(testKey, at(0), OK, msec), g)
		Step(&h, p, probe(testKey, at(2), Timeout, time.Second), g)
		Step(&o, p, probe(other, at(tt.began+0.1), OK, 100*msec), g)
		if c := Step(&h, p, probe(testKey, at(3.25), Timeout, time.Second), g); c.Held != tt.held || c.Changed() == tt.held {
			t.Errorf("proof began at %v s: %+v", tt.began, c)
		}
	}
}

func TestGuardReconfigured(t *testing.T) {
	hold := func() (*Guard, *Health) {
		g, h := guardOf(3), new(Health)
		Step(h, defaultPace(), probe(testKey, at(0), Timeout, time.Second), g)
		if a := g.Tick(at(0)); !a.Seek || g.Holding() != 1 {
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
	if !h.Held || Interval(p, &h, PaceContext{}) != p.Interval {
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
