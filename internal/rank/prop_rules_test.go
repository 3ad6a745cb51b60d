package rank

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// healthyOnes are the endpoints that count as healthy by the contract's points 1 and 2, before
// max_latency.
func (w *world) healthyOnes() (list []int) {
	for i := range w.eps {
		e := &w.eps[i]
		if e.Weight > 0 && (e.Override == Up || e.Override == Auto && e.Health.State == Healthy) {
			list = append(list, i)
		}
	}
	return list
}

// Point 2: max_latency never empties a name, takes out whoever is beyond its margin, and never
// whoever is within it; between the two stays who was in.
func TestPropertyMaxLatency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		was := map[netip.Addr]bool{} // inside the limit, as of the last decision
		w.story(t, func(_ *Memory, d *Decision, _ time.Time) {
			limit := w.p.MaxLatency
			in := map[netip.Addr]bool{}
			healthy := w.healthyOnes()
			for _, i := range healthy {
				a, lat := w.eps[i].Key.Addr, w.eps[i].Health.Latency(w.p.Latency)
				wide := time.Duration(float64(limit) * (1 + w.p.SwitchRatio))
				in[a] = limit == 0 || lat <= limit || lat <= wide && was[a]
			}
			some := slices.ContainsFunc(healthy, func(i int) bool { return in[w.eps[i].Key.Addr] })
			for _, i := range healthy {
				if want := !some || in[w.eps[i].Key.Addr]; d.Endpoints[i].Eligible != want {
					t.Fatalf("endpoint %d, %v of max_latency %v: eligible is %v", i, w.eps[i].Health.Latency(w.p.Latency), limit, !want)
				}
			}
			was = in
		})
	})
}

// Point 3: the answer is of the lowest tier that is eligible, or of the one that answered before
// while a lower one waits out hold; and that one is then named as waiting, with a time.
func TestPropertyTier(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.story(t, func(prev *Memory, d *Decision, now time.Time) {
			if d.AllDown {
				return
			}
			for f := range d.Answers {
				a, m := &d.Answers[f], &d.Memory.Families[f]
				if a.Kind != Normal {
					continue
				}
				for i := range w.eps {
					e := &w.eps[i]
					if !d.Endpoints[i].Eligible || e.Tier >= a.Tier || w.p.Apart && familyOf(e.Key.Addr) != Family(f) {
						continue
					}
					at := slices.IndexFunc(m.Tiers, func(x TierWait) bool { return x.Tier == e.Tier })
					if at < 0 || now.Sub(m.Tiers[at].Since) >= w.p.Hold || d.Next.IsZero() {
						t.Fatalf("%v: tier %d answers although endpoint %d of tier %d is eligible: %+v", Family(f), a.Tier, i, e.Tier, *m)
					}
					if !prev.Families[f].Placed && !prev.Families[1-f].Placed {
						t.Fatalf("%v: the first decision keeps tier %d waiting", Family(f), e.Tier)
					}
				}
			}
		})
	})
}

// Point 5: on_all_down applies exactly when nothing is eligible and nothing unknown, or fewer are
// healthy than min_healthy; last_good answers somebody healthy whenever there is somebody.
func TestPropertyAllDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.story(t, func(_ *Memory, d *Decision, _ time.Time) {
			healthy, unknown, good := len(w.healthyOnes()), 0, false
			for i := range w.eps {
				e := &w.eps[i]
				if e.Weight > 0 && e.Override == Auto && !e.Gone && e.Health.State == Unknown {
					unknown++
				}
				good = good || slices.Contains(w.healthyOnes(), i) && !e.Gone
			}
			want := len(w.eps) > 0 && (healthy+unknown == 0 || healthy+unknown < w.p.MinHealthy)
			if d.AllDown != want {
				t.Fatalf("%d healthy, %d unknown, min_healthy %d: all down is %v", healthy, unknown, w.p.MinHealthy, d.AllDown)
			}
			stale := slices.ContainsFunc(d.Answers[:], func(a Answer) bool { return a.Kind == Stale })
			if want && good && w.p.OnAllDown == LastGood && !stale {
				t.Fatalf("somebody healthy is left, last_good answers %s", selection(d))
			}
		})
	})
}

// guarded is a configuration under the guard whose probes end as rapid draws it.
type guarded struct {
	g    Guard
	keys []Key
	h    []Health
	now  time.Time
}

func newGuarded(n int) *guarded {
	x := &guarded{now: epoch, h: make([]Health, n)}
	for i := range n {
		x.keys = append(x.keys, Key{Name: "n", Candidate: fmt.Sprint(i), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	x.g.Configure(x.keys, time.Second)
	for i := range x.h {
		x.probe(i, OK, 5*msec)
	}
	return x
}

// probe lets one probe begin now and end, and does what the guard asks for; it returns who went
// down.
func (x *guarded) probe(i int, o Outcome, took time.Duration) (down []int) {
	began := x.now
	x.pass(took, &down)
	s := &Sample{Key: x.keys[i], At: began, Outcome: o, Phases: Phases{Total: took}, Final: true}
	if c := Step(&x.h[i], defaultPace(), s, &x.g); c.Changed() && c.New == Unhealthy {
		down = append(down, i)
	}
	x.tick(&down)
	return down
}

// pass lets time pass with all the ticks that the guard wants meanwhile.
func (x *guarded) pass(d time.Duration, down *[]int) {
	for end := x.now.Add(d); ; {
		next := x.g.Next()
		if next.IsZero() || next.After(end) {
			x.now = end
			return
		}
		x.now = later(x.now, next)
		x.tick(down)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (x *guarded) tick(down *[]int) {
	a := x.g.Tick(x.now)
	for _, k := range a.Execute {
		i := slices.Index(x.keys, k)
		if x.h[i].Execute(x.now).Changed() {
			*down = append(*down, i)
		}
	}
	if a.Forget {
		for i := range x.h {
			x.h[i].Forget()
		}
	}
}

// Point 7: while nothing shows that our own network works, no verdict rests on misses that it may
// have caused; whatever else an endpoint did counts at once; and what was silent is forgotten.
func TestPropertyGuard(t *testing.T) {
	soft := []Outcome{Timeout, Unreachable, DNS}
	rapid.Check(t, func(t *rapid.T) {
		x := newGuarded(rapid.IntRange(3, 6).Draw(t, "endpoints"))
		which := rapid.IntRange(0, len(x.h)-1)
		var down []int
		x.pass(time.Second, &down)
		for range rapid.IntRange(1, 40).Draw(t, "misses") { // the cut
			o := rapid.SampledFrom(soft).Draw(t, "outcome")
			down = append(down, x.probe(which.Draw(t, "which"), o, drawMS(t, "took", 0, 5, 1000))...)
			x.pass(drawMS(t, "pause", 1, 250, 2000), &down)
		}
		if len(down) > 0 {
			t.Fatalf("%v went down in silence", down)
		}
		phase, _ := x.g.Phase()
		i := which.Draw(t, "who refuses")
		before := x.h[i].Misses
		down = x.probe(i, Refused, 5*msec)
		if before == 0 && phase != Fault {
			x.pass(time.Millisecond, &down)
			down = append(down, x.probe(i, Refused, 5*msec)...)
		}
		if phase != Fault && !slices.Contains(down, i) {
			t.Fatalf("%d refused, after %d misses in %v: %+v", i, before, phase, x.h[i])
		}
		if phase == Fault { // what it showed is that our network works: all others are as if nothing had been
			for k := range x.h {
				if k != i && (x.h[k].State != Healthy || x.h[k].Misses > 0 || x.h[k].Held) {
					t.Fatalf("%d is not forgotten: %+v", k, x.h[k])
				}
			}
			if now, _ := x.g.Phase(); now != Calm {
				t.Fatalf("still %v after a proof", now)
			}
		}
	})
}

// Point 7: a real death among others that live takes fall misses, not more: each miss is followed
// by a proof, or one is sought, before the next begins.
func TestPropertyGuardLetsDeathsPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newGuarded(rapid.IntRange(3, 6).Draw(t, "endpoints"))
		var down []int
		x.pass(time.Second, &down)
		dead := rapid.IntRange(1, len(x.h)-1).Draw(t, "dead")
		for range 2 {
			for i := range dead {
				down = append(down, x.probe(i, Timeout, time.Second)...)
			}
			alive := rapid.IntRange(dead, len(x.h)-1).Draw(t, "alive")
			down = append(down, x.probe(alive, rapid.SampledFrom([]Outcome{OK, Refused, Status}).Draw(t, "proof"), 5*msec)...)
			x.pass(250*msec, &down)
		}
		for i := range dead {
			if !slices.Contains(down, i) {
				t.Fatalf("%d of %d dead is not down: %+v", i, dead, x.h[i])
			}
		}
	})
}
