package engine

import (
	"net/netip"
	"time"

	"hard/internal/rank"
)

// Event is one thing that happened, for the history. Key has as many fields set as the event is
// about: an endpoint, a candidate, a name, or nothing (the daemon).
type Event struct {
	At       time.Time
	Key      rank.Key
	Kind     string // state, address, all_down, override, weight, guard
	Old, New string
	Reason   string
	Who      string // the operator, where there was one
}

// AnswerChange is a new answer of one name and family.
type AnswerChange struct {
	At        time.Time
	Name      string
	Family    rank.Family
	Addresses []netip.Addr
	Reason    string
	First     bool // of this run: an earlier run's last may have been the same
	Same      bool // the addresses are those of before: another reason, kind or weight
}

// EndpointState is the present state of one endpoint, for the history and for a warm start.
type EndpointState struct {
	Key         rank.Key
	Fingerprint uint64 // of the check that measured it
	Tier        int
	Weight      int
	Override    rank.Override
	Rank        int
	Selected    bool
	Latency     time.Duration // the estimate that ranks it; 0 when there is none
	Health      rank.Health
}

// Saved is what an earlier run left behind. The zero value is a cold start.
type Saved struct {
	Endpoints map[rank.Key]SavedEndpoint
	Memories  map[string]rank.Memory
	Addresses map[HostKey][]netip.Addr
	Overrides []Override

	Live bool // it is of this moment: a running instance hands it over. Then no age is too high
}

// Cold is what of it holds for a cold start: what operators forced is nothing that was measured, and which
// endpoints there were is needed to forget those that are no more.
func (s Saved) Cold() Saved {
	c := Saved{Overrides: s.Overrides, Live: s.Live, Endpoints: make(map[rank.Key]SavedEndpoint, len(s.Endpoints))}
	for k := range s.Endpoints {
		c.Endpoints[k] = SavedEndpoint{} // no check has its fingerprint
	}
	return c
}

// SavedEndpoint is the stored health of one endpoint.
type SavedEndpoint struct {
	Health      rank.Health
	Fingerprint uint64
	At          time.Time // when it was last measured
}
