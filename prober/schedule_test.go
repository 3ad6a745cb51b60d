package prober

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// fakeRun stands for the checks: it remembers starts and finds overlaps.
type fakeRun struct {
	mu      sync.Mutex
	starts  map[netip.Addr][]time.Time
	running map[netip.Addr]int
	most    int // probes at one time
	now     int
	overlap bool
	lasts   time.Duration
	verdict func(*probe)
}

func newFakeRun() *fakeRun {
	return &fakeRun{starts: make(map[netip.Addr][]time.Time), running: make(map[netip.Addr]int), lasts: time.Millisecond}
}

func (f *fakeRun) run(pr *probe) {
	f.mu.Lock()
	f.starts[pr.addr] = append(f.starts[pr.addr], pr.start)
	f.running[pr.addr]++
	f.overlap = f.overlap || f.running[pr.addr] > 1
	f.now++
	f.most = max(f.most, f.now)
	f.mu.Unlock()
	timer := time.NewTimer(f.lasts)
	defer timer.Stop()
	select {
	case <-timer.C:
		if f.verdict != nil {
			f.verdict(pr)
		} else {
			pr.end(rank.OK, 200, "")
		}
	case <-pr.done:
		pr.fail(context.Canceled)
	}
	f.mu.Lock()
	f.running[pr.addr]--
	f.now--
	f.mu.Unlock()
}

func (f *fakeRun) of(a netip.Addr) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.starts[a]...)
}

func (f *fakeRun) count() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.starts {
		n += len(s)
	}
	return n
}

// inBubble runs a test of the schedule in fake time.
func inBubble(t *testing.T, o Options, f func(t *testing.T, p *Prober, runs *fakeRun, sink *collector)) {
	synctest.Test(t, func(t *testing.T) {
		runs, sink := newFakeRun(), newCollector()
		o.Sink, o.run = sink, runs.run
		p := New(o)
		p.Start()
		defer func() {
			if err := p.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if runs.overlap {
				t.Error("two probes of one endpoint at once")
			}
		}()
		f(t, p, runs, sink)
	})
}

func addrN(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)})
}

func fakeTargets(name string, n int, pace *rank.Pace) []Target {
	check := &config.Check{Host: "www.example.com", Fingerprint: 1}
	ts := make([]Target, n)
	for i := range ts {
		ts[i] = Target{Key: rank.Key{Name: name, Candidate: fmt.Sprint("c", i), Addr: addrN(i)}, Check: check, Pace: pace}
	}
	return ts
}

// sleep lets time pass until everything that was to happen has.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// atRest lets time pass until no probe runs: what is asked for while one does is another case.
func atRest(p *Prober) {
	for p.Stats().Running > 0 {
		sleep(time.Millisecond)
	}
}

func TestFirstProbesComeQuickly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		slow := pace(time.Second)
		slow.Interval, slow.FastInterval = time.Hour, time.Hour
		for i, tg := range fakeTargets("x", 5000, slow) {
			tg.Key.Name = fmt.Sprint("n", i)
			p.SetName(tg.Key.Name, []Target{tg})
		}
		sleep(100 * time.Millisecond)
		if n := runs.count(); n < 900 || n > 1100 {
			t.Errorf("%d probes in the first 100 ms; they should be paced", n)
		}
		// The rest takes half of the processors.
		half := 4000 * max(firstGap, 2*firstCost/processors())
		sleep(half / 2)
		if n := runs.count(); n < 2900 || n > 3100 {
			t.Errorf("%d probes in the time for 3000", n)
		}
		sleep(half/2 + 10*time.Millisecond)
		if n := runs.count(); n != 5000 {
			t.Errorf("%d of 5000 first probes", n)
		}
	})
}

func TestIntervalAndJitter(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		ts := fakeTargets("x", 50, pace(time.Second))
		p.SetName("x", ts)
		sleep(100500 * time.Millisecond)
		early, late := 0, 0
		for _, tg := range ts {
			starts := runs.of(tg.Key.Addr)
			for i := range starts[2:] {
				gap := starts[i+2].Sub(starts[i+1])
				if gap < 900*time.Millisecond-2*slack || gap > 1100*time.Millisecond+2*slack {
					t.Fatalf("gap of %v with an interval of 1 s", gap)
				}
				early, late = early+b2i(gap < 980*time.Millisecond), late+b2i(gap > 1020*time.Millisecond)
			}
			if first := starts[1].Sub(starts[0]); first > 1100*time.Millisecond {
				t.Errorf("second probe only after %v", first)
			}
			if n := len(starts); n < 95 || n > 107 {
				t.Errorf("%d probes in 100 s", n)
			}
		}
		if early < 500 || late < 500 {
			t.Errorf("no jitter: %d early, %d late", early, late)
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// From the second probe on the endpoints are spread over their interval: not evenly, as groups of up to
// company wander together by their jitter (in 500 runs the fullest of ten seconds had 194 probes of 1,000, the emptiest
// 16), but they are no herd.
func TestSpread(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		tenSeconds := pace(time.Second)
		tenSeconds.Interval = 10 * time.Second
		p.SetName("x", fakeTargets("x", 1000, tenSeconds))
		begin := time.Now()
		sleep(40 * time.Second)
		var slots [10]int
		for i := range 1000 {
			for _, s := range runs.of(addrN(i)) {
				if d := s.Sub(begin) - 20*time.Second; d >= 0 && d < 10*time.Second {
					slots[d/time.Second]++
				}
			}
		}
		used := 0
		for i, n := range slots {
			used += b2i(n > 0)
			if n > 400 {
				t.Errorf("%d probes in second %d, want about 100: %v", n, i, slots)
			}
		}
		if used < 7 {
			t.Errorf("probes in %d of 10 seconds only: %v", used, slots)
		}
	})
}

// What is to be probed at once is not put off by a new pace that comes before it has started: the
// engine sets one for the very sample after which a broken connection wants the next probe.
func TestSetIntervalLeavesWhatIsDue(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		ts := fakeTargets("x", 1, pace(time.Second))
		key := ts[0].Key
		p.SetName("x", ts)
		sleep(5 * time.Second)
		atRest(p)
		asked := time.Now()
		p.ProbeNow(key)
		p.SetInterval(key, 20*time.Second)
		sleep(10 * time.Millisecond)
		if starts := runs.of(key.Addr); starts[len(starts)-1].Before(asked) {
			t.Errorf("the last probe began %v before it was asked for", asked.Sub(starts[len(starts)-1]))
		}
	})
}

// A failure that our own lateness may have caused isn't counted, and the probe is repeated soon.
func TestWastedProbeIsRepeated(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		ts := fakeTargets("x", 1, pace(time.Second))
		p.SetName("x", ts)
		sleep(5 * time.Second)
		atRest(p)
		p.SetInterval(ts[0].Key, 20*time.Second)
		runs.mu.Lock()
		runs.lasts, runs.verdict = 1500*time.Millisecond, func(pr *probe) { pr.end(rank.Timeout, 0, "half a second late") }
		runs.mu.Unlock()
		before := len(runs.of(ts[0].Key.Addr))
		p.ProbeNow(ts[0].Key)
		sleep(2 * time.Second) // 1.5 s and fast_interval
		if n := len(runs.of(ts[0].Key.Addr)) - before; n != 2 {
			t.Errorf("%d probes, want the one that says nothing and another", n)
		}
	})
}

func TestSetInterval(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		ts := fakeTargets("x", 1, pace(time.Second))
		key := ts[0].Key
		p.SetName("x", ts)
		sleep(5 * time.Second)
		// Slower, as when a down endpoint backs off ...
		p.SetInterval(key, 20*time.Second)
		before := len(runs.of(key.Addr))
		sleep(17 * time.Second)
		if n := len(runs.of(key.Addr)) - before; n != 0 {
			t.Errorf("%d probes in 17 s of a back-off of 20 s", n)
		}
		// ... and faster: the next start counts from the last one, which is long past.
		p.SetInterval(key, 250*time.Millisecond)
		sleep(time.Millisecond)
		if n := len(runs.of(key.Addr)) - before; n != 1 {
			t.Errorf("%d probes at once when the pace got faster", n)
		}
		sleep(10 * time.Second)
		if n := len(runs.of(key.Addr)) - before; n < 35 || n > 46 {
			t.Errorf("%d probes in 10 s at 250 ms", n)
		}
	})
}

func TestFastUntilFirstVerdictOnly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		slow := pace(time.Second)
		slow.Interval = time.Minute
		p.SetName("x", fakeTargets("x", 1, slow))
		sleep(10 * time.Second)
		if n := len(runs.of(addrN(0))); n < 1 || n > 2 {
			t.Errorf("%d probes", n)
		}
	})
}

// A probe that lasts longer than the interval is followed at its end, not overlapped.
func TestNeverTwoAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		runs.lasts = 3 * time.Second
		ts := fakeTargets("x", 1, pace(5*time.Second))
		p.SetName("x", ts)
		for range 20 {
			sleep(time.Second)
			p.ProbeNow(ts[0].Key)
			p.ProbeNow(ts[0].Key)
		}
		sleep(10 * time.Second)
		if n := len(runs.of(addrN(0))); n < 9 || n > 11 {
			t.Errorf("%d probes of 3 s in 30 s", n)
		}
	})
}

func TestProbeNow(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		slow := pace(time.Second)
		slow.Interval, slow.FastInterval = time.Hour, time.Hour
		ts := fakeTargets("x", 3, slow)
		p.SetName("x", ts)
		sleep(time.Minute)
		before := runs.count()
		p.ProbeNow(ts[1].Key, rank.Key{Name: "unknown"})
		sleep(2 * time.Millisecond)
		if n := runs.count() - before; n != 1 {
			t.Errorf("%d probes at once", n)
		}
		p.ProbeNow(ts[0].Key, ts[1].Key, ts[2].Key)
		sleep(2 * time.Millisecond)
		if n := runs.count() - before; n != 4 {
			t.Errorf("%d probes at once", n)
		}
	})
}

func TestLimitIsFair(t *testing.T) {
	inBubble(t, Options{MaxInflight: 10}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		runs.lasts = 100 * time.Millisecond // 100 probes a second pass; 200 are wanted
		p.SetName("x", fakeTargets("x", 200, pace(time.Second)))
		sleep(20 * time.Second)
		if runs.most != 10 {
			t.Errorf("%d probes at one time", runs.most)
		}
		for i := range 200 {
			if n := len(runs.of(addrN(i))); n < 8 || n > 12 {
				t.Errorf("endpoint %d had %d turns, want about 10", i, n)
			}
		}
		if s := p.Stats(); s.Lag.Max < 500*time.Millisecond || s.Waiting < 50 || s.Running != 10 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// Names that have the same check of the same address share one probe, at the pace of the fastest.
func TestSharedProbe(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		a := fakeTargets("a", 1, pace(time.Second))
		slow := *a[0].Pace
		slow.Interval = time.Minute
		b := fakeTargets("b", 1, &slow)
		p.SetName("a", a)
		sleep(time.Minute)
		atRest(p)
		p.SetName("b", b)
		for len(sink.samples) > 0 {
			<-sink.samples
		}
		before := runs.count()
		sleep(100 * time.Millisecond)
		if len(sink.samples) != 2 {
			t.Fatalf("%d samples for two names", len(sink.samples))
		}
		if x, y := (<-sink.samples).Key, (<-sink.samples).Key; x != a[0].Key || y != b[0].Key {
			t.Error("samples of", x, y)
		}
		sleep(30 * time.Second)
		if n := runs.count() - before; n < 28 || n > 34 {
			t.Errorf("%d probes in 30 s, want one a second for both", n)
		}
		p.SetName("a", nil)
		before = runs.count()
		sleep(10 * time.Minute)
		if n := runs.count() - before; n < 9 || n > 12 {
			t.Errorf("%d probes in 10 min when only the slow one is left", n)
		}
		p.SetName("b", nil)
		before = runs.count()
		sleep(10 * time.Minute)
		if n := runs.count() - before; n != 0 || p.Stats().Scheduled != 0 {
			t.Errorf("%d probes when nobody is left", n)
		}
	})
}

// dues are the times at which the next probes are due.
func dues(p *Prober) map[jobID]moment {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[jobID]moment)
	for id, j := range p.jobs {
		out[id] = j.due
	}
	return out
}

func TestUnchangedTargetsKeepTheirSchedule(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		slow := pace(time.Second)
		slow.Interval = time.Minute
		p.SetName("x", fakeTargets("x", 2, slow))
		sleep(2 * time.Minute)
		atRest(p)
		before := dues(p)
		ts := fakeTargets("x", 2, slow)
		p.SetName("x", ts)
		if after := dues(p); !maps.Equal(before, after) {
			t.Errorf("due at %v, although nothing has changed: %v before", after, before)
		}
		changed := *ts[1].Check
		changed.Fingerprint++
		ts[1].Check = &changed
		starts := len(runs.of(addrN(1)))
		p.SetName("x", ts)
		sleep(10 * time.Millisecond)
		if n := len(runs.of(addrN(1))) - starts; n != 1 {
			t.Errorf("%d probes at once after a change of the check", n)
		}
	})
}

func TestRemovedWhileRunning(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		runs.lasts = time.Second
		ts := fakeTargets("x", 1, pace(5*time.Second))
		p.SetName("x", ts)
		sleep(500 * time.Millisecond)
		p.SetName("x", nil)
		p.SetName("x", ts) // again, before the first one has noticed
		sleep(2 * time.Second)
		s := <-sink.samples
		if s.Outcome != rank.Aborted || (<-sink.samples).Outcome != rank.OK {
			t.Errorf("%v first", s.Outcome)
		}
		p.SetName("x", nil)
		sleep(time.Minute)
		if st := p.Stats(); st.Scheduled != 0 || st.Running != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestSlowDown(t *testing.T) {
	for _, tt := range []struct {
		retryAfter time.Duration
		low, high  int // probes in a minute
	}{{0, 29, 32}, {10 * time.Second, 6, 8}, {time.Hour, 2, 4}} {
		inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
			runs.verdict = func(pr *probe) {
				pr.slow, pr.retryAfter = true, tt.retryAfter
				pr.end(rank.OK, 429, "")
			}
			ts := fakeTargets("x", 1, pace(time.Second))
			p.SetName("x", ts)
			sleep(30 * time.Second)
			p.SetInterval(ts[0].Key, 900*time.Millisecond) // does not override the server's wish
			sleep(30 * time.Second)
			if n := runs.count(); n < tt.low-2 || n > tt.high+2 {
				t.Errorf("Retry-After %v: %d probes in a minute", tt.retryAfter, n)
			}
		})
	}
}

func TestPanicEndsOneProbeOnly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
		runs.verdict = func(pr *probe) {
			if pr.addr == addrN(0) && len(runs.of(pr.addr)) == 1 {
				runs.mu.Lock()
				runs.running[pr.addr]--
				runs.mu.Unlock()
				panic("bug")
			}
			pr.end(rank.OK, 200, "")
		}
		p.SetName("x", fakeTargets("x", 2, pace(time.Second)))
		sleep(3500 * time.Millisecond)
		s := <-sink.samples
		for s.Key.Addr != addrN(0) {
			s = <-sink.samples
		}
		if s.Outcome != rank.Aborted || s.Detail != "bug in the probe: bug" {
			t.Errorf("%+v", s)
		}
		if n := len(runs.of(addrN(0))); n < 3 {
			t.Errorf("probed %d times only", n)
		}
	})
}

func TestStaticIsProbedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newCollector()
		p := New(Options{Sink: sink, virtual: true})
		p.Start()
		tg := target(&config.Check{Kind: config.CheckStatic, Host: "x"}, time.Second)
		p.SetName("x", []Target{tg})
		sleep(time.Hour)
		if len(sink.samples) != 1 {
			t.Errorf("%d samples", len(sink.samples))
		}
		if s := <-sink.samples; s.Outcome != rank.OK || !s.Final || s.Key != tg.Key || s.Phases != (rank.Phases{}) {
			t.Errorf("%+v", s)
		}
		p.Stop(context.Background())
	})
}

func TestStopJoinsRunningProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, sink := newFakeRun(), newCollector()
		runs.lasts = time.Hour
		p := New(Options{Sink: sink, run: runs.run})
		p.Start()
		p.SetName("x", fakeTargets("x", 100, pace(2*time.Hour)))
		sleep(time.Second)
		begin := time.Now()
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != 0 || len(sink.samples) != 100 {
			t.Errorf("%v, %d samples", d, len(sink.samples))
		}
		if s := <-sink.samples; s.Outcome != rank.Aborted {
			t.Error(s.Outcome)
		}
		p.SetName("x", fakeTargets("x", 1, pace(time.Second))) // too late, and harmless
	})
}
