package engine

import "time"

// idlePhase is how far a name is on its way to being idle.
type idlePhase uint8

const (
	idleActive  idlePhase = iota // asked for of late; the table doesn't tell us of queries
	idleWatched                  // the next query is told to us; probed at the usual pace
	idleSlow                     // nobody asked for idle_after: probed at idle_interval
)

// idleState watches whether anybody asks for a name, without a word from the listeners while it
// is busy: for idle_after/8 queries go unseen, then the table entry is marked so that the next
// one is told (Engine.Asked), and when none came for idle_after the name is idle. So a name is
// called idle between 1 and 1 1/8 of idle_after after its last query.
type idleState struct {
	phase idlePhase
	at    time.Time // end of the phase; zero: it doesn't end by itself
}

func (s *idleState) reset(after time.Duration, now time.Time) {
	*s = idleState{}
	if after > 0 {
		s.at = now.Add(after / 8)
	}
}

func (s *idleState) next() time.Time { return s.at }

func (s *idleState) tick(after time.Duration, now time.Time) {
	if s.at.IsZero() || now.Before(s.at) {
		return
	}
	switch s.phase {
	case idleActive:
		s.phase, s.at = idleWatched, now.Add(after)
	case idleWatched:
		s.phase, s.at = idleSlow, time.Time{}
	}
}
