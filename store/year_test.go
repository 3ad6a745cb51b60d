package store

import (
	"context"
	"os"
	"testing"
	"time"
)

// Fault 10: a year passes in steps of ten days, with a million probes of ten endpoints (fewer without HARD_LONG). Raw rows go after
// RawFor, the file stays as large as it was in the second month, rollups leave nothing out, and the database is whole.
func TestFault10Year(t *testing.T) {
	t.Parallel()
	const (
		day     = 24 * time.Hour
		step    = 10 * day
		steps   = 40
		minutes = 25
	)
	perStep := 6_000 / steps
	if os.Getenv("HARD_LONG") != "" {
		perStep = 1_000_000 / steps
	}
	path := dbPath(t)
	// Both clocks go on together: a wall clock that is set is another test.
	began := time.Now()
	wall := began.Add(-400 * day)
	s, _ := start(t, Options{Path: path, RawFor: 48 * time.Hour, RollupFor: 500 * day, Now: func() time.Time { return wall }})
	ks := keys(10)
	var rows, early, late int64
	for i := range steps {
		at := began.Add(time.Duration(i) * step)
		passes := func(d time.Duration) {
			t.Helper()
			err := s.do(context.Background(), func(w *writer) error {
				at, wall = at.Add(d), wall.Add(d)
				w.houseAt, w.rollAt = time.Time{}, time.Time{}
				return w.house(at)
			})
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
		for _, k := range ks {
			s.Record(probeAt(k, wall)) // the way that probes take, and what the others refer to
		}
		s.sync(t)
		err := s.do(context.Background(), func(w *writer) error {
			res, err := w.change(`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?2 - 1)
				INSERT INTO probe (at_ms, result, connect, wait, rest)
				SELECT ?1 + 1 + i * ?3 / ?2, r.id, 100, 200 + i % 1000, 10 FROM n JOIN
				(SELECT id, row_number() OVER (ORDER BY id) - 1 AS k FROM result WHERE used_ms >= ?1 - 7200000) r ON r.k = i % 10`,
				wall.UnixMilli(), perStep-len(ks), minutes*minuteMs)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			rows += n + int64(len(ks))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		passes(time.Hour)          // what was just written is rolled up ...
		passes(step - 2*time.Hour) // ... and is too old when the next comes
		passes(time.Hour)
		if n := count(t, path, "SELECT count(*) FROM probe"); n != 0 {
			t.Fatalf("step %d: %d probes are left that are ten days old", i, n)
		}
		size := s.emptied(t)
		switch {
		case i < 6:
			early = max(early, size)
		case i >= steps-6:
			late = max(late, size)
		}
	}
	if rows != int64(steps*perStep) {
		t.Errorf("%d rows were written", rows)
	}
	if late > early+early/4+1<<18 {
		t.Errorf("the database holds %d bytes after a year, %d after two months", late, early)
	}
	if n := count(t, path, "SELECT sum(n) FROM rollups"); int64(n) != rows {
		t.Errorf("rollups tell of %d probes of %d", n, rows)
	}
	for _, pragma := range []string{"integrity_check", "foreign_key_check"} {
		if got := shell(t, path, "PRAGMA "+pragma); got != "ok" && got != "" {
			t.Errorf("%s: %s", pragma, got)
		}
	}
	t.Logf("%d rows in %v; %d kB after two months, %d kB after a year", rows, time.Since(began).Round(time.Millisecond), early/1000, late/1000)
}

// emptied moves all of the -wal, which has a bound of its own, into the file, and returns the size of that.
func (s *Store) emptied(t *testing.T) (size int64) {
	t.Helper()
	err := s.do(context.Background(), func(w *writer) error {
		if err := w.checkpoint(); err != nil {
			return err
		}
		fi, err := os.Stat(w.s.o.Path)
		if err == nil {
			size = fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
