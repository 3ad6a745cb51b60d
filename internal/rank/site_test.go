package rank

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
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
