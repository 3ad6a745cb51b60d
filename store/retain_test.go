package store

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hard/internal/rank"
)

// TestSizeIsKept feeds more than fits: ten times as much when there is time.
func TestSizeIsKept(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path, MaxSize: leastSize})
	ks := keys(10)
	at := time.Now().Add(-24 * time.Hour)
	var most int64
	rows := 3 * leastSize / 2 / 35
	if os.Getenv("HARD_LONG") != "" {
		rows = 10 * leastSize / 35
	}
	for i := range rows {
		at = at.Add(10 * time.Millisecond)
		s.Record(probeAt(ks[i%10], at))
		if i%5000 != 4999 {
			continue
		}
		s.sync(t)
		keepHouse(t, s)
		most = max(most, s.Stats().SizeBytes)
	}
	s.sync(t)
	if most > leastSize*11/10 || most < leastSize/2 {
		t.Errorf("the database grew to %d, limit %d", most, leastSize)
	}
	if n := count(t, path, "SELECT max(at_ms) FROM probe"); int64(n) != at.UnixMilli() {
		t.Error("the newest probe is gone")
	}
	if s.Stats().Dropped["probe"] != 0 {
		t.Error("probes were dropped")
	}
}

// keepHouse does a round of house-keeping now.
func keepHouse(t *testing.T, s *Store) {
	t.Helper()
	err := s.do(context.Background(), func(w *writer) error {
		w.houseAt, w.rollAt = time.Time{}, time.Time{}
		return w.house(time.Now())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	now := time.Now()
	wall := now
	s, _ := start(t, Options{Path: path, RawFor: time.Hour, RollupFor: 60 * 24 * time.Hour,
		Now: func() time.Time { return wall }})
	fill(t, s, []rank.Key{east}, now, 3*time.Hour, 10*time.Second)
	s.Record(probeAt(east, now.Add(365*24*time.Hour))) // of a clock that was wrong
	s.Event(Event{At: now.Add(-61 * 24 * time.Hour), Kind: "old"})
	s.Event(Event{At: now, Kind: "new"})
	s.sync(t)
	expire := func(at time.Time) {
		t.Helper()
		if err := s.do(context.Background(), func(w *writer) error { return w.expire(at) }); err != nil {
			t.Fatal(err)
		}
	}
	expire(now)
	if n := count(t, path, "SELECT count(*) FROM probe"); n != 360 {
		t.Errorf("%d probes of the last hour, want 360", n)
	}
	if got := shell(t, path, "SELECT group_concat(kind) FROM events"); got != "new" {
		t.Errorf("events %s", got)
	}
	before := shell(t, path, "SELECT sum(n), sum(ok), max(max_ms) FROM rollups")
	expire(now.Add(31 * 24 * time.Hour))
	after := shell(t, path, "SELECT sum(n), sum(ok), max(max_ms) FROM rollups")
	widths := shell(t, path, "SELECT DISTINCT width_s FROM rollups")
	if before != after || widths != "3600" || !strings.HasPrefix(before, "10") {
		t.Errorf("minutes %s, as hours %s, widths %s", before, after, widths)
	}
	if got := shell(t, path, "SELECT (SELECT count(*) FROM rollup_time) - (SELECT count(DISTINCT at_ms) FROM rollup_hour)"); got != "0" {
		t.Errorf("%s times more than hours", got)
	}
	// The hour that is not over yet has no percentiles until it is.
	if n := count(t, path, "SELECT count(*) FROM rollup_hour WHERE p95_us > 0"); n < 2 {
		t.Errorf("%d hours have percentiles", n)
	}
	expire(now.Add(61 * 24 * time.Hour))
	for _, table := range []string{"rollups", "rollup_time"} {
		if n := count(t, path, "SELECT count(*) FROM "+table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
}

// TestSteppedClock: a clock that jumps must not cost history, neither way.
func TestSteppedClock(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	now := time.Now()
	wall := now
	s, _ := start(t, Options{Path: path, Now: func() time.Time { return wall }})
	fill(t, s, []rank.Key{east}, now, 10*time.Minute, 10*time.Second)
	keepHouse(t, s)
	for _, step := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour, 0} {
		step := step
		_ = s.do(context.Background(), func(*writer) error { wall = now.Add(step); return nil })
		s.Record(probeAt(east, now.Add(step)))
		s.sync(t)
		keepHouse(t, s)
	}
	if n := count(t, path, "SELECT count(*) FROM probe"); n != 63 {
		t.Errorf("%d probes, want 63", n)
	}
	// And rolling up goes on at the right time afterwards.
	fill(t, s, []rank.Key{west}, now.Add(5*time.Minute), 5*time.Minute, 10*time.Second)
	if n := count(t, path, "SELECT sum(n) FROM rollups WHERE candidate = 'west'"); n < 18 {
		t.Errorf("%d probes rolled up after the step", n)
	}
}

// Fault 11: a host that starts with a clock that is a year off, either way, and has it set later, keeps
// its history.
func TestFault11StartsWithAWrongClock(t *testing.T) {
	t.Parallel()
	for name, off := range map[string]time.Duration{"back": -365 * 24 * time.Hour, "ahead": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			now := time.Now()
			s, _ := start(t, Options{Path: path})
			fill(t, s, []rank.Key{east}, now, 10*time.Minute, 10*time.Second)
			s.Event(Event{At: now, Kind: "start"})
			closeNow(t, s)
			before := count(t, path, "SELECT count(*) FROM probe")
			var set atomic.Bool
			s, _ = start(t, Options{Path: path, Now: func() time.Time {
				if set.Load() {
					return time.Now()
				}
				return time.Now().Add(off)
			}})
			s.Event(Event{At: now.Add(off), Kind: "start"})
			s.sync(t)
			keepHouse(t, s)
			set.Store(true)
			keepHouse(t, s)
			s.Event(Event{At: time.Now(), Kind: "clock"})
			s.sync(t)
			keepHouse(t, s)
			if n := count(t, path, "SELECT count(*) FROM probe"); n != before {
				t.Errorf("%d probes are left of %d", n, before)
			}
			if n := count(t, path, "SELECT count(*) FROM event"); n != 3 {
				t.Errorf("%d events, want 3", n)
			}
		})
	}
}

func TestClockGuard(t *testing.T) {
	var g clockGuard
	real, wall := time.Now(), time.Now()
	tick := func(d time.Duration, step time.Duration) bool {
		real, wall = real.Add(d), wall.Add(d+step)
		return g.look(real, wall)
	}
	for i, c := range []struct {
		d, step time.Duration
		want    bool
	}{{0, 0, true}, {time.Minute, 0, true}, {8 * time.Hour, time.Minute, true}, {time.Minute, time.Hour, false},
		{59 * time.Minute, 0, false}, {2 * time.Minute, 0, true}, {time.Minute, -time.Hour, false}} {
		if got := tick(c.d, c.step); got != c.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// TestUptimeAgreesWithProbes compares the view, which rests on rollups and the unrolled rest,
// with the probes themselves.
func TestUptimeAgreesWithProbes(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	now := time.Now()
	fill(t, s, []rank.Key{east, west}, now, 3*time.Hour, 5*time.Second)
	for i, p := range []rank.Sample{
		{Outcome: rank.Aborted, Final: true}, {Outcome: rank.OK, Final: true, Delayed: true}, {Outcome: rank.Timeout},
	} { // none of these counts
		p.Key, p.At = east, now.Add(-time.Duration(i)*time.Hour)
		s.Record(p)
	}
	s.sync(t)
	if n := count(t, path, "SELECT count(*) FROM rollup_minute"); n < 300 {
		t.Fatalf("only %d rollups", n)
	}
	got := shell(t, path, "SELECT probes_24h, ok_24h, percent_24h FROM uptime ORDER BY candidate")
	want := shell(t, path, `SELECT count(*), sum(outcome = 'ok'), round(100.0 * sum(outcome = 'ok') / count(*), 3)
		FROM probes WHERE outcome IN ('ok', 'status') AND total_ms > 0 GROUP BY candidate ORDER BY candidate`)
	if got != want || len(want) == 0 {
		t.Errorf("uptime %s\nprobes %s", got, want)
	}
	for _, c := range []string{"east", "west"} {
		for percent, column := range map[int]string{50: "p50_ms", 95: "p95_ms"} {
			got, _ := strconv.ParseFloat(shell(t, path, "SELECT "+column+" FROM uptime WHERE candidate = '"+c+"'"), 64)
			want, _ := strconv.ParseFloat(shell(t, path, fmt.Sprintf(`SELECT total_ms FROM probes WHERE candidate = '%s'
				AND outcome = 'ok' AND total_ms > 0 ORDER BY total_ms LIMIT 1 OFFSET
				(SELECT count(*) * %d / 100 FROM probes WHERE candidate = '%s' AND outcome = 'ok' AND total_ms > 0)`,
				c, percent, c)), 64)
			if math.Abs(got-want) > want*0.13 || want == 0 {
				t.Errorf("%s %s: %v, exactly %v", c, column, got, want)
			}
		}
	}
}

func TestBuckets(t *testing.T) {
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.sync(t)
	for us := int64(0); us < 3e9; us = us + 1 + us/7 {
		if us > mostBucket {
			if bucketOf(us) != mostBucket {
				t.Fatal(us)
			}
			continue
		}
		want := count(t, path, fmt.Sprintf("SELECT min(upto_us) FROM bucket WHERE upto_us >= %d", us))
		if got := bucketOf(us); got != int64(want) || float64(got) > float64(us)*1.125+1 {
			t.Errorf("bucketOf(%d) = %d, the table says %d", us, got, want)
		}
	}
}
