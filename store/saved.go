package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"hard/internal/rank"
)

// Saved is what the last run left. Its times are the wall clock's of then: a reader must take
// those in the future for old ones.
type Saved struct {
	Endpoints map[rank.Key]CurrentState
	Memories  map[string]Memory // by name
	Addresses map[CandidateKey]Addresses
	Overrides []Override // those still in force
	Resolvers []netip.AddrPort
	Stopped   time.Time // last clean stop; zero: there was none
	Written   time.Time // last commit, which is later than Stopped after a crash
	ClockBack bool      // the clock is behind the last commit: what is stored can't be dated
}

// Memory is what the ranking of a name remembered, as PutMemory got it.
type Memory struct {
	At     time.Time
	Memory json.RawMessage
}

// CandidateKey names a candidate.
type CandidateKey struct{ Name, Candidate string }

// Addresses are the last known addresses of a candidate that is a host name.
type Addresses struct {
	At        time.Time
	Addresses []netip.Addr
}

// Load reads what the last run left. It waits for the first attempt to open the database, but not for
// a migration, and no longer than ctx. With an error, Saved is empty and not nil.
func (s *Store) Load(ctx context.Context) (*Saved, error) {
	got := newSaved()
	err := s.wait(ctx, call{f: func(w *writer) error { return w.load(got) }, early: true})
	if err != nil {
		return newSaved(), err // got may still be written to
	}
	return got, nil
}

func newSaved() *Saved {
	return &Saved{
		Endpoints: make(map[rank.Key]CurrentState),
		Memories:  make(map[string]Memory),
		Addresses: make(map[CandidateKey]Addresses),
	}
}

// stampSlack is how far behind the last commit the clock may be without being called set back.
const stampSlack = time.Minute

func (w *writer) load(s *Saved) error {
	now := w.s.o.Now()
	for _, f := range []func() error{
		func() error { return w.loadSettings(s) },
		func() error { return w.loadEndpoints(s) },
		func() error { return w.loadMemories(s) },
		func() error { return w.loadAddresses(s) },
		func() error { return w.loadOverrides(s, now) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	s.ClockBack = s.Written.After(now.Add(stampSlack))
	return nil
}

// each reads the rows of a query; scan is sql.Rows.Scan.
func (w *writer) each(row func(scan func(...any) error) error, text string, args ...any) error {
	return eachRow(context.Background(), w.conn, row, text, args...)
}

type querier interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

func eachRow(ctx context.Context, q querier, row func(scan func(...any) error) error, text string, args ...any) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (w *writer) loadSettings(s *Saved) error {
	var resolvers string
	var stopped, written sql.NullInt64
	for key, into := range map[string]any{"resolvers": &resolvers, "stopped_ms": &stopped, "written_ms": &written} {
		if err := w.one(into, "SELECT value FROM setting WHERE key = ?", key); err != nil {
			return err
		}
	}
	s.Stopped, s.Written = timeOf(stopped), timeOf(written)
	for _, text := range strings.Fields(resolvers) {
		if a, err := netip.ParseAddrPort(text); err == nil {
			s.Resolvers = append(s.Resolvers, a)
		}
	}
	return nil
}

const selectStates = `SELECT e.name, e.candidate, e.address, s.state, s.override, s.tier, s.weight, s.rank,
	s.selected, s.latency_us, s.connect_us, s.first_byte_us, s.total_us, s.last_outcome, s.since_ms,
	s.checked_ms, s.fingerprint, s.health
	FROM endpoint_state s JOIN endpoint e ON e.id = s.endpoint`

// scanState reads a row of selectStates.
func scanState(scan func(...any) error) (c CurrentState, err error) {
	var (
		addr, state, override, outcome                     string
		latency, connect, firstByte, total, since, checked sql.NullInt64
		fingerprint                                        int64
		health                                             sql.NullString
	)
	err = scan(&c.Key.Name, &c.Key.Candidate, &addr, &state, &override, &c.Tier, &c.Weight, &c.Rank,
		&c.Selected, &latency, &connect, &firstByte, &total, &outcome, &since, &checked, &fingerprint, &health)
	if err != nil {
		return c, err
	}
	if c.Key.Addr, err = netip.ParseAddr(addr); err != nil {
		return c, err
	}
	if c.State, err = rank.ParseState(state); err != nil {
		return c, err
	}
	if c.Override, err = rank.ParseOverride(override); err != nil {
		return c, err
	}
	if c.LastOutcome, err = rank.ParseOutcome(outcome); err != nil {
		return c, err
	}
	c.Latency, c.Connect, c.FirstByte, c.Total = us(latency), us(connect), us(firstByte), us(total)
	c.Since, c.Checked, c.Fingerprint = timeOf(since), timeOf(checked), uint64(fingerprint)
	if health.Valid {
		c.Health = json.RawMessage(health.String)
	}
	return c, nil
}

// loadEndpoints skips rows that it does not understand: they are a cold start for one endpoint.
func (w *writer) loadEndpoints(s *Saved) error {
	return w.each(func(scan func(...any) error) error {
		if c, err := scanState(scan); err == nil {
			s.Endpoints[c.Key] = c
		}
		return nil
	}, selectStates)
}

func (w *writer) loadMemories(s *Saved) error {
	return w.each(func(scan func(...any) error) error {
		var name, memory string
		var at sql.NullInt64
		err := scan(&name, &at, &memory)
		s.Memories[name] = Memory{At: timeOf(at), Memory: json.RawMessage(memory)}
		return err
	}, "SELECT name, at_ms, memory FROM memory")
}

func (w *writer) loadAddresses(s *Saved) error {
	return w.each(func(scan func(...any) error) error {
		var k CandidateKey
		var texts string
		var at sql.NullInt64
		err := scan(&k.Name, &k.Candidate, &texts, &at)
		s.Addresses[k] = Addresses{At: timeOf(at), Addresses: parseAddrs(texts)}
		return err
	}, "SELECT name, candidate, addresses, at_ms FROM known_address")
}

func (w *writer) loadOverrides(s *Saved, now time.Time) error {
	return w.each(func(scan func(...any) error) error {
		o, err := scanOverride(scan)
		s.Overrides = append(s.Overrides, o)
		return err
	}, selectOverrides+" WHERE until_ms IS NULL OR until_ms > ?", now.UnixMilli())
}

const selectOverrides = "SELECT name, candidate, what, value, at_ms, until_ms, who, why FROM override"

func scanOverride(scan func(...any) error) (o Override, err error) {
	var at, until sql.NullInt64
	err = scan(&o.Name, &o.Candidate, &o.What, &o.Value, &at, &until, &o.Who, &o.Why)
	o.At, o.Until = timeOf(at), timeOf(until)
	return o, err
}

func us(n sql.NullInt64) time.Duration { return time.Duration(n.Int64) * time.Microsecond }

func timeOf(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64)
}

func parseAddrs(texts string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range strings.Fields(texts) {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
