package rank

import (
	"slices"
	"time"
)

// GuardState is what a guard knows, as plain data, so that the past can be rebuilt from a
// checkpoint. What Configure was told is not part of it.
type GuardState struct {
	Phase    GuardPhase     `json:",omitempty"`
	Since    time.Time      `json:",omitzero"`
	Proof    time.Time      `json:",omitzero"`
	Heard    time.Time      `json:",omitzero"`
	Cleared  time.Time      `json:",omitzero"`
	Seek     time.Time      `json:",omitzero"`
	Sought   time.Time      `json:",omitzero"`
	Polled   time.Time      `json:",omitzero"`
	Missing  []MissingState `json:",omitempty"` // those without a proof first, oldest first
	Unproven int            `json:",omitempty"` // how many of them
	Execute  []Key          `json:",omitempty"`
}

// MissingState is one endpoint in a soft failure streak.
type MissingState struct {
	Key       Key
	FirstMiss time.Time
	Proof     time.Time `json:",omitzero"`
	Held      bool      `json:",omitempty"`
	Single    bool      `json:",omitempty"`
}

// State copies what the guard knows.
func (g *Guard) State() GuardState {
	s := GuardState{
		Phase: g.phase, Since: g.since, Proof: g.proof, Heard: g.heard, Cleared: g.cleared,
		Seek: g.seek, Sought: g.sought, Polled: g.polled,
		Unproven: len(g.unproven), Execute: slices.Clone(g.execute),
	}
	add := func(m *missing) {
		s.Missing = append(s.Missing, MissingState{m.key, m.firstMiss, m.proof, m.held, m.single})
	}
	for _, m := range g.unproven {
		add(m)
	}
	for _, m := range g.missing {
		if !slices.Contains(g.unproven, m) {
			add(m)
		}
	}
	return s
}

// Restore makes the guard know what the state says. Configure must have been called.
func (g *Guard) Restore(s *GuardState) {
	g.phase, g.since, g.proof, g.heard, g.cleared = s.Phase, s.Since, s.Proof, s.Heard, s.Cleared
	g.seek, g.sought, g.polled, g.execute = s.Seek, s.Sought, s.Polled, slices.Clone(s.Execute)
	g.missing, g.unproven, g.holding, g.waiting = nil, nil, 0, 0
	for i, v := range s.Missing {
		if g.missing == nil {
			g.missing = make(map[Key]*missing)
		}
		m := &missing{key: v.Key, firstMiss: v.FirstMiss, proof: v.Proof, held: v.Held, single: v.Single}
		g.missing[m.key] = m
		if i < s.Unproven {
			g.unproven = append(g.unproven, m)
		}
		if m.held {
			g.holding++
		}
		if m.held && m.proof.IsZero() {
			g.waiting++
		}
	}
}
