package store

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// goAtOnce rows are deleted in one transaction, some 20 ms of work.
	goAtOnce = 20000
	// passes bounds the deletions of one round of house-keeping.
	passes = 8
	// vacuumPages are given back to the file system in one round, at most.
	vacuumPages = 2000
	// histogramFor is how long histograms are kept: a day, and the hours at its ends.
	histogramFor = 26 * time.Hour
	// stepHold is how long nothing is deleted for its age after the wall clock was set.
	stepHold = time.Hour
	// stepMin is what counts as a clock that was set rather than slewed.
	stepMin = 5 * time.Minute
	// pauseMin is how long nothing was written, by the clock, before it is doubted at a start.
	pauseMin = 24 * time.Hour
	// backHold is how long nothing is deleted for its age when at a start the clock is behind what
	// was written: all history would look as if it came from the future.
	backHold = 24 * time.Hour
)

// clockGuard notices that the wall clock was set. A clock that is wrong for a while must not cost
// all history: rows would look old, or come from the future.
type clockGuard struct {
	real time.Time // of the last look, monotonic
	wall time.Time // Options.Now at the last look
	hold time.Time // delete nothing for its age before this, monotonic
}

// opened compares the clock with the last thing written: a host may start with a clock that is years
// off, and have it set minutes later.
func (g *clockGuard) opened(real, wall, last time.Time) {
	if last.IsZero() {
		return
	}
	switch pause := wall.Sub(last); {
	case pause < -stepMin:
		g.hold = real.Add(backHold)
	case pause > pauseMin:
		g.hold = real.Add(stepHold)
	}
}

// look tells whether ages can be believed.
func (g *clockGuard) look(real, wall time.Time) bool {
	if !g.real.IsZero() {
		if drift := wall.Round(0).Sub(g.wall.Round(0)) - real.Sub(g.real); drift.Abs() > stepMin {
			g.hold = real.Add(stepHold)
		}
	}
	g.real, g.wall = real, wall
	return real.After(g.hold)
}

// house does what keeps the database small and the views fast, a little at a time.
func (w *writer) house(now time.Time) error {
	wall := w.s.o.Now()
	if now.Before(w.houseAt) {
		return nil
	}
	w.houseAt = now.Add(houseEvery)
	if !now.Before(w.rollAt) {
		w.rollAt = now.Add(rollEvery)
		if err := w.rollUp(wall); err != nil {
			return err
		}
		if w.clock.look(now, wall) {
			if err := w.expire(wall); err != nil {
				return err
			}
		}
	}
	if err := w.shrink(); err != nil {
		return err
	}
	return w.tendWAL()
}

// expire deletes what is too old, and what a clock that was wrong dated a day or more ahead.
func (w *writer) expire(wall time.Time) error {
	now := wall.UnixMilli()
	ahead := now + 24*hourMs
	raw := now - w.s.o.RawFor.Milliseconds()
	minutes := (now - min(minuteFor, w.s.o.RollupFor).Milliseconds()) / hourMs * hourMs
	rollup := now - w.s.o.RollupFor.Milliseconds()

	for range passes {
		n, err := w.deleteOldest("probe", raw)
		if err != nil {
			return err
		}
		if n < goAtOnce {
			break
		}
	}
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.expireMinutes(minutes); err != nil {
		return err
	}
	for _, d := range []struct {
		text string
		at   int64
	}{
		{"DELETE FROM probe WHERE at_ms > ?", ahead},
		{"DELETE FROM rollup_minute WHERE at_ms > ?", ahead},
		{"DELETE FROM rollup_hour WHERE at_ms > ?", ahead},
		{"DELETE FROM histogram WHERE at_ms > ?", ahead},
		{"DELETE FROM histogram WHERE at_ms < ?", now - histogramFor.Milliseconds()},
		{"DELETE FROM rollup_hour WHERE at_ms < ?", rollup},
		{"DELETE FROM event WHERE at_ms < ?", rollup},
		{"DELETE FROM answer WHERE at_ms < ?", rollup},
		{"DELETE FROM checkpoint WHERE at_ms < ?", raw},
		{"DELETE FROM input WHERE at_ms < ?", raw},
		{"DELETE FROM override WHERE until_ms < ?", now},
		{"DELETE FROM result WHERE used_ms < ?", raw - 2*hourMs},
		{"DELETE FROM endpoint WHERE used_ms < ? AND id NOT IN (SELECT endpoint FROM endpoint_state)", rollup - 2*hourMs},
	} {
		if err := w.exec(d.text, d.at); err != nil {
			return err
		}
	}
	if hour := now / hourMs; hour != w.timesAt {
		if w.timesAt != 0 { // not at a start, which is busy
			if err := w.forgetTimes(); err != nil {
				return err
			}
		}
		w.timesAt = hour
	}
	return w.commit()
}

// expireMinutes deletes minutes before a full hour; from then on their hours stand in the view.
func (w *writer) expireMinutes(before int64) error {
	res, err := w.change("DELETE FROM rollup_minute WHERE at_ms < ?", before)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return nil
	}
	return w.exec(`INSERT INTO setting (key, value) VALUES ('hours_until_ms', ?)
		ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)`, before)
}

// deleteOldest deletes the oldest rows of a table, those before a time, goAtOnce at most or a few
// more of the same millisecond.
func (w *writer) deleteOldest(table string, before int64) (int64, error) {
	last := before - 1
	if err := w.one(&last, fmt.Sprintf(
		`SELECT min(?, at_ms) FROM %s ORDER BY at_ms LIMIT 1 OFFSET %d`, table, goAtOnce-1), before-1); err != nil {
		return 0, err
	}
	res, err := w.change(fmt.Sprintf("DELETE FROM %s WHERE at_ms <= ?", table), last)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if n > 0 && table == "probe" && err == nil {
		err = w.cutPast(last)
	}
	return n, err
}

// cutPast notes that probes until then are gone, without which nothing of that time can be
// rebuilt.
func (w *writer) cutPast(last int64) error {
	if err := w.set("probes_from_ms", last+1); err != nil {
		return err
	}
	return w.exec("DELETE FROM checkpoint WHERE at_ms <= ?", last)
}

// shrink keeps file and -wal below MaxSize: the oldest probes go first, then minutes, hours,
// answers and events. Freed pages are used again, and given back when there are many.
func (w *writer) shrink() error {
	var pages, free int64
	for range passes {
		if err := w.one(&pages, "PRAGMA page_count"); err != nil {
			return err
		}
		if err := w.one(&free, "PRAGMA freelist_count"); err != nil {
			return err
		}
		if (pages-free)*pageSize <= w.fileLimit() {
			break
		}
		if n, err := w.deleteAnyOldest(); n == 0 || err != nil {
			return err
		}
	}
	if free > pages/50 && (free > 256 || pages*pageSize > w.fileLimit()) {
		return w.vacuum(min(free, vacuumPages))
	}
	return nil
}

// deleteAnyOldest deletes the oldest rows of the first table in order that has any.
func (w *writer) deleteAnyOldest() (n int64, err error) {
	const future = int64(1) << 62
	for _, table := range []string{"probe", "rollup_minute", "rollup_hour", "checkpoint", "input", "answer", "event"} {
		n, err = w.deleteOldest(table, future)
		if n > 0 || err != nil {
			break
		}
	}
	return n, err
}

// vacuum gives free pages back to the file system. The pragma frees one page with each step.
func (w *writer) vacuum(pages int64) error {
	rows, err := w.conn.QueryContext(context.Background(), fmt.Sprintf("PRAGMA incremental_vacuum(%d)", pages))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// walLimit is the size of the -wal above which no probes are written until it could be emptied.
func (w *writer) walLimit() int64 {
	return min(max(w.s.o.MaxSize/16, 1<<20), 32<<20)
}

// fileLimit is what the file may hold, so that it and the -wal stay below MaxSize.
func (w *writer) fileLimit() int64 { return w.s.o.MaxSize - w.walLimit()/2 }

// tendWAL empties the -wal when it has grown: SQLite does so by itself while no reader sits in a
// long transaction. Beyond the limit probes wait, and are dropped as the queue fills; events and
// answers, which are few, go on.
func (w *writer) tendWAL() error {
	size := w.walSize()
	if size > w.walLimit() {
		if err := w.checkpoint(); err != nil && !busy(err) {
			return err
		}
		size = w.walSize()
	}
	held := size > w.walLimit()
	if held != w.held {
		w.held = held
		if held {
			w.become(StateHeld, fmt.Sprintf("a reader's long transaction keeps %s-wal at %d MiB: probes wait, "+
				"events and answers are still written", w.s.o.Path, size>>20))
		} else {
			w.become(StateOK, "")
		}
	}
	w.sizes()
	return nil
}

// checkpoint moves the whole -wal into the file, if no reader needs it, and does not wait.
func (w *writer) checkpoint() error {
	if err := w.exec("PRAGMA busy_timeout = 0"); err != nil {
		return err
	}
	_, err := w.conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
	if e := w.exec(fmt.Sprintf("PRAGMA busy_timeout = %d", busyWait.Milliseconds())); err == nil {
		err = e
	}
	return err
}

func (w *writer) walSize() int64 {
	fi, err := os.Stat(w.s.o.Path + "-wal")
	if err != nil {
		return 0
	}
	w.wal = fi
	return fi.Size()
}

// sizes publishes the size of the database.
func (w *writer) sizes() {
	size := w.walSize()
	if fi, err := os.Stat(w.s.o.Path); err == nil {
		size += fi.Size()
	}
	w.s.mu.Lock()
	w.s.stats.SizeBytes = size
	w.s.mu.Unlock()
}
