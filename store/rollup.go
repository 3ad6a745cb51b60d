package store

import (
	"context"
	"math/bits"
	"slices"
	"time"
)

const (
	// rollGrace is how late a probe may be written and still count in its minute's rollup: a
	// long timeout, and the batch.
	rollGrace = time.Minute
	// rollMinutes is how many minutes one round rolls up at most.
	rollMinutes = 30
)

// rollUp makes minute and hour rollups of the minutes that are over. It reads the probes back
// rather than counting them as they pass, so that a kill at any moment leaves nothing out.
func (w *writer) rollUp(wall time.Time) error {
	to := wall.Add(-rollGrace).UnixMilli() / minuteMs * minuteMs
	var from int64
	if err := w.one(&from, "SELECT value FROM setting WHERE key = 'rolled_to_ms'"); err != nil {
		return err
	}
	if from > to+2*minuteMs {
		from = to // the clock was set back; minutes that are there already stay as they are
	}
	for range rollMinutes {
		minute := to
		if err := w.one(&minute, "SELECT at_ms FROM probe WHERE at_ms >= ? AND at_ms < ? ORDER BY at_ms LIMIT 1",
			from, to); err != nil {
			return err
		}
		minute = minute / minuteMs * minuteMs
		if err := w.endHours(from-minuteMs, minute); err != nil {
			return err
		}
		if minute >= to {
			return w.set("rolled_to_ms", to)
		}
		if err := w.rollMinute(minute); err != nil {
			return err
		}
		from = minute + minuteMs
	}
	return nil
}

// tally is one endpoint's minute.
type tally struct {
	n  int
	us []int64 // total times of ok probes
}

// rollMinute writes one minute, and adds it to its hour, in one transaction with the mark that
// says so. A minute that is there already is left alone: it must not count twice.
func (w *writer) rollMinute(minute int64) error {
	tallies, err := w.tallies(minute)
	if err != nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	for endpoint, t := range tallies {
		if err := w.writeTally(minute, endpoint, t); err != nil {
			return err
		}
	}
	if err := w.noteTimes(minute, minute/hourMs*hourMs); err != nil {
		return err
	}
	if err := w.set("rolled_to_ms", minute+minuteMs); err != nil {
		return err
	}
	return w.commit()
}

// noteTimes makes rollups of these times visible in the view.
func (w *writer) noteTimes(times ...int64) error {
	for _, at := range times {
		err := w.exec(`INSERT OR IGNORE INTO rollup_time (time, at_ms)
			VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', ?1 / 1000.0, 'unixepoch'), ?1)`, at)
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetTimes deletes the times of which no rollup is left.
func (w *writer) forgetTimes() error {
	return w.exec(`DELETE FROM rollup_time WHERE NOT EXISTS (SELECT 1 FROM rollup_minute r WHERE r.at_ms = rollup_time.at_ms)
		AND NOT EXISTS (SELECT 1 FROM rollup_hour r WHERE r.at_ms = rollup_time.at_ms)`)
}

// tallies reads the counted probes of one minute.
func (w *writer) tallies(minute int64) (map[int64]*tally, error) {
	st, err := w.prepare(`SELECT r.endpoint, r.outcome = 'ok', (ifnull(p.connect, 0) + ifnull(p.wait, 0) + p.rest) * 10
		FROM probe p JOIN result r ON r.id = p.result
		WHERE p.at_ms >= ? AND p.at_ms < ? AND r.counted = 1`)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(context.Background(), minute, minute+minuteMs)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	tallies := make(map[int64]*tally)
	for rows.Next() {
		var (
			endpoint, us int64
			ok           bool
		)
		if err := rows.Scan(&endpoint, &ok, &us); err != nil {
			return nil, err
		}
		t := tallies[endpoint]
		if t == nil {
			t = new(tally)
			tallies[endpoint] = t
		}
		t.n++
		if ok {
			t.us = append(t.us, us)
		}
	}
	return tallies, rows.Err()
}

func (w *writer) writeTally(minute, endpoint int64, t *tally) error {
	slices.Sort(t.us)
	var least, p50, p95, most any
	if n := len(t.us); n > 0 {
		least, p50, p95, most = t.us[0], t.us[rankOf(n, 50)], t.us[rankOf(n, 95)], t.us[n-1]
	}
	res, err := w.change(`INSERT OR IGNORE INTO rollup_minute (at_ms, endpoint, n, ok, min_us, p50_us, p95_us, max_us)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, minute, endpoint, t.n, len(t.us), least, p50, p95, most)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); n == 0 || err != nil {
		return err
	}
	hour := minute / hourMs * hourMs
	err = w.exec(`INSERT INTO rollup_hour (at_ms, endpoint, n, ok, min_us, max_us) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (at_ms, endpoint) DO UPDATE SET n = n + excluded.n, ok = ok + excluded.ok,
		min_us = min(ifnull(min_us, excluded.min_us), ifnull(excluded.min_us, min_us)),
		max_us = max(ifnull(max_us, excluded.max_us), ifnull(excluded.max_us, max_us))`,
		hour, endpoint, t.n, len(t.us), least, most)
	if err != nil {
		return err
	}
	for i := 0; i < len(t.us); {
		upto, from := bucketOf(t.us[i]), i
		for i < len(t.us) && t.us[i] <= upto {
			i++
		}
		if i == from {
			i = len(t.us) // beyond the last bucket: they all count there
		}
		err := w.exec(`INSERT INTO histogram (at_ms, endpoint, upto_us, n) VALUES (?, ?, ?, ?)
			ON CONFLICT (at_ms, endpoint, upto_us) DO UPDATE SET n = n + excluded.n`, hour, endpoint, upto, i-from)
		if err != nil {
			return err
		}
	}
	return nil
}

// rankOf is the index of a percentile in n sorted values (nearest rank).
func rankOf(n, percent int) int { return (n*percent+99)/100 - 1 }

// mostBucket is the last upper bound in the table bucket.
const mostBucket = 15 << 26

// bucketOf is the upper bound of a time's bucket, as the table bucket has them: every value up to
// 16, then 8 to each doubling.
func bucketOf(us int64) int64 {
	if us <= 16 {
		return max(us, 0)
	}
	shift := bits.Len64(uint64(us-1)) - 4
	return min(((us-1)>>shift+1)<<shift, mostBucket)
}

// endHours gives the hours that ended between two moments their percentiles, from the histogram.
func (w *writer) endHours(from, to int64) error {
	to = to / hourMs * hourMs
	from = max(from/hourMs*hourMs, to-histogramFor.Milliseconds())
	if from >= to {
		return nil
	}
	const percentile = `(SELECT min(upto_us) FROM
		(SELECT upto_us, sum(n) OVER (ORDER BY upto_us) AS below, sum(n) OVER () AS total FROM histogram h
		  WHERE h.at_ms = rollup_hour.at_ms AND h.endpoint = rollup_hour.endpoint)
		WHERE below * 100 >= total * `
	return w.exec(`UPDATE rollup_hour SET p50_us = `+percentile+`50), p95_us = `+percentile+`95)
		WHERE at_ms >= ? AND at_ms < ? AND ok > 0`, from, to)
}
