// Package answer holds immutable, precomputed DNS replies of the configured names and of the special-use names.
//
// The slow side makes entries (Build) and tables (NewTable, Table.With) of them; the fast side, the listeners, asks
// Table.Serve, which parses a packet and replaces it in place by the reply, or says what else to do with it. Tables,
// indexes and entries never change once made and may be shared by all goroutines. What changes while serving, the
// rotation and the counters, is in a Rotor, one per listener goroutine.
//
// Policy (which addresses, in which order) is not decided here but in package rank; the wire format is package wire's.
package answer

import "net/netip"

// Kind says how a query for one family of a configured name is served.
type Kind uint8

// The kinds.
const (
	Reply    Kind = iota // the addresses given; none: NODATA with an SOA
	Hold                 // not ready yet: wait up to 1 s for another table, then the addresses given; none: SERVFAIL
	Forward              // on_all_down = forward: ask upstream, TTLs capped at Spec.TTL
	ServFail             // SERVFAIL, with EDE
)

// NoEDE as a SetSpec's EDE means that the reply carries no Extended DNS Error.
const NoEDE = -1

// SetSpec is the answer for one family.
type SetSpec struct {
	Kind    Kind
	Addrs   []netip.Addr // best first
	IDs     []uint32     // counter of each address in Counters (dense, chosen by the owner); nil = not counted
	Weights []int        // non-nil: weighted rotation over Addrs (same length, all > 0)
	Max     int          // addresses per reply; 0 = as many as fit 512 bytes without OPT
	EDE     int          // RFC 8914 info code, or NoEDE
	EDEText string       // for the operator; may be empty
}

// SVCB says what happens to SVCB and HTTPS queries for a name.
type SVCB uint8

// The SVCB policies.
const (
	SVCBStrip SVCB = iota
	SVCBForward
	SVCBNoData
)

// Spec is everything the front end needs to know of one configured name.
type Spec struct {
	Name string // canonical text; "*.x" for a wildcard
	TTL  uint32 // seconds
	SVCB SVCB
	Idle bool       // tell the owner when somebody asks (Options.Asked)
	Sets [2]SetSpec // A, AAAA
}
