package store

import (
	"context"
	"time"
)

// What an override forces.
const (
	ForceState  = "state"
	ForceWeight = "weight"
)

// Override is what an operator forced on a name or a candidate.
type Override struct {
	Name      string
	Candidate string    // "": every candidate of the name
	What      string    // ForceState or ForceWeight
	Value     string    // up, down, drain; a weight like 50 or 50%; "" or auto takes it back
	At        time.Time // zero: now
	Until     time.Time // zero: until it is taken back
	Who, Why  string
}

// PutOverride stores an override, and does not return nil before it is safe on the disk, a power
// cut included. After an error it may or may not be stored.
func (s *Store) PutOverride(ctx context.Context, o Override) error {
	if o.At.IsZero() {
		o.At = s.o.Now()
	}
	return s.do(ctx, func(w *writer) error { return w.putOverride(&o) })
}

func (w *writer) putOverride(o *Override) error {
	// With FULL the commit syncs the -wal, and with it everything committed before.
	if err := w.exec("PRAGMA synchronous = FULL"); err != nil {
		return err
	}
	defer func() {
		if w.db != nil {
			_ = w.exec("PRAGMA synchronous = NORMAL") // else commits are only slower
		}
	}()
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.writeOverride(o); err != nil {
		return err
	}
	return w.commit()
}

func (w *writer) writeOverride(o *Override) error {
	if o.Value == "" || o.Value == "auto" {
		return w.exec("DELETE FROM override WHERE name = ? AND candidate = ? AND what = ?",
			o.Name, o.Candidate, o.What)
	}
	return w.exec(`INSERT OR REPLACE INTO override (name, candidate, what, value, at_ms, until_ms, who, why)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		o.Name, o.Candidate, o.What, o.Value, o.At.UnixMilli(), msOrNull(o.Until), o.Who, o.Why)
}
