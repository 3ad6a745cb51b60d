package wire

// Record is one record of a message, by offsets.
type Record struct {
	Section uint8 // 0 answer, 1 authority, 2 additional
	Type    uint16
	Class   uint16
	TTL     uint32 // as on the wire
	Owner   int    // offset of the owner name
	Fixed   int    // offset of the type; the TTL is at Fixed+4
	Data    int    // offset of RDATA
	Len     int    // octets of RDATA
}

// Records walks the records of a message that Reply.Parse or Query.Parse has found whole. On others it ends early.
type Records struct {
	msg     []byte
	off     int
	section uint8
	left    uint16 // records of the section still to come
}

// WalkRecords starts at the first record behind the question, which ends at qend (12 without a question).
func WalkRecords(msg []byte, qend int) Records {
	return Records{msg: msg, off: qend, left: count(msg, 1)}
}

// Next fills rec with the next record, the OPT included; false at the end.
func (w *Records) Next(rec *Record) bool {
	for w.left == 0 {
		if w.section == 2 {
			return false
		}
		w.section++
		w.left = count(w.msg, 1+int(w.section))
	}
	w.left--
	fixed := w.behindOwner()
	if fixed == 0 || fixed+recordFixed > len(w.msg) {
		w.section, w.left = 2, 0
		return false
	}
	f := w.msg[fixed : fixed+recordFixed]
	*rec = Record{
		Section: w.section, Type: be16(f), Class: be16(f[2:]), TTL: be32(f[4:]),
		Owner: w.off, Fixed: fixed, Data: fixed + recordFixed, Len: int(be16(f[8:])),
	}
	if rec.Data+rec.Len > len(w.msg) {
		w.section, w.left = 2, 0
		return false
	}
	w.off = rec.Data + rec.Len
	return true
}

// behindOwner passes over an owner name without following its pointer; 0 at the end of the message.
func (w *Records) behindOwner() int {
	for off := w.off; off < len(w.msg); {
		switch c := w.msg[off]; {
		case c == 0:
			return off + 1
		case c >= 0xC0:
			return off + 2
		default:
			off += 1 + int(c)
		}
	}
	return 0
}

// CapTTLs lowers every TTL of a whole reply (but not the OPT's field) to at most limit seconds; one with the top bit
// set counts as 0 (R65).
func CapTTLs(msg []byte, qend int, limit uint32) {
	var rec Record
	for w := WalkRecords(msg, qend); w.Next(&rec); {
		if rec.Type != TypeOPT {
			put32(msg[rec.Fixed+4:], min(ttl(rec.TTL), limit))
		}
	}
}

// AgeTTLs lowers every TTL of a whole reply by age seconds, but not below floor unless it was below already.
func AgeTTLs(msg []byte, qend int, age, floor uint32) {
	var rec Record
	for w := WalkRecords(msg, qend); w.Next(&rec); {
		if rec.Type == TypeOPT {
			continue
		}
		t := ttl(rec.TTL)
		put32(msg[rec.Fixed+4:], max(t-min(age, t), min(floor, t)))
	}
}

// ttl is a TTL as RFC 2181, section 8, reads it: 31 bits, the top bit set means 0.
func ttl(v uint32) uint32 {
	if v > 1<<31-1 {
		return 0
	}
	return v
}

// layout says where names are in the RDATA of a type.
type layout struct {
	prefix uint8 // octets before the first name
	names  uint8
	suffix int8 // octets behind the last name; -1: any number
}

// layouts are the types whose names may be compressed (RFC 3597, section 4), or begin RDATA that clients read. The
// names of all other types are passed as they are. NAPTR's name, behind three strings, is found by nameOffset.
var layouts = [...]layout{
	2: {0, 1, 0}, 3: {0, 1, 0}, 4: {0, 1, 0}, TypeCNAME: {0, 1, 0}, TypeSOA: {0, 2, 20}, 7: {0, 1, 0}, 8: {0, 1, 0},
	9: {0, 1, 0}, TypePTR: {0, 1, 0}, 14: {0, 2, 0}, TypeMX: {2, 1, 0}, 17: {0, 2, 0}, 18: {2, 1, 0}, 21: {2, 1, 0},
	TypeSIG: {18, 1, -1}, 26: {2, 2, 0}, 30: {0, 1, -1}, TypeSRV: {6, 1, 0}, typeNAPTR: {4, 1, 0}, 36: {2, 1, 0},
	TypeDNAME: {0, 1, 0}, TypeRRSIG: {18, 1, -1}, 47: {0, 1, -1}, TypeSVCB: {2, 1, -1}, TypeHTTPS: {2, 1, -1},
}

const typeNAPTR = 35

// nameOffset returns the offset of the first name in RDATA of that layout; past the end if there is no room.
func nameOffset(msg []byte, rec *Record, l layout) int {
	off, end := rec.Data+int(l.prefix), rec.Data+rec.Len
	if rec.Type == typeNAPTR {
		for range 3 {
			if off >= end {
				return end + 1
			}
			off += 1 + int(msg[off])
		}
	}
	return off
}

// wholeData checks the RDATA of a record of class IN: addresses have their length, and names end where they must.
// Other classes have types of their own and pass.
func wholeData(msg []byte, rec *Record) bool {
	switch {
	case rec.Class != ClassIN:
		return true
	case rec.Type == TypeA:
		return rec.Len == 4
	case rec.Type == TypeAAAA:
		return rec.Len == 16
	case int(rec.Type) >= len(layouts) || layouts[rec.Type].names == 0:
		return true
	}
	l := layouts[rec.Type]
	off, end, ok := nameOffset(msg, rec, l), rec.Data+rec.Len, true
	for range l.names {
		if off, ok = SkipName(msg[:end], off); !ok {
			return false
		}
	}
	return l.suffix < 0 || off+int(l.suffix) == end
}
