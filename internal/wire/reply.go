package wire

// Match is what MatchReply thinks of a packet from an upstream.
type Match uint8

// The matches.
const (
	MatchNo         Match = iota // not the reply to this question: ignore it and wait on (R60, R61)
	MatchNoQuestion              // an error (rcode above 0) without question, as some servers send with FORMERR or NOTIMP
	MatchYes                     // QR set, opcode QUERY, exactly the question asked
)

// MatchReply compares header and question of msg with a question: name is in wire form, in any letter case, without
// compression. The caller has compared the ID (and the peer).
func MatchReply(msg, name []byte, qtype, class uint16) Match {
	if len(msg) < HeaderLen || msg[2]&0xF8 != 0x80 { // QR and opcode
		return MatchNo
	}
	if be16(msg[4:]) != 1 {
		if be16(msg[4:]) == 0 && be16(msg[2:])&maskRcode != 0 {
			return MatchNoQuestion
		}
		return MatchNo
	}
	end := HeaderLen + len(name)
	if len(msg) < end+4 || !EqualFold(msg[HeaderLen:end], name) ||
		be16(msg[end:]) != qtype || be16(msg[end+2:]) != class {
		return MatchNo
	}
	return MatchYes
}

// TypeSet says which record types a reply contains.
type TypeSet uint8

// The types that somebody looks for.
const (
	HasAddress TypeSet = 1 << iota // A or AAAA
	HasSVCB                        // SVCB or HTTPS
	HasSOA
	HasCNAME // CNAME or DNAME
	HasRRSIG
)

var typeSets = [...]TypeSet{
	TypeA: HasAddress, TypeAAAA: HasAddress, TypeSVCB: HasSVCB, TypeHTTPS: HasSVCB, TypeSOA: HasSOA,
	TypeCNAME: HasCNAME, TypeDNAME: HasCNAME, TypeRRSIG: HasRRSIG,
}

// NoTTL is Reply.MinTTL where there are no records.
const NoTTL = 1<<32 - 1

// Reply is one parsed reply of an upstream. Parse overwrites all of it.
type Reply struct {
	Flags  uint16    // of the header, rcode included
	Rcode  Rcode     // extended, if there is an OPT
	Counts [3]uint16 // answer, authority, additional (the OPT included)
	Types  TypeSet   // which types of interest are there
	QEnd   int       // offset behind the question; 12 without a question
	OPT    int       // offset of the OPT record; 0: none
	OPTLen int       // length of the OPT record, all of it
	End    int       // offset behind the last record
	MinTTL uint32    // smallest TTL of all records but the OPT (top bit set counts as 0, R65), or NoTTL
}

// Parse checks the whole of msg, which has one question or none: counts add up, every owner name and every name in
// RDATA of a type that may be compressed ends and points strictly backwards, A and AAAA have their length, there is at
// most one OPT, in the additional section, with root owner and whole options (R64). It allocates nothing; its work
// is bounded by some hundred steps per record. False: do not pass msg to anybody.
func (r *Reply) Parse(msg []byte) bool {
	if len(msg) < HeaderLen || len(msg) > MaxTCP {
		return false
	}
	*r = Reply{Flags: be16(msg[2:]), QEnd: HeaderLen, MinTTL: NoTTL}
	r.Rcode = Rcode(r.Flags & maskRcode)
	r.Counts = [3]uint16{count(msg, 1), count(msg, 2), count(msg, 3)}
	switch count(msg, 0) {
	case 0:
	case 1:
		if !r.question(msg) {
			return false
		}
	default:
		return false
	}
	off, ok := r.QEnd, true
	for section := range uint8(3) {
		for range r.Counts[section] {
			if off, ok = r.record(msg, section, off); !ok {
				return false
			}
		}
	}
	r.End = off
	return true
}

// question passes over the question, whose name must not be compressed.
func (r *Reply) question(msg []byte) bool {
	off := HeaderLen
	for off < len(msg) && msg[off] != 0 {
		if msg[off] > MaxLabel {
			return false
		}
		off += 1 + int(msg[off])
	}
	r.QEnd = off + 5
	return r.QEnd <= len(msg) && off < HeaderLen+MaxName
}

// record checks the record at off and returns the offset behind it.
func (r *Reply) record(msg []byte, section uint8, off int) (int, bool) {
	fixed, ok := r.owner(msg, off)
	if !ok || fixed+recordFixed > len(msg) {
		return 0, false
	}
	f := msg[fixed : fixed+recordFixed]
	rec := Record{Section: section, Type: be16(f), Class: be16(f[2:]), TTL: be32(f[4:]),
		Owner: off, Fixed: fixed, Data: fixed + recordFixed, Len: int(be16(f[8:]))}
	end := rec.Data + rec.Len
	if end > len(msg) {
		return 0, false
	}
	if rec.Type == TypeOPT {
		return end, r.opt(msg, &rec)
	}
	r.MinTTL = min(r.MinTTL, ttl(rec.TTL))
	if int(rec.Type) < len(typeSets) {
		r.Types |= typeSets[rec.Type]
	}
	return end, wholeData(msg, &rec)
}

// owner passes over an owner name. Nearly all are a pointer to the question, which has been checked.
func (r *Reply) owner(msg []byte, off int) (int, bool) {
	if off+2 <= len(msg) && msg[off] == 0xC0 && msg[off+1] == HeaderLen && r.QEnd > HeaderLen {
		return off + 2, true
	}
	return SkipName(msg, off)
}

func (r *Reply) opt(msg []byte, rec *Record) bool {
	if r.OPT != 0 || rec.Section != 2 || rec.Fixed != rec.Owner+1 {
		return false
	}
	r.OPT, r.OPTLen = rec.Owner, rec.Data+rec.Len-rec.Owner
	r.Rcode |= Rcode(rec.TTL >> 24 << 4)
	return wholeOptions(msg[rec.Data : rec.Data+rec.Len])
}

// FitOPT makes the OPT of buf[:r.End], the reply that r was parsed from, what the client is owed, in place: removed when
// the query had none; else size 1232, version 0, DO of the query, without the upstream's cookie, keepalive and
// padding (R28, R31, R32); appended if upstream sent none. ede (or nil) is added unless upstream sent an EDE.
// It returns the new length; 0, with nothing changed: the OPT stands before records whose names would break, use
// miekg/dns. r no longer describes the message then. len(buf) must be at least r.End + 11 + 6 + len(ede).
//
// A response code above 15 needs an OPT to be told; without one it becomes SERVFAIL.
func (r *Reply) FitOPT(buf []byte, a *Asked, ede []byte, tr Transport) int {
	if r.OPT == 0 {
		if r.End+a.SizeOfOPT(ede, tr) > MaxTCP {
			ede = nil
		}
		return a.AppendOPT(buf, r.End, r.Rcode, ede, tr)
	}
	e := optEdit{opt: r.OPT, optLen: r.OPTLen, end: r.End, qend: r.QEnd, do: a.DO}
	if !a.EDNS {
		n := e.remove(buf)
		if n != 0 && r.Rcode > maxRcode {
			put16(buf[2:], be16(buf[2:])&^maskRcode|uint16(ServFail))
		}
		return n
	}
	if ede != nil && hasOption(buf[r.OPT+optFixed:r.OPT+r.OPTLen], optionEDE) {
		ede = nil
	}
	var keepalive []byte
	var k [keepaliveLen]byte
	if a.keepalive(tr) {
		putKeepalive(k[:], tr)
		keepalive = k[:]
	}
	return e.apply(buf, ede, keepalive)
}

// Restore makes header and question of a reply the client's own: ID, letter case of the name, RD and CD as asked, RA
// set, Z clear, AD only if the query had AD or DO; AA, TC and the rcode stay (R3 to R7, R16). question is the client's
// question section (the bytes from offset 12 to QEnd); MatchReply has compared it.
func (a *Asked) Restore(reply, question []byte) {
	flags := be16(reply[2:])
	keep := FlagAA | FlagTC | maskRcode
	if a.DO || a.Flags&FlagAD != 0 {
		keep |= FlagAD
	}
	put16(reply, a.ID)
	put16(reply[2:], FlagQR|FlagRA|flags&keep|a.Flags&(FlagRD|FlagCD))
	copy(reply[HeaderLen:], question)
}
