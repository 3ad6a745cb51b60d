package answer

import (
	"encoding/binary"

	"hard/internal/wire"
)

// Action says what the caller of Table.Serve does next.
type Action uint8

// The actions.
const (
	Drop   Action = iota // say nothing
	Answer               // send buf[:Result.N]
	Ask                  // forward the packet, which is unchanged; a Result.Entry has its wishes on the reply
	Wait                 // Hold: wait up to 1 s for another table, then call ServeNow with the unchanged packet
)

// Source says whose reply it is, for metrics.
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
	Slot   int    // of Entry; -1 without
	Owner  uint16 // offset in the packet of the name that owns a negative answer's SOA, for NoData
	Action Action
	Source Source
}

// Serve parses the packet buf[:n] into q and, where we answer ourselves, replaces it by the reply, in buf. Otherwise buf
// is unchanged and q describes it. len(buf) must be at least 512, and should be wire.MaxUDP or wire.MaxTCP: a reply
// never exceeds it. r belongs to the calling goroutine. Nothing is allocated (but see Rotor).
//
// Queries with a signature are REFUSED, as a forwarder that changes the ID would break it (R27); so are classes other
// than IN (R23) and zone transfers (R25).
func (t *Table) Serve(q *wire.Query, buf []byte, n int, tr wire.Transport, r *Rotor) Result {
	return t.serve(q, buf, n, tr, r, false)
}

// ServeNow is Serve, but a Hold set is answered as it is: SERVFAIL if it has no address.
func (t *Table) ServeNow(q *wire.Query, buf []byte, n int, tr wire.Transport, r *Rotor) Result {
	return t.serve(q, buf, n, tr, r, true)
}

func (t *Table) serve(q *wire.Query, buf []byte, n int, tr wire.Transport, r *Rotor, now bool) Result {
	if v := q.Parse(buf[:n]); v != wire.VerdictOK {
		res := Result{Slot: -1, Action: Drop}
		if res.N = Reject(q, v, buf, tr); res.N > 0 {
			res.Action, res.Source = Answer, SourceError
		}
		return res
	}
	if rcode, ede := unserved(q); rcode != wire.NoError {
		return Result{Slot: -1, Action: Answer, Source: SourceError, N: q.Error(buf, rcode, ede, tr)}
	}
	slot, matched := t.index.find(q.Hash, q.Name())
	if slot < 0 || t.entries[slot] == nil {
		return Result{Slot: -1, Action: Ask}
	}
	e := t.entries[slot]
	res := Result{Entry: e, Slot: slot, Owner: uint16(wire.HeaderLen + int(q.KeyLen) - matched), Action: Answer}
	if slot >= t.index.names {
		res.Entry, res.Slot, res.Source = nil, -1, SourceSpecial
	}
	switch q.Type {
	case wire.TypeA:
		t.family(&res, e, 0, q, buf, tr, r, now)
	case wire.TypeAAAA:
		t.family(&res, e, 1, q, buf, tr, r, now)
	default:
		other(&res, e, q, buf, tr)
	}
	return res
}

// family answers a query for addresses.
func (t *Table) family(res *Result, e *Entry, family int, q *wire.Query, buf []byte, tr wire.Transport, r *Rotor,
	now bool) {
	switch e.forms[family] {
	case formOne:
		res.N = e.one(family, q, buf, tr, r)
	case formSet:
		t.set(res, &e.rest.sets[family], family, q, buf, tr, r, now)
	default:
		rcode, ede := e.special.denial()
		res.N = negative(&q.Asked, buf, res.Owner, rcode, e.TTL, ede, tr)
	}
}

// The first eight bytes of an address record as a big-endian number: a pointer to the question's name, type, class, and
// the upper half of the TTL.
const (
	headA    = uint64(ownerIsName)<<48 | uint64(wire.TypeA)<<32 | uint64(wire.ClassIN)<<16
	headAAAA = uint64(ownerIsName)<<48 | uint64(wire.TypeAAAA)<<32 | uint64(wire.ClassIN)<<16
)

// one writes the reply with the one address. It always fits: it has 316 bytes at most.
func (e *Entry) one(family int, q *wire.Query, buf []byte, tr wire.Transport, r *Rotor) int {
	q.Header(buf, wire.FlagAA, wire.NoError, 1, 0)
	n := int(q.QEnd)
	if family == 0 {
		b := buf[n : n+sizeA]
		binary.BigEndian.PutUint64(b, headA|uint64(e.TTL>>16))
		binary.BigEndian.PutUint32(b[8:], e.TTL<<16|uint32(len(e.a)))
		*(*[len(e.a)]byte)(b[ownerFixed:]) = e.a
		n += sizeA
	} else {
		b := buf[n : n+sizeAAAA]
		binary.BigEndian.PutUint64(b, headAAAA|uint64(e.TTL>>16))
		binary.BigEndian.PutUint32(b[8:], e.TTL<<16|uint32(len(e.aaaa)))
		*(*[len(e.aaaa)]byte)(b[ownerFixed:]) = e.aaaa
		n += sizeAAAA
	}
	if id := e.ids[family]; id != uncounted {
		r.count(id)
	}
	return q.AppendOPT(buf, n, wire.NoError, nil, tr)
}

// set answers from a set.
func (t *Table) set(res *Result, s *set, family int, q *wire.Query, buf []byte, tr wire.Transport, r *Rotor, now bool) {
	switch {
	case s.kind == Forward:
		res.Action = Ask
	case s.kind == Hold && !now:
		res.Action = Wait
	case s.kind == ServFail, s.kind == Hold && s.count == 0: // an address nobody knows yet isn't one that doesn't exist
		res.N = q.Error(buf, wire.ServFail, s.ede, tr)
	case s.count == 0:
		res.N = NoData(&q.Asked, buf, res.Owner, res.Entry.TTL, s.ede, tr)
	default:
		first := 0
		if s.cycle != nil {
			first = int(s.cycle[r.turn(family, res.Slot, t.index.names, len(s.cycle))])
		}
		res.N = s.reply(first, q, buf, tr, r)
	}
}

// reply writes the records from the first on, as many as are wanted and fit. A reply with fewer is whole: nobody is
// owed all of them, so TC is not set (R39).
func (s *set) reply(first int, q *wire.Query, buf []byte, tr wire.Transport, r *Rotor) int {
	n, size, k := int(q.QEnd), int(s.size), int(s.max)
	if k == 0 {
		k = (wire.MinUDP - n) / size
	}
	k = min(k, int(s.count))
	ede := s.ede
	limit := min(q.Limit(tr), len(buf))
	if n+k*size+q.SizeOfOPT(ede, tr) > limit {
		ede = nil // addresses before explanations
		k = min(k, (limit-n-q.SizeOfOPT(nil, tr))/size)
	}
	q.Header(buf, wire.FlagAA, wire.NoError, uint16(k), 0)
	n += copy(buf[n:], s.records[first*size:(first+k)*size])
	if s.ids != nil {
		for _, id := range s.ids[first : first+k] {
			r.count(id)
		}
	}
	return q.AppendOPT(buf, n, wire.NoError, ede, tr)
}

// other answers or passes on a query for other types than addresses.
func other(res *Result, e *Entry, q *wire.Query, buf []byte, tr wire.Transport) {
	svcb := q.Type == wire.TypeSVCB || q.Type == wire.TypeHTTPS
	switch {
	case e.special >= nothing:
		rcode, ede := e.special.denial()
		res.N = negative(&q.Asked, buf, res.Owner, rcode, e.TTL, ede, tr)
	case q.Type == wire.TypeANY:
		res.N = minimalANY(q, buf, e.TTL, tr)
	case q.Type == wire.TypePTR && e.rest != nil && e.rest.ptr != nil:
		q.Header(buf, wire.FlagAA, wire.NoError, 1, 0)
		n := int(q.QEnd)
		n += copy(buf[n:], e.rest.ptr)
		res.N = q.AppendOPT(buf, n, wire.NoError, nil, tr)
	case e.special == hosts:
		res.N = NoData(&q.Asked, buf, res.Owner, e.TTL, nil, tr)
	case svcb && e.SVCB == SVCBNoData:
		res.N = NoData(&q.Asked, buf, res.Owner, e.TTL, edeNoSVCB, tr)
	default:
		res.Action = Ask
	}
}

// minimalANY answers ANY with the HINFO record of RFC 8482, section 4.2: upstream's addresses would pass by the ranking,
// and ours would be taken for all there is.
func minimalANY(q *wire.Query, buf []byte, ttl uint32, tr wire.Transport) int {
	const hinfo = "\x07RFC8482\x00"
	q.Header(buf, wire.FlagAA, wire.NoError, 1, 0)
	b := appendFixed(buf[:q.QEnd], ownerIsName, wire.TypeHINFO, ttl, len(hinfo))
	b = append(b, hinfo...)
	return q.AppendOPT(buf, len(b), wire.NoError, nil, tr)
}

// NoData writes NOERROR without answer, with an SOA owned by the name at offset owner (Result.Owner), over the packet or
// reply in buf, whose first QEnd bytes must be the client's header and question, and returns its length; len(buf)
// must be at least 512. The TTL, in seconds, is that of the SOA and its MINIMUM (R83; RFC 2308, section 5). The
// forwarder uses it when upstream says NXDOMAIN for a configured name, or nothing of an SVCB answer is left.
func NoData(a *wire.Asked, buf []byte, owner uint16, ttl uint32, ede []byte, tr wire.Transport) int {
	return negative(a, buf, owner, wire.NoError, ttl, ede, tr)
}

// soaData is the RDATA of our SOA records behind MNAME: RNAME nobody.invalid. (RFC 6303, section 3), serial,
// refresh, retry and expire; MINIMUM follows. Nobody transfers these zones: the numbers are customary ones.
const soaData = "\x06nobody\x07invalid\x00" + "\x00\x00\x00\x01" + "\x00\x00\x0e\x10" + "\x00\x00\x04\xb0" +
	"\x00\x09\x3a\x80"

// negative writes a reply without answer and with an SOA. It is at most 321 bytes without its OPT.
func negative(a *wire.Asked, buf []byte, owner uint16, rcode wire.Rcode, ttl uint32, ede []byte,
	tr wire.Transport) int {
	a.Header(buf, wire.FlagAA, rcode, 0, 1)
	pointer := 0xC000 | owner
	b := appendFixed(buf[:a.QEnd], pointer, wire.TypeSOA, ttl, 2+len(soaData)+4)
	b = binary.BigEndian.AppendUint16(b, pointer) // MNAME
	b = append(b, soaData...)
	b = binary.BigEndian.AppendUint32(b, ttl)
	if len(b)+a.SizeOfOPT(ede, tr) > min(a.Limit(tr), len(buf)) {
		ede = nil
	}
	return a.AppendOPT(buf, len(b), rcode, ede, tr)
}
