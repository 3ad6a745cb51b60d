package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"hard/internal/rank"
)

// Rollup is what became of one endpoint in a minute or an hour.
type Rollup struct {
	At                 time.Time
	Width              time.Duration
	Key                rank.Key
	N, OK              int
	Min, P50, P95, Max time.Duration // of the ok ones; 0 when there were none
}

// Names gives the names that the history knows, in order.
func (r *Reader) Names(ctx context.Context) ([]string, error) {
	var all []string
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		all = append(all, name)
		return err
	}, "SELECT DISTINCT name FROM endpoint ORDER BY name")
	return all, err
}

// Events gives the events in order of time.
func (r *Reader) Events(ctx context.Context, f Filter) ([]Event, error) {
	since, until := f.span()
	var all []Event
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			e    Event
			at   int64
			addr string
		)
		err := scan(&at, &e.Key.Name, &e.Key.Candidate, &addr, &e.Kind, &e.Old, &e.New, &e.Reason, &e.Who)
		if err == nil && addr != "" {
			e.Key.Addr, err = netip.ParseAddr(addr)
		}
		e.At = time.UnixMilli(at)
		all = append(all, e)
		return err
	}, `SELECT at_ms, name, candidate, address, kind, old, new, reason, who FROM event
		WHERE at_ms >= ?1 AND at_ms < ?2 AND ?3 IN ('', name) AND ?4 IN ('', candidate) ORDER BY at_ms, id`,
		since, until, f.Name, f.Candidate)
	return all, err
}

// Answers gives the answer changes in order of time. With a Since, the last change before it of
// each name and type comes first: it is what was answered at Since.
func (r *Reader) Answers(ctx context.Context, f Filter) ([]AnswerChange, error) {
	since, until := f.span()
	var all []AnswerChange
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			a        AnswerChange
			at       int64
			addrs    string
			decision sql.NullString
		)
		err := scan(&at, &a.Name, &a.Type, &addrs, &a.Reason, &decision)
		a.At, a.Addresses = time.UnixMilli(at), parseAddrs(addrs)
		if decision.Valid {
			a.Decision = json.RawMessage(decision.String)
		}
		all = append(all, a)
		return err
	}, `WITH span(since, until, name) AS (VALUES (?1, ?2, ?3)),
		before(id) AS (
			SELECT (SELECT a.id FROM answer a WHERE a.name = n.name AND a.type = n.type AND a.at_ms < ?1
			         ORDER BY a.at_ms DESC, a.id DESC LIMIT 1)
			  FROM (SELECT DISTINCT name, type FROM answer WHERE ?3 IN ('', name)) n)
		SELECT at_ms, name, type, addresses, reason, decision FROM answer
		 WHERE id IN before OR (at_ms >= ?1 AND at_ms < ?2 AND ?3 IN ('', name))
		 ORDER BY at_ms, id`, since, until, f.Name)
	return all, err
}

// ConfigText gives the text of a configuration by its hash, as last stored; "" if it is not known. A text may have a
// megabyte, and there may be one for each reload.
func (r *Reader) ConfigText(ctx context.Context, hash string) (text string, err error) {
	err = r.db.QueryRowContext(ctx, "SELECT text FROM config WHERE hash = ? AND text <> '' ORDER BY id DESC LIMIT 1", hash).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return text, err
}

// Checkpoints gives the stored rankings in order of time.
func (r *Reader) Checkpoints(ctx context.Context, f Filter) ([]Checkpoint, error) {
	since, until := f.span()
	var all []Checkpoint
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			c      Checkpoint
			at     int64
			memory string
		)
		err := scan(&at, &c.Name, &memory)
		c.At, c.Memory = time.UnixMilli(at), json.RawMessage(memory)
		all = append(all, c)
		return err
	}, `SELECT at_ms, name, memory FROM checkpoint WHERE at_ms >= ?1 AND at_ms < ?2 AND ?3 IN ('', name)
		ORDER BY at_ms`, since, until, f.Name)
	return all, err
}

// Endpoints gives the present state of every endpoint, by name, candidate and address.
func (r *Reader) Endpoints(ctx context.Context, f Filter) ([]CurrentState, error) {
	var all []CurrentState
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		c, err := scanState(scan)
		all = append(all, c)
		return err
	}, selectStates+" WHERE ?1 IN ('', e.name) AND ?2 IN ('', e.candidate) ORDER BY e.name, e.candidate, e.address",
		f.Name, f.Candidate)
	return all, err
}

// Overrides gives the overrides that are stored, expired ones that were not deleted yet included.
func (r *Reader) Overrides(ctx context.Context) ([]Override, error) {
	var all []Override
	err := eachRow(ctx, r.db, func(scan func(...any) error) error {
		o, err := scanOverride(scan)
		all = append(all, o)
		return err
	}, selectOverrides+" ORDER BY name, candidate, what")
	return all, err
}

// Rollups gives minutes, and hours where the minutes are gone, in order of time.
func (r *Reader) Rollups(ctx context.Context, f Filter) ([]Rollup, error) {
	keys, err := r.keys(ctx, f)
	if err != nil {
		return nil, err
	}
	since, until := f.span()
	var all []Rollup
	err = eachRow(ctx, r.db, func(scan func(...any) error) error {
		var (
			u                    Rollup
			at, width, endpoint  int64
			least, p50, p95, top sql.NullInt64
		)
		err := scan(&at, &width, &endpoint, &u.N, &u.OK, &least, &p50, &p95, &top)
		k, wanted := keys[endpoint]
		if err != nil || !wanted {
			return err
		}
		u.At, u.Width, u.Key = time.UnixMilli(at), time.Duration(width)*time.Second, k
		u.Min, u.P50, u.P95, u.Max = us(least), us(p50), us(p95), us(top)
		all = append(all, u)
		return nil
	}, `SELECT at_ms, 3600, endpoint, n, ok, min_us, p50_us, p95_us, max_us FROM rollup_hour
		 WHERE at_ms >= ?1 AND at_ms < min(?2, ifnull((SELECT value FROM setting WHERE key = 'hours_until_ms'), 0))
		UNION ALL
		SELECT at_ms, 60, endpoint, n, ok, min_us, p50_us, p95_us, max_us FROM rollup_minute
		 WHERE at_ms >= ?1 AND at_ms < ?2 ORDER BY 1, 3`, since, until)
	return all, err
}
