package rank

import (
	"net/netip"
	"slices"
	"time"
)

// Kind says what kind of answer a decision gives for one family.
type Kind uint8

// The kinds of answers.
const (
	Normal   Kind = iota // the healthy selection
	Wait                 // no verdict yet: a query waits up to 1 s for one, then gets Selected (all)
	StaleAll             // on_all_down: all of them
	Stale                // on_all_down: those last selected while healthy
	Pass                 // on_all_down = forward
	Empty                // NODATA: no endpoint of this family in the winning tier, or on_all_down = nodata
	Fail                 // on_all_down = servfail
	NotReady             // no address known at all: wait up to 1 s, then SERVFAIL with EDE 14
)

// Answer is the selection for one address family.
type Answer struct {
	Kind     Kind
	Selected []int  // indexes into the endpoints given to Decide, best first; a group in file order
	Rotate   bool   // group: weighted rotation over Selected, by the endpoints' weights
	Tier     int    // the tier that won; meaningful for Normal
	Reason   Reason // why this selection, why it changed
}

// WithoutAddress is the answer of a name whose candidates were all looked up and have no address, which Decide can't
// tell from one that was not looked up yet. left: there were some.
func WithoutAddress(left bool) Answer {
	if left {
		return Answer{Kind: Empty, Reason: Reason{code: reasonLeft}}
	}
	return Answer{Kind: NotReady, Reason: Reason{code: reasonNoAddress}}
}

// Verdict tells what became of one endpoint in a decision and why.
type Verdict struct {
	Eligible bool
	Selected bool
	Rank     int           // 1 for the best of its family (best: the one selected); 0 when not eligible
	Latency  time.Duration // the smoothed estimate that ranked it; 0 when there is none
	Reason   Reason
}

// Decision is the answer for one name with every reason in it. Explain prints it; the engine
// builds the reply table from it. Immutable.
type Decision struct {
	At        time.Time
	Answers   [2]Answer // by Family
	Endpoints []Verdict // in the order of the endpoints given to Decide
	AllDown   bool      // on_all_down was applied
	Memory    Memory    // to be given to the next Decide of this name
	Next      time.Time // without new input nothing changes before this time; zero: never
}

// Memory is what one decision leaves for the next: the stickiness. The zero value remembers
// nothing. It refers to endpoints by address, which is unique within a name, and is plain data
// so that it can be stored and restored, as JSON too. Its slices are never changed in place.
type Memory struct {
	Families [2]FamilyMemory // by Family

	// Within are the endpoints inside max_latency: once in, out only beyond the limit and a margin.
	Within []netip.Addr `json:",omitempty"`

	// Settles is set while first verdicts are still to come: the first selection was made from
	// part of the endpoints, and until this time (hold after it) or the last first verdict
	// whoever is truly better takes over without waiting for hold.
	Settles time.Time `json:",omitzero"`
}

// FamilyMemory is the part of Memory that belongs to one family.
type FamilyMemory struct {
	Selected []netip.Addr `json:",omitempty"` // the present selection while healthy, as answered
	LastGood []netip.Addr `json:",omitempty"` // the last selection of kind Normal
	Placed   bool         `json:",omitempty"` // Tier is the tier that answers now
	Tier     int          `json:",omitempty"`
	Tiers    []TierWait   `json:",omitempty"` // lower tiers that wait out hold, lowest first
	Faster   []Challenger `json:",omitempty"` // best: who has been faster than the first of Selected
	Nearer   []Challenger `json:",omitempty"` // best with max_answers > 1: who, than the slowest other one
}

// Challenger is an endpoint that has been faster, by switch_ratio and switch_min, since a time.
type Challenger struct {
	Addr  netip.Addr
	Since time.Time
}

// TierWait is a tier that has had an eligible endpoint since a time.
type TierWait struct {
	Tier  int
	Since time.Time
}

// Equal tells whether both remember the same.
func (m *Memory) Equal(o *Memory) bool {
	return m.Families[V4].equal(&o.Families[V4]) && m.Families[V6].equal(&o.Families[V6]) &&
		slices.Equal(m.Within, o.Within) && m.Settles.Equal(o.Settles)
}

func (m *FamilyMemory) equal(o *FamilyMemory) bool {
	sameChallenger := func(a, b Challenger) bool { return a.Addr == b.Addr && a.Since.Equal(b.Since) }
	return m.Placed == o.Placed && m.Tier == o.Tier &&
		slices.Equal(m.Selected, o.Selected) && slices.Equal(m.LastGood, o.LastGood) &&
		slices.EqualFunc(m.Tiers, o.Tiers, func(a, b TierWait) bool { return a.Tier == b.Tier && a.Since.Equal(b.Since) }) &&
		slices.EqualFunc(m.Faster, o.Faster, sameChallenger) &&
		slices.EqualFunc(m.Nearer, o.Nearer, sameChallenger)
}
