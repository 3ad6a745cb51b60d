package store

import (
	"strings"
	"time"

	"hard/internal/bug"
	"hard/internal/rank"
)

// dimension is a row of endpoint or result that other rows refer to.
type dimension struct {
	id   int64
	used int64 // the hour that is stored as used_ms
}

// resultKey is what makes a result distinct.
type resultKey struct {
	endpoint       rank.Key
	outcome        rank.Outcome
	status, try    int
	final, delayed bool
	detail         string
}

const (
	mostDetail  = 200   // bytes of a detail
	mostResults = 16384 // ids of results kept in memory
	mostKeys    = 16384 // ids of endpoints kept in memory
	hourMs      = int64(time.Hour / time.Millisecond)
	minuteMs    = int64(time.Minute / time.Millisecond)

	// rowsAtOnce probes go into one statement: a call of the interpreter costs more than a row.
	rowsAtOnce = 64
	insertHead = `INSERT OR REPLACE INTO probe
		(at_ms, result, connect, wait, rest, late) VALUES `
	insertRow = `(?,?,?,?,?,?)`
)

var (
	insertOne  = insertHead + insertRow
	insertMany = insertHead + strings.Repeat(insertRow+",", rowsAtOnce-1) + insertRow
)

// writeBatch writes a batch in one transaction.
func (w *writer) writeBatch(b *batch) error {
	if err := w.begin(); err != nil {
		return err
	}
	bug.Here("store-write")
	w.hour = b.at.UnixMilli() / hourMs * hourMs
	for _, r := range b.rows {
		if err := r.write(w); err != nil {
			return err
		}
	}
	for _, r := range b.latest {
		if err := r.write(w); err != nil {
			return err
		}
	}
	if err := w.writeSamples(b.samples); err != nil {
		return err
	}
	if err := w.writeLost(b.lost); err != nil {
		return err
	}
	if err := w.set("written_ms", b.at.UnixMilli()); err != nil {
		return err
	}
	return w.commit()
}

func (w *writer) writeSamples(samples []rank.Sample) error {
	for len(samples) > 0 {
		n, text := 1, insertOne
		if len(samples) >= rowsAtOnce {
			n, text = rowsAtOnce, insertMany
		}
		w.args = w.args[:0]
		for i := range samples[:n] {
			if err := w.bind(&samples[i]); err != nil {
				return err
			}
		}
		if err := w.exec(text, w.args...); err != nil {
			return err
		}
		samples = samples[n:]
	}
	return nil
}

// bind appends the columns of one probe.
func (w *writer) bind(p *rank.Sample) error {
	result, err := w.result(p)
	if err != nil {
		return err
	}
	at := p.At.UnixMilli()
	connect, wait, rest := phases(&p.Phases)
	var late any
	if !p.Taken.IsZero() {
		late = steps(p.Taken.Sub(time.UnixMilli(at))) - steps(p.Phases.Total)
	}
	w.args = append(w.args, at, result, connect, wait, rest, late)
	return nil
}

// phases turns moments into the duration of each phase, in steps; a phase that was not reached is
// NULL.
func phases(p *rank.Phases) (connect, wait, rest any) {
	var last int64
	part := func(d time.Duration) any {
		if d <= 0 {
			return nil
		}
		n := steps(d)
		v := n - last
		last = n
		return v
	}
	connect, wait = part(p.Connect), part(p.FirstByte)
	return connect, wait, steps(p.Total) - last
}

// steps is a duration as a probe's row has it.
func steps(d time.Duration) int64 { return int64(d.Round(rank.Precision) / rank.Precision) }

// endpoint gives the id of an endpoint, made at its first use. keep remembers it: for endpoints that
// are probed, whose rows are many.
func (w *writer) endpoint(k rank.Key, keep bool) (int64, error) {
	if d := w.ids[k]; d != nil && d.used == w.hour {
		return d.id, nil
	}
	if len(w.ids) >= mostKeys {
		clear(w.ids)
	}
	family := 4
	if k.Addr.Is6() {
		family = 6
	}
	addr := k.Addr.String()
	err := w.exec(`INSERT INTO endpoint (name, candidate, address, family, used_ms) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name, candidate, address) DO UPDATE SET used_ms = max(used_ms, excluded.used_ms)`,
		k.Name, k.Candidate, addr, family, w.hour)
	if err != nil {
		return 0, err
	}
	d := &dimension{used: w.hour}
	err = w.one(&d.id, `SELECT id FROM endpoint WHERE name = ? AND candidate = ? AND address = ?`,
		k.Name, k.Candidate, addr)
	if err != nil {
		return 0, err
	}
	if keep {
		w.ids[k] = d
	}
	return d.id, nil
}

// result gives the id of a probe's result, made at its first use.
func (w *writer) result(p *rank.Sample) (int64, error) {
	k := resultKey{p.Key, p.Outcome, p.Status, p.Try, p.Final, p.Delayed, p.Detail}
	if d := w.results[k]; d != nil && d.used == w.hour {
		return d.id, nil
	}
	k.detail = strings.Clone(k.detail)
	if len(w.results) >= mostResults {
		clear(w.results)
	}
	endpoint, err := w.endpoint(k.endpoint, true)
	if err != nil {
		return 0, err
	}
	detail := shorten(k.detail)
	err = w.exec(`INSERT INTO result (endpoint, outcome, status, try, final, delayed, counted, detail, used_ms)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (endpoint, outcome, status, try, final, delayed, detail) DO UPDATE SET used_ms = max(used_ms, excluded.used_ms)`,
		endpoint, k.outcome.String(), k.status, k.try, k.final, k.delayed, p.Counted(), detail, w.hour)
	if err != nil {
		return 0, err
	}
	d := &dimension{used: w.hour}
	err = w.one(&d.id, `SELECT id FROM result WHERE endpoint = ? AND outcome = ? AND status = ? AND try = ? AND final = ?
		AND delayed = ? AND detail = ?`, endpoint, k.outcome.String(), k.status, k.try, k.final, k.delayed, detail)
	if err != nil {
		return 0, err
	}
	w.results[k] = d
	return d.id, nil
}

// shorten makes one line of valid UTF-8 of bounded length.
func shorten(s string) string {
	if len(s) > mostDetail {
		s = s[:mostDetail]
	}
	return strings.ToValidUTF8(s, "")
}
