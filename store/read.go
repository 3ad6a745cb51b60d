package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"time"

	"hard/internal/rank"
)

// Reader reads a database, with the daemon up or down, and changes nothing. It needs no more than
// the right to read the files.
type Reader struct {
	db *sql.DB
}

// Filter says which rows are wanted. Empty fields match everything.
type Filter struct {
	Name, Candidate string
	Since, Until    time.Time // Since <= time < Until
}

// readerWait is how long a reader waits for a lock; in WAL mode it hardly ever meets one.
const readerWait = 2 * time.Second

// OpenReader opens the database at path for reading. It fails on a missing file, on one that is
// not ours, and on one of a newer version.
func OpenReader(path string) (*Reader, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	// The file must not be opened but by SQLite: the daemon reads its own database too, and closing
	// any descriptor of a file gives up all POSIX locks that the process has on it.
	db, err := sql.Open("sqlite", dataSource(path, "ro", readerWait, "query_only(ON)", "temp_store(MEMORY)",
		"cell_size_check(ON)"))
	if err != nil {
		return nil, err
	}
	var id uint32
	var version int
	err = errors.Join(db.QueryRow("PRAGMA application_id").Scan(&id), db.QueryRow("PRAGMA user_version").Scan(&version))
	ours := len(migrations())
	switch {
	case err != nil:
	case id != applicationID || version == 0:
		err = fmt.Errorf("%s is not a history of hard", path)
	case version > ours:
		err = fmt.Errorf("%s has schema version %d, this program knows up to %d", path, version, ours)
	case version < ours:
		err = fmt.Errorf("%s has schema version %d, start the daemon once to bring it to %d", path, version, ours)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return &Reader{db: db}, nil
}

// Close ends the reader.
func (r *Reader) Close() error { return r.db.Close() }

// Samples gives the probes in the order of their start; those of one millisecond by endpoint. The
// iteration ends with the first error.
func (r *Reader) Samples(ctx context.Context, f Filter) iter.Seq2[rank.Sample, error] {
	return func(yield func(rank.Sample, error) bool) {
		if err := r.samples(ctx, f, yield); err != nil {
			yield(rank.Sample{}, err)
		}
	}
}

// samples reads through the driver itself: a day of 40 endpoints is 1.7 million rows, and
// database/sql would cost as much again as reading them.
func (r *Reader) samples(ctx context.Context, f Filter, yield func(rank.Sample, error) bool) error {
	keys, err := r.keys(ctx, f)
	if err != nil || len(keys) == 0 {
		return err
	}
	results, err := r.results(ctx)
	if err != nil {
		return err
	}
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	since, until := f.span()
	return conn.Raw(func(c any) error {
		rows, err := c.(driver.QueryerContext).QueryContext(ctx, `SELECT at_ms, at_us, endpoint, result,
			connect_us, tls_us, wait_us, rest_us, late_us FROM probe WHERE at_ms >= ? AND at_ms < ? ORDER BY at_ms, endpoint`,
			[]driver.NamedValue{{Ordinal: 1, Value: since}, {Ordinal: 2, Value: until}})
		if err != nil {
			return err
		}
		defer rows.Close()
		v := make([]driver.Value, 9)
		for {
			switch err := rows.Next(v); {
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			}
			k, ok := keys[v[2].(int64)]
			if !ok {
				continue
			}
			p := results[v[3].(int64)]
			p.Key = k
			p.At = time.UnixMicro(v[0].(int64)*1000 + v[1].(int64))
			p.Phases = moments(v[4:8])
			p.Taken = p.End()
			if late, ok := v[8].(int64); ok {
				p.Taken = p.Taken.Add(time.Duration(late) * time.Microsecond)
			}
			if !yield(p, nil) {
				return nil
			}
		}
	})
}

// moments is the inverse of phases.
func moments(v []driver.Value) (p rank.Phases) {
	var at time.Duration
	for i, into := range []*time.Duration{&p.Connect, &p.TLS, &p.FirstByte, &p.Total} {
		if n, ok := v[i].(int64); ok {
			at += time.Duration(n) * time.Microsecond
			*into = at
		}
	}
	return p
}

// keys gives the endpoints that a filter wants, by id.
func (r *Reader) keys(ctx context.Context, f Filter) (map[int64]rank.Key, error) {
	keys := make(map[int64]rank.Key)
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			id   int64
			k    rank.Key
			addr string
		)
		err := scan(&id, &k.Name, &k.Candidate, &addr)
		if err == nil {
			k.Addr, err = netip.ParseAddr(addr)
		}
		keys[id] = k
		return err
	}, "SELECT id, name, candidate, address FROM endpoint WHERE ?1 IN ('', name) AND ?2 IN ('', candidate)",
		f.Name, f.Candidate)
	return keys, err
}

// results gives the results as samples without times, by id.
func (r *Reader) results(ctx context.Context) (map[int64]rank.Sample, error) {
	results := make(map[int64]rank.Sample)
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			id      int64
			outcome string
			p       rank.Sample
		)
		err := scan(&id, &outcome, &p.Status, &p.Try, &p.Final, &p.Delayed, &p.Detail)
		if err == nil {
			p.Outcome, err = rank.ParseOutcome(outcome)
		}
		results[id] = p
		return err
	}, "SELECT id, outcome, status, try, final, delayed, detail FROM result")
	return results, err
}

// span is the filter's time in milliseconds.
func (f Filter) span() (since, until int64) {
	until = 1 << 62
	if !f.Since.IsZero() {
		since = f.Since.UnixMilli()
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMilli()
	}
	return since, until
}
