package wire

import "encoding/binary"

// Query is one parsed query. It is meant to be used again and again by one goroutine; Parse overwrites all of it.
type Query struct {
	Asked
	KeyLen  uint16 // octets of Key in use
	OPT     uint16 // offset of the OPT record; 0: none
	OPTLen  uint16 // length of the OPT record, all of it
	End     uint16 // offset behind the last record; what follows is never passed on (R14)
	Version uint8  // of EDNS
	Signed  bool   // TSIG or SIG(0) among the additional records (R27)
	Extra   bool   // there are records other than OPT, TSIG and SIG(0) (R13)
	Hash    uint64 // Hash(Name())

	// Key holds the question's name on the wire, in lower case, uncompressed, in its first KeyLen octets. The rest
	// is undefined.
	Key [256]byte
}

// Name returns the key: the question's name in lower-case wire form, root label included. It is valid until the
// next Parse.
func (q *Query) Name() []byte { return q.Key[:q.KeyLen] }

// Verdict is what Query.Parse thinks of a packet.
type Verdict uint8

// The verdicts. All but VerdictOK and VerdictDrop are answered with Asked.Error and the Rcode of Verdict.Rcode.
const (
	VerdictOK      Verdict = iota
	VerdictDrop            // silence: under 12 bytes (R11) or a response (R9)
	VerdictFormErr         // the question is echoed if Asked.QEnd is not 0
	VerdictNotImp          // opcode other than QUERY (R8); nothing of the body is echoed
	VerdictBadVers         // EDNS version above 0 (R29)
)

var verdictRcodes = [...]Rcode{
	VerdictOK: NoError, VerdictDrop: NoError, VerdictFormErr: FormErr, VerdictNotImp: NotImp, VerdictBadVers: BadVers,
}

// Rcode returns the response code that answers the verdict. It is meaningless for VerdictDrop.
func (v Verdict) Rcode() Rcode { return verdictRcodes[v] }

// Options says which EDNS options a query carried.
type Options uint8

// The options that somebody acts on; all others are ignored (R31).
const (
	HasECS Options = 1 << iota
	HasCookie
	HasKeepalive
	HasPadding
)

// The last eight bytes of a header: QDCOUNT is 1, and ARCOUNT is the only other count that may be above 0.
const (
	oneQuestion    = uint64(1) << 48
	oneQuestionOPT = oneQuestion | 1
)

// Parse fills q from msg, which it does not keep or change; msg has at most 65535 bytes. It allocates nothing, and
// its work is bounded by the length of msg. Whatever the verdict, ID and Flags are right if msg has a header; Type,
// Class, Key and Hash are right if QEnd is not 0; EDNS, DO, Size and Options are right if an OPT was found at all, so
// that errors carry one too (RFC 6891, section 7).
func (q *Query) Parse(msg []byte) Verdict {
	if len(msg) < HeaderLen || len(msg) > MaxTCP {
		return VerdictDrop
	}
	q.Asked = Asked{ID: be16(msg), Flags: be16(msg[2:]), Size: MinUDP}
	q.KeyLen, q.OPT, q.OPTLen, q.End = 0, 0, 0, 0
	q.Version, q.Signed, q.Extra = 0, false, false
	if q.Flags&FlagQR != 0 {
		return VerdictDrop
	}
	counts := binary.BigEndian.Uint64(msg[4:])
	if q.Flags&maskOpcode != 0 {
		q.findOPT(msg, int(counts>>48))
		return VerdictNotImp
	}
	if counts>>48 != 1 {
		q.findOPT(msg, int(counts>>48))
		return VerdictFormErr
	}
	off := q.question(msg)
	if off == 0 {
		return VerdictFormErr
	}
	switch {
	case counts == oneQuestion:
		q.End = uint16(off)
		return VerdictOK
	case counts == oneQuestionOPT && off+3 <= len(msg) && msg[off] == 0 && be16(msg[off+1:]) == TypeOPT:
		end, v := q.opt(msg, off, off+1)
		q.End = uint16(end)
		return v
	}
	return q.records(msg, off)
}

// question reads the question at offset 12 and returns the offset behind it; 0 if it is broken. A compression
// pointer there could only point into the header, so there is none (R12).
func (q *Query) question(msg []byte) int {
	off := HeaderLen
	for {
		if off >= len(msg) {
			return 0
		}
		l := int(msg[off])
		off++
		if l == 0 {
			break
		}
		if l > MaxLabel {
			return 0
		}
		off += l
	}
	if off+4 > len(msg) || off > HeaderLen+MaxName {
		return 0
	}
	q.Type, q.Class = be16(msg[off:]), be16(msg[off+2:])
	q.setKey(msg, off)
	q.QEnd = uint16(off + 4)
	return off + 4
}

// setKey copies the name msg[12:end] to the key in lower case and hashes it, eight octets at a time. Lengths of labels
// are below 'A', so they need no care.
func (q *Query) setKey(msg []byte, end int) {
	n := end - HeaderLen
	h := hashSeed(n)
	i := 0
	for ; i+8 <= n; i += 8 {
		w := lower8(binary.LittleEndian.Uint64(msg[HeaderLen+i:]))
		binary.LittleEndian.PutUint64(q.Key[i:], w)
		h = hashWord(h, w)
	}
	if rest := n - i; rest > 0 {
		// The eight bytes that end with the name begin in the header at the earliest.
		w := lower8(binary.LittleEndian.Uint64(msg[end-8:]) >> (64 - 8*rest))
		binary.LittleEndian.PutUint64(q.Key[i:], w)
		h = hashWord(h, w)
	}
	q.KeyLen, q.Hash = uint16(n), h
}

// opt reads the OPT record whose owner is at off and whose type is at fixed. It returns the offset behind the record,
// which is right if the verdict is not VerdictFormErr.
func (q *Query) opt(msg []byte, off, fixed int) (int, Verdict) {
	q.EDNS = true
	if fixed+recordFixed > len(msg) {
		return off, VerdictFormErr
	}
	q.Size = max(be16(msg[fixed+2:]), MinUDP)
	q.Version = msg[fixed+5]
	q.DO = be16(msg[fixed+6:])&optDO != 0
	data := fixed + recordFixed
	end := data + int(be16(msg[fixed+8:]))
	if end > len(msg) {
		return off, VerdictFormErr
	}
	q.OPT, q.OPTLen = uint16(off), uint16(end-off)
	if q.Version != 0 {
		return end, VerdictBadVers // the format of its options is not known
	}
	if data == end {
		return end, VerdictOK
	}
	return end, q.options(msg[data:end])
}

// options notes the options of an OPT's RDATA. A malformed cookie is FORMERR (RFC 7873, section 5.2.2).
func (q *Query) options(b []byte) Verdict {
	for len(b) > 0 {
		if len(b) < 4 {
			return VerdictFormErr
		}
		code, n := be16(b), int(be16(b[2:]))
		if n > len(b)-4 {
			return VerdictFormErr
		}
		switch code {
		case optionECS:
			q.Options |= HasECS
		case optionCookie:
			if n != 8 && (n < 16 || n > 40) {
				return VerdictFormErr
			}
			q.Options |= HasCookie
		case optionKeepalive:
			q.Options |= HasKeepalive
		case optionPadding:
			q.Options |= HasPadding
		}
		b = b[4+n:]
	}
	return VerdictOK
}

// records walks the records behind the question of an unusual query.
func (q *Query) records(msg []byte, off int) Verdict {
	verdict := VerdictOK
	for section := range 3 {
		for range count(msg, section+1) {
			fixed, ok := SkipName(msg, off)
			if !ok || fixed+recordFixed > len(msg) {
				return VerdictFormErr
			}
			data := fixed + recordFixed
			end := data + int(be16(msg[fixed+8:]))
			switch v := q.record(msg, section, off, fixed); {
			case v == VerdictFormErr || end > len(msg):
				return VerdictFormErr
			case v == VerdictBadVers:
				verdict = v
			}
			off = end
		}
	}
	q.End = uint16(off)
	return verdict
}

// record looks at one record whose owner is at off and whose type is at fixed. All its fixed fields are there, its
// RDATA perhaps not.
func (q *Query) record(msg []byte, section, off, fixed int) Verdict {
	switch be16(msg[fixed:]) {
	case TypeOPT:
		again := q.EDNS
		_, v := q.opt(msg, off, fixed)
		if again || section != 2 || fixed != off+1 {
			return VerdictFormErr // twice, misplaced, or not owned by the root (R30)
		}
		return v
	case TypeTSIG:
		q.Signed = true
	case TypeSIG:
		// SIG(0) covers no type (RFC 2931, section 3).
		if data := fixed + recordFixed; section == 2 && data+2 <= len(msg) && be16(msg[data:]) == 0 {
			q.Signed = true
		} else {
			q.Extra = true
		}
	default:
		q.Extra = true
	}
	return VerdictOK
}

// findOPT looks for an OPT behind none or several questions, or whatever another opcode has in their place, only to
// answer with one (R8, R10, R28). If the body is of another form, none is found.
func (q *Query) findOPT(msg []byte, questions int) {
	off := HeaderLen
	for range questions {
		end, ok := SkipName(msg, off)
		if !ok || end+4 > len(msg) {
			return
		}
		off = end + 4
	}
	q.records(msg, off)
}

// ForwardOPT makes buf, which starts with the packet that q was parsed from, fit for an upstream, in place: the bytes behind the
// last record go (R14), an OPT says 1232 and loses its cookie, keepalive and padding options (R31, R34), and its
// unknown flags. It returns the new length; 0: names behind the OPT are compressed against names behind it, answer
// FORMERR. It changes q.End and q.OPTLen accordingly.
func (q *Query) ForwardOPT(buf []byte) int {
	if q.OPT == 0 {
		return int(q.End)
	}
	e := optEdit{opt: int(q.OPT), optLen: int(q.OPTLen), end: int(q.End), qend: int(q.QEnd), do: q.DO}
	end := e.apply(buf, nil, nil)
	if end != 0 {
		q.OPTLen -= q.End - uint16(end)
		q.End = uint16(end)
	}
	return end
}
