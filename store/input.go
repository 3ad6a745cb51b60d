package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"hard/internal/rank"
)

// Input is something besides probes that decisions depended on. The store knows nothing of its
// data; together with probes and checkpoints the past is rebuilt from it.
type Input struct {
	At   time.Time // to the microsecond
	Kind string
	Data json.RawMessage
}

// Input queues an input. It is preferred to probes when the queue is full.
func (s *Store) Input(in Input) { s.add(&in) }

func (in *Input) kind() string { return "input" }
func (in *Input) write(w *writer) error {
	us := in.At.UnixMicro()
	return w.exec(`INSERT INTO input (at_ms, at_us, kind, data) VALUES (?, ?, ?, ?)`, us/1000, us%1000, in.Kind, string(in.Data))
}

// Inputs gives the inputs in the order in which they were made; the filter's name does not count.
func (r *Reader) Inputs(ctx context.Context, f Filter) ([]Input, error) {
	since, until := f.span()
	var all []Input
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var in Input
		var ms, us int64
		var data string
		err := scan(&ms, &us, &in.Kind, &data)
		in.At, in.Data = time.UnixMicro(ms*1000+us), json.RawMessage(data)
		all = append(all, in)
		return err
	}, "SELECT at_ms, at_us, kind, data FROM input WHERE at_ms >= ? AND at_ms < ? ORDER BY id", since, until)
	return all, err
}

// Extent says from when to when there is history.
type Extent struct {
	ProbesFrom time.Time // probes before it were deleted; zero: none were
	Written    time.Time // last commit
}

// Extent gives the extent of the history.
func (r *Reader) Extent(ctx context.Context) (Extent, error) {
	var from, written sql.NullInt64
	err := r.db.QueryRowContext(ctx, `SELECT (SELECT value FROM setting WHERE key = 'probes_from_ms'),
		(SELECT value FROM setting WHERE key = 'written_ms')`).Scan(&from, &written)
	return Extent{ProbesFrom: timeOf(from), Written: timeOf(written)}, err
}

// KindLost is the kind of the event that tells of rows that were dropped: they were of the time
// from Old to New (RFC 3339).
const KindLost = "lost"

// lost is the time that dropped rows were of, and how many they were.
type lost struct {
	from, to time.Time
	n        int
}

func (l *lost) add(from, to time.Time, n int) {
	if n == 0 {
		return
	}
	if l.n == 0 || from.Before(l.from) {
		l.from = from
	}
	if l.n == 0 || to.After(l.to) {
		l.to = to
	}
	l.n += n
}

func (l *lost) sample(p *rank.Sample) {
	to := p.Taken
	if to.IsZero() {
		to = p.End()
	}
	l.add(p.At, to, 1)
}

// row is called for a row that is no probe.
func (l *lost) row(r row) {
	at := time.Now()
	switch r := r.(type) {
	case *Input:
		at = r.At
	case *Event:
		at = r.At
	case *AnswerChange:
		at = r.At
	case checkpointRows:
		if len(r) > 0 {
			at = r[0].At
		}
	}
	l.add(at, at, 1)
}

func (l *lost) join(o lost) { l.add(o.from, o.to, o.n) }

// writeLost tells the readers of history of what isn't there.
func (w *writer) writeLost(l lost) error {
	if l.n == 0 {
		return nil
	}
	e := Event{
		At: l.from, Kind: KindLost, Old: l.from.UTC().Format(time.RFC3339Nano), New: l.to.UTC().Format(time.RFC3339Nano),
		Reason: fmt.Sprintf("%d rows could not be written", l.n),
	}
	return e.write(w)
}
