package answer

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync/atomic"

	"hard/internal/wire"
)

// Entry is the precomputed answer of one name. Immutable.
//
// It is one line of the processor's cache, and has all that most names need: at most one address of each family and
// nothing special about it. With 10,000 names in random order what a look-up costs is the lines it waits for.
type Entry struct {
	TTL  uint32 // seconds; the forwarder caps the TTLs of a Forward set with it
	SVCB SVCB
	Idle bool // call Options.Asked with the slot

	special specialKind
	forms   [2]form   // of A, AAAA
	ids     [2]uint32 // counter of the one address; uncounted: there is none
	a       [4]byte
	aaaa    [16]byte
	rest    *rest // nil if no form is formSet and nothing is special
	_       [cacheLine - 48]byte
}

const cacheLine = 64

// form says where the answer of a family is.
type form uint8

const (
	formNone form = iota // there is none: NODATA
	formOne              // one address, in the Entry
	formSet              // in rest.sets
)

// uncounted is the counter of an address that has none.
const uncounted = 1<<32 - 1

// rest is what few entries have.
type rest struct {
	ptr  []byte // special-use names only: the one PTR record
	sets [2]set // A, AAAA
}

// set is the answer for one family. The records are whole (owner: a pointer to the question) and all of one size. For
// rotation they are there twice, but for the last, so that any run of them is one piece.
type set struct {
	records []byte
	ids     []uint32 // of each record in records; nil = not counted
	ede     []byte   // the option, whole; nil = none
	cycle   []uint16 // where the reply starts, in turn; nil = always with the first
	count   uint16   // of different records
	max     uint16   // per reply; 0 = as many as fit 512 bytes
	size    uint8    // of a record in bytes
	kind    Kind
}

// The sizes of address records with a compressed owner.
const (
	ownerFixed  = 12 // owner pointer, type, class, TTL, RDLENGTH
	sizeA       = ownerFixed + 4
	sizeAAAA    = ownerFixed + 16
	ownerIsName = 0xC000 | wire.HeaderLen // pointer to the question's name
)

// Build makes the precomputed replies of one name. Addresses of the wrong family are left out.
func Build(s *Spec) *Entry {
	e := &Entry{TTL: s.TTL, SVCB: s.SVCB, Idle: s.Idle}
	e.add(&s.Sets[0], wire.TypeA)
	e.add(&s.Sets[1], wire.TypeAAAA)
	return e
}

// add makes the answer for one family, in the entry itself if it fits.
func (e *Entry) add(s *SetSpec, rrtype uint16) {
	family := familyOf(rrtype)
	addrs := s.Addrs
	if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().Is6() != (family == 1) }) {
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Unmap().Is6() != (family == 1) })
	}
	if s.Kind == Reply && s.EDE == NoEDE && len(addrs) <= 1 {
		if len(addrs) == 0 {
			return
		}
		e.forms[family], e.ids[family] = formOne, uncounted
		if len(s.IDs) == 1 && len(s.Addrs) == 1 {
			e.ids[family] = s.IDs[0]
		}
		if family == 0 {
			e.a = addrs[0].Unmap().As4()
		} else {
			e.aaaa = addrs[0].As16()
		}
		return
	}
	if e.rest == nil {
		e.rest = new(rest)
	}
	e.forms[family] = formSet
	e.rest.sets[family] = buildSet(s, addrs, rrtype, e.TTL)
}

// Addrs returns the addresses of the answer for a family (0: A, 1: AAAA), best first; nil where there are none.
func (e *Entry) Addrs(family int) []netip.Addr {
	switch e.forms[family] {
	case formOne:
		if family == 0 {
			return []netip.Addr{netip.AddrFrom4(e.a)}
		}
		return []netip.Addr{netip.AddrFrom16(e.aaaa)}
	case formSet:
		s := &e.rest.sets[family]
		var addrs []netip.Addr
		for record := range slices.Chunk(s.records[:int(s.count)*int(s.size)], int(s.size)) {
			a, _ := netip.AddrFromSlice(record[ownerFixed:])
			addrs = append(addrs, a)
		}
		return addrs
	}
	return nil
}

func familyOf(rrtype uint16) int {
	if rrtype == wire.TypeAAAA {
		return 1
	}
	return 0
}

// buildSet makes the set of s, whose addresses of the right family are addrs.
func buildSet(s *SetSpec, addrs []netip.Addr, rrtype uint16, ttl uint32) set {
	n := len(addrs)
	whole := n == len(s.Addrs) // IDs and weights are in step with the addresses
	rotate := n > 1 && len(s.Weights) == n && whole
	out := set{kind: s.Kind, max: uint16(max(0, min(s.Max, 1<<16-1))), size: sizeA, count: uint16(n)}
	if rrtype == wire.TypeAAAA {
		out.size = sizeAAAA
	}
	copies := n
	if rotate {
		copies = 2*n - 1
	}
	out.records = make([]byte, 0, copies*int(out.size))
	for _, a := range addrs {
		out.records = appendAddr(out.records, a.Unmap(), rrtype, ttl)
	}
	if len(s.IDs) == n && whole {
		out.ids = append(make([]uint32, 0, copies), s.IDs...)
	}
	if rotate {
		out.records = append(out.records, out.records[:(n-1)*int(out.size)]...)
		if out.ids != nil {
			out.ids = append(out.ids, out.ids[:n-1]...)
		}
		out.cycle = cycle(s.Weights)
	}
	if s.EDE != NoEDE {
		out.ede = edeOption(uint16(s.EDE), s.EDEText)
	}
	return out
}

// edeOption makes an extended error's option, or finds it: thousands of names have the same one when a start or an
// outage makes them, so that the last is kept.
func edeOption(code uint16, text string) []byte {
	last := lastEDE.Load()
	if last == nil || last.code != code || last.text != text {
		last = &sharedEDE{code: code, text: text, option: wire.EDEOption(code, text)}
		lastEDE.Store(last)
	}
	return last.option
}

var lastEDE atomic.Pointer[sharedEDE]

// sharedEDE is immutable.
type sharedEDE struct {
	code   uint16
	text   string
	option []byte
}

// appendAddr appends one address record whose owner is the question's name.
func appendAddr(b []byte, a netip.Addr, rrtype uint16, ttl uint32) []byte {
	data := a.AsSlice()
	b = appendFixed(b, ownerIsName, rrtype, ttl, len(data))
	return append(b, data...)
}

// appendFixed appends a record up to its RDATA of length n.
func appendFixed(b []byte, owner, rrtype uint16, ttl uint32, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, owner)
	b = binary.BigEndian.AppendUint16(b, rrtype)
	b = binary.BigEndian.AppendUint16(b, wire.ClassIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	return binary.BigEndian.AppendUint16(b, uint16(n))
}

// maxCycle bounds the length of a rotation: 8 KiB a set. Weights whose reduced sum is above are rounded to it, an error
// of at most one part in maxCycle for each.
const maxCycle = 4096

// cycle lays out a smooth weighted round robin (as nginx has it): over one length of it, wherever it starts, position i
// comes exactly weights[i] (over their greatest common divisor) times, spread as evenly as can be. All weights
// are positive; there are at most 65535.
func cycle(weights []int) []uint16 {
	w, total := reduced(weights)
	current := make([]int, len(w))
	out := make([]uint16, 0, total)
	for range total {
		best := 0
		for i := range current {
			current[i] += w[i]
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		out = append(out, uint16(best))
	}
	return out
}

// reduced divides weights by their greatest common divisor and bounds their sum.
func reduced(weights []int) (w []int, total int) {
	divisor := 0
	for _, x := range weights {
		divisor = gcd(divisor, max(x, 1))
	}
	w = make([]int, len(weights))
	for i, x := range weights {
		w[i] = max(x, 1) / divisor
		total += w[i]
	}
	if total <= maxCycle {
		return w, total
	}
	sum := 0
	for i, x := range w {
		w[i] = max(1, int(float64(x)/float64(total)*maxCycle+0.5))
		sum += w[i]
	}
	return w, sum
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
