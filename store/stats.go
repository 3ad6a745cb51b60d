package store

import (
	"time"
)

// State says how the store does.
type State string

// The states. Only in StateOK does history reach the disk.
const (
	StateStarting State = "starting" // the database is being opened for the first time
	StateOff      State = "off"      // no path is configured
	StateOK       State = "ok"
	StateBusy     State = "busy"    // somebody else holds the database's write lock
	StateLocked   State = "locked"  // another instance of ours owns it
	StateFull     State = "full"    // no space left
	StateFailed   State = "failed"  // it can't be opened, read or written
	StateRefused  State = "refused" // it is not ours, or a newer version's
	StateHeld     State = "held"    // a reader keeps the -wal from being emptied: no probes are written
)

// Stats is how the store does, at one instant.
type Stats struct {
	State       State
	Reason      string            // why State is not StateOK; for people
	Queued      int               // rows that wait in memory
	Dropped     map[string]uint64 // rows lost, by kind: probe, event, answer, ...
	Written     uint64            // rows committed
	WriteErrors uint64            // transactions that failed
	SizeBytes   int64             // of the file and its -wal
	LastCommit  time.Time         // zero: none yet
}

// Stats tells how the store does. It never waits for the disk.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := s.stats
	s.mu.Unlock()
	st.Queued, st.Dropped = s.queue.counts()
	return st
}

// become notes the state and logs it when it is another one.
func (w *writer) become(state State, reason string) {
	w.s.mu.Lock()
	old := w.s.stats.State
	w.s.stats.State, w.s.stats.Reason = state, reason
	w.s.mu.Unlock()
	if old == state {
		return
	}
	switch {
	case state == StateOK && old == StateStarting, state == StateOff:
		w.log.Debug("history", "database", w.s.o.Path, "state", state)
	case state == StateOK:
		w.log.Info("history is written again", "database", w.s.o.Path)
	default:
		w.log.Warn("no history is written until this ends; answers are not affected",
			"database", w.s.o.Path, "state", state, "reason", reason)
	}
}

// committed counts what one transaction wrote.
func (w *writer) committed(rows int, at time.Time) {
	w.s.mu.Lock()
	w.s.stats.Written += uint64(rows)
	w.s.stats.LastCommit = at
	w.s.mu.Unlock()
}
