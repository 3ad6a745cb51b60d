package wire

// Asked is what a reply must know of its query: small, without pointers, to be kept by whoever answers later.
type Asked struct {
	ID      uint16
	Flags   uint16 // the header's flags as the client sent them
	Type    uint16
	Class   uint16
	QEnd    uint16  // offset behind the question; 0: there is none that can be echoed
	Size    uint16  // the client's UDP payload size, never below 512; 512 without OPT (R33)
	EDNS    bool    // the query has an OPT, so the reply has one (R28)
	DO      bool    // DNSSEC OK (RFC 3225)
	Options Options // of the OPT
}

// Transport is what a reply must know of the way it takes.
//
// Padding (RFC 7830) is accepted and never answered with padding: our transports are not encrypted, and RFC 7830,
// section 6, and RFC 8467 keep padding to those that are.
type Transport struct {
	TCP       bool
	Keepalive uint16 // idle timeout told to TCP clients that ask (RFC 7828), in units of 100 ms; 0 = not told
}

// Limit is the most bytes that a reply may have (R33, R38, R42).
func (a *Asked) Limit(tr Transport) int {
	if tr.TCP {
		return MaxTCP
	}
	return int(min(a.Size, MaxUDP))
}

// Header writes the header of a reply: the query's ID, opcode, RD and CD, QR and RA set, Z and AD clear, and flags
// (FlagAA, FlagTC) besides (R1 to R6). QDCOUNT is 1 if QEnd is not 0, else 0; ARCOUNT is 0 until AppendOPT.
func (a *Asked) Header(buf []byte, flags uint16, rcode Rcode, answers, authorities uint16) {
	_ = buf[11]
	put16(buf, a.ID)
	put16(buf[2:], FlagQR|FlagRA|flags|a.Flags&(maskOpcode|FlagRD|FlagCD)|uint16(rcode)&maskRcode)
	questions := uint32(1)
	if a.QEnd == 0 {
		questions = 0
	}
	put32(buf[4:], questions<<16|uint32(answers))
	put32(buf[8:], uint32(authorities)<<16)
}

// Error writes a reply without records into buf: header, question (if QEnd is not 0) and OPT (if the query had one).
// buf[:QEnd] must hold the query's header and question; the packet the query was parsed from does, or a copy of
// its first QEnd bytes. len(buf) must be at least 512. ede is an option made by EDEOption, or nil; it is sent only
// with an OPT and if it fits. AA and AD are clear. A response code above 15 is SERVFAIL where there is no OPT to tell it.
// The length of the reply is returned.
func (a *Asked) Error(buf []byte, rcode Rcode, ede []byte, tr Transport) int {
	return a.empty(buf, 0, rcode, ede, tr)
}

// Truncated writes, like Error, a reply of header, question and OPT with TC set (R38).
func (a *Asked) Truncated(buf []byte, rcode Rcode, tr Transport) int {
	return a.empty(buf, FlagTC, rcode, nil, tr)
}

func (a *Asked) empty(buf []byte, flags uint16, rcode Rcode, ede []byte, tr Transport) int {
	if rcode > maxRcode && !a.EDNS {
		rcode = ServFail
	}
	a.Header(buf, flags, rcode, 0, 0)
	n := max(int(a.QEnd), HeaderLen)
	if n+a.SizeOfOPT(ede, tr) > min(a.Limit(tr), len(buf)) {
		ede = nil
	}
	return a.AppendOPT(buf, n, rcode, ede, tr)
}

// SizeOfOPT is the number of bytes that AppendOPT will add.
func (a *Asked) SizeOfOPT(ede []byte, tr Transport) int {
	if !a.EDNS {
		return 0
	}
	n := optFixed + len(ede)
	if a.keepalive(tr) {
		n += keepaliveLen
	}
	return n
}

// AppendOPT writes the OPT that the query is owed at buf[n:], counts it in ARCOUNT, and returns the new length;
// without an OPT in the query it returns n. The OPT says version 0, size 1232, DO as asked, the high bits of rcode,
// ede if not nil, and keepalive over TCP if asked for. There must be SizeOfOPT bytes of room.
func (a *Asked) AppendOPT(buf []byte, n int, rcode Rcode, ede []byte, tr Transport) int {
	if !a.EDNS {
		return n
	}
	put16(buf[10:], be16(buf[10:])+1)
	o := buf[n : n+optFixed]
	o[0] = 0
	put16(o[1:], TypeOPT)
	put16(o[3:], MaxUDP)
	o[5] = byte(rcode >> 4)
	o[6] = 0
	put16(o[7:], doFlag(a.DO))
	n += optFixed
	start := n
	n += copy(buf[n:], ede)
	if a.keepalive(tr) {
		n += putKeepalive(buf[n:], tr)
	}
	put16(o[9:], uint16(n-start))
	return n
}

func (a *Asked) keepalive(tr Transport) bool {
	return tr.TCP && tr.Keepalive != 0 && a.Options&HasKeepalive != 0
}

// keepaliveLen is the length of an edns-tcp-keepalive option with its timeout (RFC 7828, section 3.1).
const keepaliveLen = 6

func putKeepalive(b []byte, tr Transport) int {
	put16(b, optionKeepalive)
	put16(b[2:], 2)
	put16(b[4:], tr.Keepalive)
	return keepaliveLen
}

func doFlag(do bool) uint16 {
	if do {
		return optDO
	}
	return 0
}

// EDEOption makes an Extended DNS Error option (RFC 8914, section 2) for Error and AppendOPT. Text is UTF-8 and cut at
// 255 octets. It allocates: make it once.
func EDEOption(code uint16, text string) []byte {
	text = cutUTF8(text, maxEDEText)
	b := make([]byte, edeFixed, edeFixed+len(text))
	put16(b, optionEDE)
	put16(b[2:], uint16(2+len(text)))
	put16(b[4:], code)
	return append(b, text...)
}

// cutUTF8 cuts s to at most n octets without cutting a character.
func cutUTF8(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
