package rank

import (
	"net/netip"
	"time"
)

// Outcome is what one probe found (contract, section 1).
type Outcome uint8

// The outcomes. Timeout, Unreachable and DNS are the soft ones: they may be the
// fault of this host's own network, and prove nothing about the candidate alone.
const (
	OK Outcome = iota
	Timeout
	Refused
	Reset
	Unreachable
	DNS
	TLS
	Status
	Body
	Protocol
	Aborted // ended by us (stop, reload); never counted
)

// State is the measured health of an endpoint.
type State uint8

// The states.
const (
	Unknown State = iota
	Healthy
	Unhealthy
)

// Override is what an operator forced on an endpoint; it never changes the measured State.
type Override uint8

// The overrides. Auto means none.
const (
	Auto Override = iota
	Up
	Down
	Drain
)

// Family is an address family of answers.
type Family uint8

// The families, usable as indexes.
const (
	V4 Family = iota // A
	V6               // AAAA
)

// Key names one endpoint: the thing that is probed and answered. One address is one endpoint
// per name. Name is the configured name in canonical text (lower case, A-labels, no final dot,
// a wildcard with its leading "*."); Candidate is the candidate's label; Addr is unmapped.
type Key struct {
	Name      string
	Candidate string
	Addr      netip.Addr
}

// Phases are the durations of one probe, each counted from the start of the connect
// (of the last try, where there were several). Zero means not reached.
type Phases struct {
	Connect   time.Duration // TCP connection established
	TLS       time.Duration // TLS handshake done
	FirstByte time.Duration // first byte of the reply
	Total     time.Duration // verdict reached
}

// Sample is the result of one probe of one endpoint. Immutable once sent.
type Sample struct {
	Key     Key
	At      time.Time // start of the probe; with a monotonic reading when live, none when replayed
	Outcome Outcome
	Status  int // HTTP status, exit code or DNS rcode; 0 where there is none
	Phases  Phases
	Detail  string // one line for a person; empty for OK
	Delayed bool   // our own process was late: recorded, but neither counted nor averaged
	Try     int    // 0, or the number of the extra try inside one probe ([check].retries)
	Final   bool   // false for a try that another one followed; only final samples are counted

	// Taken is when the engine took the sample into its state: the time of the decision that
	// follows, set by the engine and different for every sample.
	Taken time.Time
}

// Precision is what Taken and the phases of a sample have once the engine took it: the history
// keeps no more, and what is decided must follow from the history. At has a millisecond.
const Precision = 10 * time.Microsecond

// LatencyMode says which phase ranks an endpoint.
type LatencyMode uint8

// The latency modes.
const (
	LatencyTotal LatencyMode = iota
	LatencyConnect
	LatencyFirstByte
)

// SelectMode says how the selected endpoints are picked from the eligible ones.
type SelectMode uint8

// The selection modes.
const (
	Best SelectMode = iota
	Group
)

// AllDown is the policy when nothing is eligible (contract, section 5.5).
type AllDown uint8

// The all-down policies.
const (
	LastGood AllDown = iota
	All
	Forward
	NoData
	ServFail
)

// End is when the verdict of the probe was reached.
func (s *Sample) End() time.Time { return s.At.Add(s.Phases.Total) }

// Counted tells whether the sample counts towards rise, fall and latency. Tries that another one
// followed, probes that we ended ourselves and probes that our own process delayed do not.
func (s *Sample) Counted() bool {
	return s.Final && !s.Delayed && s.Outcome != Aborted
}

// Policy is the selection policy of one name. It is immutable and shared; times are durations,
// 0 means off where the contract says so.
type Policy struct {
	Select      SelectMode
	Latency     LatencyMode
	GroupWithin time.Duration
	MaxLatency  time.Duration
	SwitchRatio float64
	SwitchMin   time.Duration
	Hold        time.Duration
	Apart       bool // families = "apart"
	MaxAnswers  int
	OnAllDown   AllDown
	MinHealthy  int
}

// Pace is the schedule and the thresholds of one endpoint's probes.
type Pace struct {
	Interval     time.Duration
	FastInterval time.Duration
	IdleInterval time.Duration
	BackoffMax   time.Duration
	Timeout      time.Duration
	Rise, Fall   int
}

// Endpoint is what Decide needs to know of one endpoint. The slice order is file order, then
// address order; it breaks ties.
type Endpoint struct {
	Key      Key
	Tier     int
	Weight   int
	Override Override
	Gone     bool    // the address is no longer in DNS (kept in its grace): never chosen by on_all_down
	Health   *Health // read only; nil counts as unknown
}
