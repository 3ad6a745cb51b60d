package store

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"hard/internal/rank"
)

// Event is one thing that happened. Key has as many fields set as the event is about: an
// endpoint, a candidate, a name, or nothing (the daemon).
type Event struct {
	At       time.Time
	Key      rank.Key
	Kind     string // state, selected, address, override, config, guard, start, stop, ...
	Old, New string
	Reason   string
	Who      string // the operator, where there was one
}

// AnswerChange is a new answer of one name and type.
type AnswerChange struct {
	At        time.Time
	Name      string
	Type      string       // "A" or "AAAA"
	Addresses []netip.Addr // best first; none: no address is answered
	Reason    string
	Decision  json.RawMessage // the whole decision; may be nil
	First     bool            // of a run: no change, and no row, where the last row has the same addresses
}

// Checkpoint is the ranking of one name as it was at a time; the past is explained from it.
type Checkpoint struct {
	At     time.Time
	Name   string
	Memory json.RawMessage
	Value  any // instead of Memory, when written: the writer makes JSON of it
}

// CurrentState is the present state of one endpoint, for the view `current` and a warm start.
type CurrentState struct {
	Key         rank.Key
	State       rank.State
	Override    rank.Override
	Tier        int
	Weight      int
	Rank        int // 1 for the best of its family; 0 when not eligible
	Selected    bool
	Latency     time.Duration // the estimate that ranks it; 0 when there is none
	Connect     time.Duration // the three estimates; 0 when there is none
	FirstByte   time.Duration
	Total       time.Duration
	LastOutcome rank.Outcome
	Since       time.Time // zero: never changed
	Checked     time.Time // start of the last probe that counted; zero: never probed
	Fingerprint uint64    // of the check that measured it
	Health      json.RawMessage
}

// Event queues an event. It is preferred to probes when the queue is full.
func (s *Store) Event(e Event) { s.add(&e) }

// Answer queues an answer change. It is preferred to probes when the queue is full.
func (s *Store) Answer(a AnswerChange) { s.add(&a) }

// Checkpoint queues checkpoints of names' rankings, to be written together.
func (s *Store) Checkpoint(c ...Checkpoint) { s.add(checkpointRows(c)) }

// PutConfig queues a configuration that is in force from now on. Its text is stored once for
// each hash.
func (s *Store) PutConfig(hash, text string) {
	s.add(&configRow{at: s.o.Now(), hash: hash, text: text})
}

// Put queues the present state of one endpoint; the newest wins.
func (s *Store) Put(c CurrentState) { s.put(stateKey(c.Key), &c) }

// Forget takes endpoints that no longer exist out of the view `current`; their history stays.
func (s *Store) Forget(keys ...rank.Key) {
	for _, k := range keys {
		s.put(stateKey(k), forgetRow(k))
	}
}

// PutMemory queues what the ranking of a name remembers; the newest wins.
func (s *Store) PutMemory(name string, memory json.RawMessage) {
	s.put(latestKey{table: "memory", name: name}, &memoryRow{at: s.o.Now(), name: name, memory: memory})
}

// PutAddresses queues the addresses of a candidate that is a host name; the newest wins, and none
// forgets the candidate.
func (s *Store) PutAddresses(name, candidate string, addrs []netip.Addr) {
	s.put(latestKey{table: "known_address", name: name, candidate: candidate},
		&addressRow{at: s.o.Now(), name: name, candidate: candidate, addrs: addrs})
}

// PutResolvers queues the upstreams last read from resolv.conf; the newest wins.
func (s *Store) PutResolvers(list []netip.AddrPort) {
	s.put(latestKey{table: "setting", name: "resolvers"}, resolversRow(list))
}

func stateKey(k rank.Key) latestKey {
	return latestKey{table: "endpoint_state", name: k.Name, candidate: k.Candidate, addr: k.Addr}
}

func (e *Event) kind() string { return "event" }
func (e *Event) write(w *writer) error {
	addr := ""
	if e.Key.Addr.IsValid() {
		addr = e.Key.Addr.String()
	}
	return w.exec(`INSERT INTO event (at_ms, name, candidate, address, kind, old, new, reason, who)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.At.UnixMilli(), e.Key.Name, e.Key.Candidate, addr, e.Kind, e.Old, e.New, e.Reason, e.Who)
}

func (a *AnswerChange) kind() string { return "answer" }
func (a *AnswerChange) write(w *writer) error {
	addrs := joinAddrs(a.Addresses)
	if a.First {
		var same bool
		err := w.one(&same, `SELECT addresses = ? FROM answer WHERE name = ? AND type = ? ORDER BY at_ms DESC, id DESC LIMIT 1`,
			addrs, a.Name, a.Type)
		if err != nil || same {
			return err
		}
	}
	return w.exec(`INSERT INTO answer (at_ms, name, type, addresses, reason, decision)
		VALUES (?, ?, ?, ?, ?, ?)`,
		a.At.UnixMilli(), a.Name, a.Type, addrs, a.Reason, textOrNull(a.Decision))
}

type checkpointRows []Checkpoint

func (r checkpointRows) kind() string { return "checkpoint" }
func (r checkpointRows) write(w *writer) error {
	for i := range r {
		c := &r[i]
		text := []byte(c.Memory)
		if c.Value != nil {
			var err error
			if text, err = json.Marshal(c.Value); err != nil {
				return err
			}
		}
		if err := w.exec(`INSERT OR REPLACE INTO checkpoint (at_ms, name, memory) VALUES (?, ?, ?)`,
			c.At.UnixMilli(), c.Name, string(text)); err != nil {
			return err
		}
	}
	return nil
}

type configRow struct {
	at         time.Time
	hash, text string
}

func (c *configRow) kind() string { return "config" }

// write does in three statements what one could, since each value of an expression is a copy of a text that may have a
// megabyte, and SQLite's allocator keeps what it once had.
func (c *configRow) write(w *writer) error {
	text, known := c.text, false
	if err := w.one(&known, "SELECT 1 FROM config WHERE hash = ? LIMIT 1", c.hash); err != nil {
		return err
	}
	if known {
		same := false
		if err := w.one(&same, "SELECT 1 FROM config WHERE hash = ? AND text = ? LIMIT 1", c.hash, text); err != nil {
			return err
		}
		if same {
			text = ""
		}
	}
	return w.exec("INSERT INTO config (at_ms, hash, text) VALUES (?, ?, ?)", c.at.UnixMilli(), c.hash, text)
}

func (c *CurrentState) kind() string { return "current" }
func (c *CurrentState) write(w *writer) error {
	id, err := w.endpoint(c.Key, !c.Checked.IsZero())
	if err != nil {
		return err
	}
	return w.exec(`INSERT OR REPLACE INTO endpoint_state
		(endpoint, state, override, tier, weight, rank, selected, latency_us, connect_us, first_byte_us,
		 total_us, last_outcome, since_ms, checked_ms, fingerprint, health)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, c.State.String(), c.Override.String(), c.Tier, c.Weight, c.Rank, c.Selected,
		usOrNull(c.Latency), usOrNull(c.Connect), usOrNull(c.FirstByte), usOrNull(c.Total),
		c.LastOutcome.String(), msOrNull(c.Since), msOrNull(c.Checked), int64(c.Fingerprint), textOrNull(c.Health))
}

type forgetRow rank.Key

func (f forgetRow) kind() string { return "current" }
func (f forgetRow) write(w *writer) error {
	return w.exec(`DELETE FROM endpoint_state WHERE endpoint =
		(SELECT id FROM endpoint WHERE name = ? AND candidate = ? AND address = ?)`,
		f.Name, f.Candidate, f.Addr.String())
}

type memoryRow struct {
	at     time.Time
	name   string
	memory json.RawMessage
}

func (m *memoryRow) kind() string { return "memory" }
func (m *memoryRow) write(w *writer) error {
	return w.exec(`INSERT OR REPLACE INTO memory (name, at_ms, memory) VALUES (?, ?, ?)`,
		m.name, m.at.UnixMilli(), string(m.memory))
}

type addressRow struct {
	at              time.Time
	name, candidate string
	addrs           []netip.Addr
}

func (a *addressRow) kind() string { return "address" }
func (a *addressRow) write(w *writer) error {
	if len(a.addrs) == 0 {
		return w.exec(`DELETE FROM known_address WHERE name = ? AND candidate = ?`, a.name, a.candidate)
	}
	return w.exec(`INSERT OR REPLACE INTO known_address (name, candidate, addresses, at_ms) VALUES (?, ?, ?, ?)`,
		a.name, a.candidate, joinAddrs(a.addrs), a.at.UnixMilli())
}

type resolversRow []netip.AddrPort

func (r resolversRow) kind() string { return "resolvers" }
func (r resolversRow) write(w *writer) error {
	texts := make([]string, len(r))
	for i, a := range r {
		texts[i] = a.String()
	}
	return w.set("resolvers", strings.Join(texts, " "))
}

func joinAddrs(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

func usOrNull(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return d.Microseconds()
}

func msOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

func textOrNull(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}
