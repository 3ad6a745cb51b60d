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
	"strconv"
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

// Samples gives the probes in the order of their start, which has the precision of a millisecond;
// those of one millisecond come in any order. The iteration ends with the first error.
func (r *Reader) Samples(ctx context.Context, f Filter) iter.Seq2[rank.Sample, error] {
	return func(yield func(rank.Sample, error) bool) {
		if err := r.samples(ctx, f, yield); err != nil {
			yield(rank.Sample{}, err)
		}
	}
}

func (r *Reader) samples(ctx context.Context, f Filter, yield func(rank.Sample, error) bool) error {
	conn, err := r.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// One transaction: a result that is made while we read must not be missing.
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	defer func() { _, _ = conn.ExecContext(context.Background(), "ROLLBACK") }()
	results, err := readResults(ctx, conn, f)
	if err != nil || len(results) == 0 {
		return err
	}
	return conn.Raw(func(c any) error {
		return eachProbe(ctx, c.(driver.QueryerContext), f, only(f, results), func(v []driver.Value) bool {
			result := results[v[1].(int64)]
			return result == nil || yield(sampleOf(v, result), nil)
		})
	})
}

// eachProbe reads through the driver itself: a day of 40 endpoints is 1.7 million rows, and
// database/sql would cost as much again as reading them. It ends when row gives false.
func eachProbe(ctx context.Context, c driver.QueryerContext, f Filter, which string, row func([]driver.Value) bool) error {
	since, until := f.span()
	rows, err := c.QueryContext(ctx, `SELECT at_ms, result, rest, connect, wait, late FROM probe
		WHERE at_ms >= ? AND at_ms < ?`+which+` ORDER BY at_ms`,
		[]driver.NamedValue{{Ordinal: 1, Value: since}, {Ordinal: 2, Value: until}})
	if err != nil {
		return err
	}
	defer rows.Close()
	v := make([]driver.Value, 6)
	for {
		switch err := rows.Next(v); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if !row(v) {
			return nil
		}
	}
}

// fewResults is how many results SQLite is told to look for; of more, most rows are wanted anyway.
const fewResults = 256

// only is the condition that leaves a few results, those of one endpoint say, so that the rows of all
// others need not leave SQLite: 10 ms instead of 50 for one endpoint's last hour among 40 endpoints.
func only(f Filter, results map[int64]*rank.Sample) string {
	if f.Name == "" || len(results) > fewResults {
		return ""
	}
	text := []byte(" AND result IN (")
	for id := range results {
		text = append(strconv.AppendInt(text, id, 10), ',')
	}
	text[len(text)-1] = ')'
	return string(text)
}

// sampleOf makes a sample of a row of eachProbe. It is the inverse of phases.
func sampleOf(v []driver.Value, result *rank.Sample) rank.Sample {
	part := func(i int) (time.Duration, bool) {
		n, ok := v[i].(int64)
		return time.Duration(n) * rank.Precision, ok
	}
	p := *result
	p.At = time.UnixMilli(v[0].(int64))
	p.Phases.Total, _ = part(2)
	if d, ok := part(3); ok {
		p.Phases.Connect = d
		p.Phases.Total += d
	}
	if d, ok := part(4); ok {
		p.Phases.FirstByte = p.Phases.Connect + d
		p.Phases.Total += d
	}
	late, _ := part(5)
	p.Taken = p.At.Add(p.Phases.Total + late)
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

// readResults gives the results that a filter wants, as samples without times, by id.
func readResults(ctx context.Context, q querier, f Filter) (map[int64]*rank.Sample, error) {
	results := make(map[int64]*rank.Sample)
	err := eachRow(ctx, q, func(scan func(...any) error) error {
		var (
			id            int64
			addr, outcome string
			p             rank.Sample
		)
		err := scan(&id, &p.Key.Name, &p.Key.Candidate, &addr, &outcome, &p.Status, &p.Try, &p.Final, &p.Delayed, &p.Detail)
		if err == nil {
			p.Key.Addr, err = netip.ParseAddr(addr)
		}
		if err == nil {
			p.Outcome, err = rank.ParseOutcome(outcome)
		}
		results[id] = &p
		return err
	}, `SELECT r.id, e.name, e.candidate, e.address, r.outcome, r.status, r.try, r.final, r.delayed, r.detail
		FROM result r JOIN endpoint e ON e.id = r.endpoint WHERE ?1 IN ('', e.name) AND ?2 IN ('', e.candidate)`,
		f.Name, f.Candidate)
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
