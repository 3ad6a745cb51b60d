package prober

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/rank"
)

// asking is a sink that wants one more probe as soon as it sees the first result.
type asking struct {
	p   *Prober
	got int
}

func (a *asking) Sample(s rank.Sample) {
	if a.got++; a.got == 1 {
		a.p.ProbeNow(s.Key)
	}
}
func (a *asking) Addresses(Found) {}

// A probe whose result is out doesn't swallow the wish for another one.
func TestProbeNowFromTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs, sink := newFakeRun(), &asking{}
		sink.p = New(Options{Sink: sink, run: runs.run})
		sink.p.Start()
		slow := pace(time.Second)
		slow.Interval, slow.FastInterval = time.Hour, time.Hour
		sink.p.SetName("x", fakeTargets("x", 1, slow))
		sleep(time.Minute)
		if err := sink.p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if sink.got != 2 {
			t.Errorf("%d results in a minute, want the first and the one asked for", sink.got)
		}
	})
}

// wakes counts the moments at which probes started, and the most that did at one.
func wakes(runs *fakeRun, addrs []netip.Addr, from time.Time) (moments, probes, most int) {
	var all []time.Time
	for _, a := range addrs {
		for _, s := range runs.of(a) {
			if s.After(from) {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	n := 0
	for i, s := range all {
		if i == 0 || s.Sub(all[i-1]) > 0 {
			moments, n = moments+1, 0
		}
		n++
		most = max(most, n)
	}
	return moments, len(all), most
}

// Few endpoints are probed together, so that an idle process wakes up seldom; with many, no more
// go together than are due anyway.
func TestCompany(t *testing.T) {
	for _, n := range []int{1, 10, 400} {
		inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, sink *collector) {
			twoSeconds := pace(time.Second)
			twoSeconds.Interval = 2 * time.Second
			ts := fakeTargets("x", n, twoSeconds)
			p.SetName("x", ts)
			addrs := make([]netip.Addr, n)
			for i := range ts {
				addrs[i] = ts[i].Key.Addr
			}
			sleep(10 * time.Second)
			begin := time.Now()
			sleep(time.Minute)
			moments, probes, most := wakes(runs, addrs, begin)
			what := fmt.Sprintf("%d endpoints: %d probes at %d moments, up to %d at once", n, probes, moments, most)
			t.Log(what)
			if probes < 27*n || probes > 34*n {
				t.Error(what, "in a minute at 2 s")
			}
			if n == 10 && moments > 200 { // 300 without, 99 in the mean of 238 runs, 136 at most
				t.Error(what, ": they should have company")
			}
			if most > company+maxBatch {
				t.Error(what)
			}
		})
	}
}

// Who asked for time gets it: a start in company is not before the floor.
func TestCompanyKeepsTheFloor(t *testing.T) {
	j := &job{every: 2 * time.Second, floor: 100}
	if d := j.slackLocked(50, 1); d != slack {
		t.Errorf("below the floor: %v", d)
	}
	if d := j.slackLocked(200, 1); d != earliest {
		t.Errorf("above the floor: %v", d)
	}
	if d := j.slackLocked(200, company); d != slack {
		t.Errorf("enough company: %v", d)
	}
	quick := &job{every: 10 * time.Millisecond}
	if d := quick.slackLocked(200, 1); d != time.Millisecond {
		t.Errorf("at 10 ms: %v", d)
	}
}
