package prober

import (
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// TestDetectionTime holds the worst case that -check promises to the schedule: an endpoint that dies just after it
// has answered is down no later, whatever the jitter, and a silent one comes near it in some runs.
func TestDetectionTime(t *testing.T) {
	steady := rank.Pace{Interval: 2 * time.Second, FastInterval: 250 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 2}
	want := config.DetectionTime(&steady)
	for outcome, limit := range map[rank.Outcome]time.Duration{rank.Refused: want.Refused, rank.Timeout: want.Silent} {
		worst := time.Duration(0)
		for range 60 {
			inBubble(t, Options{}, func(t *testing.T, p *Prober, runs *fakeRun, _ *collector) {
				targets := fakeTargets("x", 1, &steady)
				p.SetName("x", targets)
				sleep(20 * time.Second)
				p.SetInterval(targets[0].Key, steady.Interval)
				before := runs.count()
				for runs.count() == before {
					sleep(5 * time.Millisecond)
				}
				sleep(5 * time.Millisecond)
				died := time.Now()
				runs.mu.Lock()
				if outcome == rank.Timeout {
					runs.lasts = steady.Timeout
				}
				misses, verdict := 0, make(chan time.Time, 1)
				runs.verdict = func(pr *probe) {
					pr.end(outcome, 0, "")
					if misses++; misses == 1 { // what the engine does at the first miss
						go p.SetInterval(targets[0].Key, steady.FastInterval)
					} else if misses == steady.Fall {
						verdict <- time.Now()
					}
				}
				runs.mu.Unlock()
				took := (<-verdict).Sub(died)
				worst = max(worst, took)
			})
		}
		if worst > limit {
			t.Errorf("%v: %v until the verdict, promised are %v", outcome, worst, limit)
		}
		t.Logf("%v: the worst of 60 was %v, promised are %v", outcome, worst, limit)
	}
}
