package rank

import (
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
