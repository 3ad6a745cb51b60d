package rank

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a random name whose endpoints change at random.
type world struct {
	p   *Policy
	eps []Endpoint
}

func drawWorld(t *rapid.T) *world {
	p := &Policy{
		Select:      SelectMode(rapid.IntRange(0, 1).Draw(t, "select")),
		GroupWithin: drawMS(t, "group_within", 0, 10, 50),
		MaxLatency:  drawMS(t, "max_latency", 0, 0, 40),
		SwitchRatio: rapid.SampledFrom([]float64{0, 0.2, 0.5}).Draw(t, "switch_ratio"),
		SwitchMin:   drawMS(t, "switch_min", 0, 2, 10),
		Hold:        drawMS(t, "hold", 0, 1000, 10000),
		Apart:       rapid.Bool().Draw(t, "apart"),
		MaxAnswers:  rapid.IntRange(1, 3).Draw(t, "max_answers"),
		OnAllDown:   AllDown(rapid.IntRange(0, 4).Draw(t, "on_all_down")),
		MinHealthy:  rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4}).Draw(t, "min_healthy"),
	}
	w := &world{p: p}
	for i := range rapid.IntRange(0, 6).Draw(t, "endpoints") {
		a := fmt.Sprintf("10.0.0.%d", i+1)
		if rapid.Bool().Draw(t, "v6") {
			a = fmt.Sprintf("fd00::%d", i+1)
		}
		w.eps = append(w.eps, Endpoint{
			Key:    Key{Name: "test.example", Candidate: a, Addr: netip.MustParseAddr(a)},
			Tier:   rapid.IntRange(0, 2).Draw(t, "tier"),
			Weight: rapid.SampledFrom([]int{0, 1, 100, 100}).Draw(t, "weight"),
			Health: new(Health),
		})
		w.change(t, i)
	}
	return w
}

func drawMS(t *rapid.T, what string, values ...int) time.Duration {
	return time.Duration(rapid.SampledFrom(values).Draw(t, what)) * msec
}

// change gives one endpoint a new health.
func (w *world) change(t *rapid.T, i int) {
	e := &w.eps[i]
	e.Override = rapid.SampledFrom([]Override{Auto, Auto, Auto, Auto, Up, Down, Drain}).Draw(t, "override")
	e.Gone = rapid.IntRange(0, 9).Draw(t, "gone") == 0
	e.Health.State = rapid.SampledFrom([]State{Healthy, Healthy, Healthy, Unhealthy, Unknown}).Draw(t, "state")
	e.Health.Misses = rapid.SampledFrom([]uint16{0, 0, 0, 1}).Draw(t, "misses")
	lat := drawMS(t, "latency", 0, 1, 5, 9, 10, 12, 20, 45, 60)
	for m := range e.Health.Latencies.Modes {
		e.Health.Latencies.Modes[m].Value = lat
	}
}

// selection is what a client sees of a decision.
func selection(d *Decision) string {
	s := ""
	for f := range d.Answers {
		s += fmt.Sprintf("%v %v %v; ", d.Answers[f].Kind, d.Answers[f].Selected, d.Answers[f].Rotate)
	}
	return s
}

// story runs random changes at random times and calls check on every decision.
func (w *world) story(t *rapid.T, check func(prev *Memory, d *Decision, now time.Time)) {
	now, prev := epoch, Memory{}
	for range rapid.IntRange(1, 12).Draw(t, "steps") {
		if len(w.eps) > 0 {
			w.change(t, rapid.IntRange(0, len(w.eps)-1).Draw(t, "which"))
		}
		d := Decide(w.p, w.eps, &prev, now)
		check(&prev, &d, now)
		prev = d.Memory
		now = now.Add(drawMS(t, "passed", 0, 1, 500, 1000, 5000, 10000))
	}
}

func TestPropertySelectedIsRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.story(t, func(_ *Memory, d *Decision, _ time.Time) {
			eligible := 0
			for i := range w.eps {
				if d.Endpoints[i].Eligible {
					eligible++
					w.mustBeHealthy(t, i)
				}
			}
			for f := range d.Answers {
				w.checkAnswer(t, d, Family(f))
			}
			normal := d.Answers[V4].Kind == Normal || d.Answers[V6].Kind == Normal
			if eligible > 0 && !d.AllDown && !normal {
				t.Fatalf("something is eligible, nothing selected: %s", selection(d))
			}
			if normal && eligible == 0 {
				t.Fatalf("nothing is eligible, yet: %s", selection(d))
			}
		})
	})
}

func (w *world) mustBeHealthy(t *rapid.T, i int) {
	e := &w.eps[i]
	if e.Override == Down || e.Override == Drain || e.Weight == 0 || (e.Override != Up && e.Health.State != Healthy) {
		t.Fatalf("endpoint %d is eligible: %+v, %v", i, e, e.Health.State)
	}
}

// checkAnswer checks what must hold for the answer of a family, whatever happened before.
func (w *world) checkAnswer(t *rapid.T, d *Decision, f Family) {
	a := &d.Answers[f]
	for k, i := range a.Selected {
		e := &w.eps[i]
		if familyOf(e.Key.Addr) != f || slices.Contains(a.Selected[:k], i) {
			t.Fatalf("%v: endpoint %d of another family, or twice: %v", f, i, a.Selected)
		}
		if e.Override == Down || e.Override == Drain || e.Weight == 0 {
			t.Fatalf("%v: selected %d: %+v", f, i, e)
		}
		if a.Kind == Normal && (!d.Endpoints[i].Eligible || e.Tier != a.Tier || !d.Endpoints[i].Selected) {
			t.Fatalf("%v: endpoint %d is not of the winning tier or not eligible", f, i)
		}
		if a.Kind != Normal && e.Gone {
			t.Fatalf("%v: %v selects %d, which left DNS", f, a.Kind, i)
		}
	}
	switch a.Kind {
	case Normal, Wait, Stale, StaleAll:
		if len(a.Selected) == 0 {
			t.Fatalf("%v: %v of nothing", f, a.Kind)
		}
	default:
		if len(a.Selected) > 0 {
			t.Fatalf("%v: %v of %v", f, a.Kind, a.Selected)
		}
	}
	if a.Kind == Normal && w.p.Select == Best && len(a.Selected) > w.p.MaxAnswers {
		t.Fatalf("%v: %d answers", f, len(a.Selected))
	}
	if a.Kind != Empty && d.AllDown == (a.Kind == Normal || a.Kind == Wait || a.Kind == NotReady) {
		t.Fatalf("%v: all down is %v, kind %v", f, d.AllDown, a.Kind)
	}
	if a.Kind == Stale {
		w.noDeadBesideHealthy(t, a)
	}
	if w.p.Apart || a.Kind != Normal || d.Answers[1-f].Kind != Normal {
		return
	}
	if d.Answers[1-f].Tier != a.Tier {
		t.Fatalf("together, but tiers %d and %d", a.Tier, d.Answers[1-f].Tier)
	}
}

func (w *world) noDeadBesideHealthy(t *rapid.T, a *Answer) {
	healthy := func(e *Endpoint) bool {
		return e.Weight > 0 && !e.Gone && (e.Override == Up || (e.Override == Auto && e.Health.State == Healthy))
	}
	for _, i := range a.Selected {
		if healthy(&w.eps[i]) {
			continue
		}
		for j := range w.eps {
			if healthy(&w.eps[j]) {
				t.Fatalf("last_good selects dead %d though %d is healthy", i, j)
			}
		}
	}
}

func TestPropertyDeterminedAndFixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.story(t, func(prev *Memory, d *Decision, now time.Time) {
			before := fmt.Sprintf("%+v", *prev)
			if again := Decide(w.p, w.eps, prev, now); !reflect.DeepEqual(again, *d) {
				t.Fatalf("the same input gave\n%+v\nand\n%+v", *d, again)
			}
			next := Decide(w.p, w.eps, &d.Memory, now)
			if selection(&next) != selection(d) || !next.Memory.Equal(&d.Memory) || !next.Next.Equal(d.Next) {
				t.Fatalf("not a fixed point:\n%s %v %+v\n%s %v %+v", selection(d), d.Next, d.Memory,
					selection(&next), next.Next, next.Memory)
			}
			if after := fmt.Sprintf("%+v", *prev); after != before {
				t.Fatalf("prev was changed from %s to %s", before, after)
			}
		})
	})
}

func TestPropertyNextIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		w.story(t, func(_ *Memory, d *Decision, now time.Time) {
			if !d.Next.IsZero() && !d.Next.After(now) {
				t.Fatalf("next %v is not after now %v", d.Next, now)
			}
			end := now.Add(30 * time.Second)
			if !d.Next.IsZero() {
				end = d.Next.Add(-1)
			}
			// Time alone changes nothing before Next, looked at from both memories on the way.
			m := d.Memory
			for _, part := range []int64{4, 2, 1} {
				then := now.Add(time.Duration(int64(end.Sub(now)) / part))
				later := Decide(w.p, w.eps, &m, then)
				if selection(&later) != selection(d) {
					t.Fatalf("at %v, before next %v: %s became %s", then, d.Next, selection(d), selection(&later))
				}
				if !later.Next.Equal(d.Next) {
					t.Fatalf("next moved from %v to %v", d.Next, later.Next)
				}
				m = later.Memory
			}
			// With nothing but these decisions, Next does change something: a hold is over.
			if !d.Next.IsZero() {
				if at := Decide(w.p, w.eps, &m, d.Next); selection(&at) == selection(d) {
					t.Fatalf("at next %v nothing changed: %s", d.Next, selection(d))
				}
			}
		})
	})
}

// R81: two endpoints whose latencies cross and recross within the margin never swap.
func TestPropertyNoFlappingInsideTheMargin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := defaults()
		base := float64(rapid.IntRange(1, 200).Draw(t, "base ms"))
		n := newName(t, p, "10.0.0.1 healthy 1ms", "10.0.0.2 healthy 1ms")
		now := 0.0
		var first string
		for range 40 {
			for i := range n.eps {
				// Within 20 % of each other: the slower is at most 1/(1-0.2) of the faster.
				x := base * rapid.Float64Range(1, 1.2499).Draw(t, "factor")
				n.eps[i].Health.Latencies.Modes[LatencyTotal].Value = time.Duration(x * float64(msec))
			}
			n.decide(now)
			if first == "" {
				first = n.show(V4)
			}
			if got := n.show(V4); got != first {
				t.Fatalf("swapped from %s to %s\n%s", first, got, n.explain())
			}
			now += rapid.Float64Range(0, 20).Draw(t, "passed")
		}
	})
}

// One that is truly faster takes over after hold, and not before, whenever decisions are made.
func TestPropertyTakeOverAfterHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := defaults()
		p.Hold = drawMS(t, "hold", 100, 1000, 10000)
		n := newName(t, p, "10.0.0.1 healthy 50ms", "10.0.0.2 healthy 50ms")
		n.decide(0)
		n.set("10.0.0.2 20ms")
		hold := p.Hold.Seconds()
		for now := 1.0; now < 1+hold; now += hold * rapid.Float64Range(0.01, 0.5).Draw(t, "passed") {
			n.decide(now)
			if n.show(V4) != "normal 10.0.0.1" {
				t.Fatalf("took over %v s after it became faster, hold is %v", now-1, p.Hold)
			}
			if !n.last.Next.Equal(at(1 + hold)) {
				t.Fatalf("next is %v, want %v", n.last.Next, at(1+hold))
			}
		}
		n.decide(1 + hold)
		if n.show(V4) != "normal 10.0.0.2" {
			t.Fatalf("did not take over after hold\n%s", n.explain())
		}
	})
}

// The estimate lies between the smallest and the largest probe, and no single probe moves it
// beyond what two others say.
func TestPropertyEstimateIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0.01, 1000), 1, 40).Draw(t, "ms")
		every := drawMS(t, "interval", 10, 250, 2000, 60000)
		for i, e := range estimate(every, values...) {
			lo, hi := slices.Min(values[:i+1]), slices.Max(values[:i+1])
			if e < lo-1e-5 || e > hi+1e-5 {
				t.Fatalf("after %v the estimate is %v", values[:i+1], e)
			}
		}
	})
}

func TestPropertyBackoffIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := defaultPace()
		h := Health{
			State:   State(rapid.IntRange(0, 2).Draw(t, "state")),
			Misses:  uint16(rapid.IntRange(0, 3).Draw(t, "misses")),
			Oks:     uint16(rapid.IntRange(0, 3).Draw(t, "oks")),
			Backoff: rapid.Uint16().Draw(t, "backoff"),
		}
		ctx := PaceContext{rapid.Bool().Draw(t, "eligible"), rapid.Bool().Draw(t, "idle")}
		if d := Interval(p, &h, ctx); d < p.FastInterval || d > max(p.BackoffMax, p.IdleInterval) {
			t.Fatalf("%+v, %+v: %v", h, ctx, d)
		}
	})
}
