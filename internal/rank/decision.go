package rank

import (
	"net/netip"
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
	Selected []int  // indexes into the endpoints given to Decide, best first
	Rotate   bool   // group: weighted rotation over Selected, by the endpoints' weights
	Tier     int    // the tier that won; meaningful for Normal
	Reason   string // one line: why this selection, why it changed
}

// Verdict tells what became of one endpoint in a decision and why.
type Verdict struct {
	Eligible bool
	Selected bool
	Rank     int           // 1 for the best of its family in the answer's order; 0 when not eligible
	Latency  time.Duration // the smoothed estimate that ranked it; 0 when there is none
	Reason   string        // one line for a person
}

// Decision is the answer for one name with every reason in it. Explain prints it; the engine
// builds the reply table from it. Immutable.
type Decision struct {
	At        time.Time
	Answers   [2]Answer // by Family
	Endpoints []Verdict // in the order of the endpoints given to Decide
	AllDown   bool      // on_all_down was applied
	Memory    Memory    // to be given to the next Decide of this name
	Next      time.Time // without new input the decision may change at this time; zero: it can't
}

// Memory is what one decision leaves for the next: the stickiness. The zero value remembers
// nothing. It refers to endpoints by address, which is unique within a name, and is plain data
// so that it can be stored and restored.
type Memory struct {
	Families [2]FamilyMemory
}

// FamilyMemory is the part of Memory that belongs to one family.
type FamilyMemory struct {
	Selected   []netip.Addr        // the present selection while healthy; never changed in place
	LastGood   []netip.Addr        // last selection of kind Normal
	Tier       int                 // the tier of Selected
	TierSince  map[int]time.Time   // lower tiers waiting out hold: since when eligible
	Challenger netip.Addr          // best: who has been faster than the incumbent ...
	Since      time.Time           // ... since when
	In         map[netip.Addr]bool // endpoints inside max_latency or the group (hysteresis)
}
