package store

import (
	"context"
	"os"
	"testing"
	"time"

	"hard/internal/rank"
)

// TestSustainedWriting writes 10,000 probes a second of 10,000 endpoints for half a minute, with batches,
// house-keeping and roll-ups as they come by themselves, and logs what it cost. It fails where a probe is lost.
func TestSustainedWriting(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("set HARD_LONG=1: takes half a minute")
	}
	const (
		rate = 10000
		span = 30 * time.Second
		tick = 10 * time.Millisecond
	)
	path := dbPath(t)
	s, _ := start(t, Options{Path: path, MaxSize: 1 << 30})
	ks := keys(rate)
	n := 0
	record := func(at time.Time) {
		p := probeAt(ks[n%rate], at)
		p.Phases.Total += time.Duration(n*7919%50000) * time.Microsecond
		if n++; n%100 == 0 {
			p.Outcome, p.Status, p.Detail = rank.Status, 503, "503 Service Unavailable"
		}
		p.Taken = p.End()
		s.Record(p)
	}
	// A minute and a half that is over, to be rolled up while we measure, as one is every minute.
	for at := time.Now().Add(-rollGrace - 90*time.Second); at.Before(time.Now().Add(-rollGrace)); at = at.Add(time.Second / rate) {
		if record(at); n%rate == 0 {
			s.sync(t)
		}
	}
	s.sync(t)
	if err := s.do(context.Background(), func(w *writer) error { // what has been rolled up already is to be so again
		return w.script("DELETE FROM rollup_minute", "DELETE FROM rollup_hour", "DELETE FROM histogram", "DELETE FROM setting WHERE key = 'rolled_to_ms'")
	}); err != nil {
		t.Fatal(err)
	}
	before := n
	began, used := time.Now(), cpu()
	for ticks := time.NewTicker(tick); time.Since(began) < span; <-ticks.C {
		for want := before + int(time.Since(began)*rate/time.Second); n < want; {
			record(time.Now())
		}
	}
	s.sync(t)
	took, spent := time.Since(began), cpu()-used
	t.Logf("%d probes in %v, %d minutes of %d endpoints rolled up: %.1f %% of a core, %v a probe; file %d bytes a probe", n-before, took.Round(time.Second),
		count(t, path, "SELECT count(DISTINCT at_ms) FROM rollup_minute"), rate, 100*spent.Seconds()/took.Seconds(), (spent / time.Duration(n-before)).Round(10*time.Nanosecond), s.Stats().SizeBytes/int64(n))
	if d := s.Stats().Dropped; len(d) > 0 && d["probe"] > 0 {
		t.Errorf("dropped: %v", d)
	}
	if got := count(t, path, "SELECT count(*) FROM probe"); got != n {
		t.Errorf("%d probes are stored, %d were recorded", got, n)
	}
}
