package answer

import "hard/internal/wire"

// Action says what the caller of Table.Serve does next.
type Action uint8

// The actions.
const (
	Drop   Action = iota // say nothing
	Answer               // send buf[:Result.N]
	Ask                  // not answered here: forward the packet, which is unchanged. Result.Entry, if not nil, is the name's
	Wait                 // Hold: wait up to 1 s for another table, then call ServeNow with the unchanged packet
)

// Source is the value of the metrics' label for a reply made here.
type Source uint8

// The sources.
const (
	SourceLocal   Source = iota // a configured name
	SourceSpecial               // a special-use name
	SourceError                 // an error made here
)

// Result is the outcome of Table.Serve.
type Result struct {
	Entry  *Entry // the configured name's; nil if the name is not configured
	N      int    // length of the reply
	Slot   int    // of Entry; -1 if nil
	Owner  uint16 // offset in the packet of the name that owns the negative answer's SOA (for NoData)
	Action Action
	Source Source
}

// Entry is the precomputed answer of one name. Immutable.
type Entry struct {
	TTL  uint32 // seconds
	SVCB SVCB
	Idle bool // call Options.Asked with the slot
}

// Table maps names to precomputed replies. Immutable; any goroutine may read it.
type Table struct{}

// Index maps names to slots. Immutable, shared by the tables of one configuration.
type Index struct{}

// Change replaces the entry of one slot.
type Change struct {
	Slot  int
	Entry *Entry
}

// NewIndex gives every name (canonical text; "*.x" for a wildcard) the slot of its position. Two equal names are an
// error. The special-use names are added behind them, where they are not configured.
func NewIndex(names []string) (*Index, error) { panic("todo") }

// Build makes the precomputed replies of one name.
func Build(s *Spec) *Entry { panic("todo") }

// NewTable makes a table of one entry per slot; a nil entry: the name is forwarded as if it were not configured.
func NewTable(ix *Index, entries []*Entry) *Table { panic("todo") }

// With returns a table with some entries replaced. It copies only the slice of pointers.
func (t *Table) With(changes []Change) *Table { panic("todo") }

// Lookup finds the entry for a lower-case wire name: exact first, then the longest wildcard. slot is -1 if there is
// none or it is a special-use name.
func (t *Table) Lookup(key []byte) (e *Entry, slot int) { panic("todo") }

// Serve parses the packet buf[:n] into q and, where we answer ourselves, replaces it by the reply in buf. Otherwise
// buf is unchanged and q describes it. len(buf) must be at least wire.MaxUDP for UDP, and should be wire.MaxTCP for TCP
// (a reply never exceeds len(buf)). r belongs to the calling goroutine. No allocation.
func (t *Table) Serve(q *wire.Query, buf []byte, n int, tr wire.Transport, r *Rotor) Result {
	panic("todo")
}

// ServeNow is Serve, but a Hold set is answered as it is.
func (t *Table) ServeNow(q *wire.Query, buf []byte, n int, tr wire.Transport, r *Rotor) Result {
	panic("todo")
}

// NoData writes NOERROR without answer, with an SOA owned by the name at offset owner (Result.Owner), over the packet or
// reply in buf, whose first QEnd bytes must be the client's header and question, and returns its length.
// The forwarder uses it when upstream says NXDOMAIN for a configured name, or nothing of an SVCB answer is left.
func NoData(a *wire.Asked, buf []byte, owner uint16, ttl uint32, ede []byte, tr wire.Transport) int {
	panic("todo")
}

// Counters are the answers given per endpoint, for metrics.
type Counters struct{}

// NewRotor returns the rotation state and counters of one listener goroutine.
func (c *Counters) NewRotor() *Rotor { panic("todo") }

// Sum adds up what all rotors have counted; the index is the ID of SetSpec.IDs. Any goroutine may call it.
func (c *Counters) Sum() []uint64 { panic("todo") }

// Rotor is the rotation state of one listener: made by Counters.NewRotor, used by one goroutine at a time.
type Rotor struct{}
