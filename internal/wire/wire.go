// Package wire reads and writes DNS messages in place: header, question, EDNS and names, as bytes.
//
// It serves the two paths that see every packet, the listeners (Query) and the plain forwarder (Reply), and
// therefore allocates nothing and copies nothing but the name. It keeps no state, starts no goroutine and owns no
// buffer: every buffer belongs to the caller. It is not a general DNS library: where a message has to be
// understood record by record and written anew, use miekg/dns.
//
// Offsets are counted from the start of the message. References such as "R28" are to the numbered requirements
// of docs/dns.md; the tests name them.
package wire

import "encoding/binary"

// HeaderLen is the length of the header of every message (RFC 1035, section 4.1.1).
const HeaderLen = 12

// Bounds of names (RFC 1035, section 2.3.4).
const (
	MaxName   = 255 // octets of a name on the wire, lengths and root included
	MaxLabel  = 63
	MaxLabels = 127
)

// Sizes of messages, in bytes.
const (
	MinUDP = 512   // what every client takes, with or without OPT (RFC 1035, section 2.3.4; RFC 6891, section 6.2.3)
	MaxUDP = 1232  // most that we send or ask for over UDP: no fragments on any IPv6 path (RFC 9715)
	MaxTCP = 65535 // the length in front of a message over TCP has 16 bits
)

// Header flags, as the 16-bit word at offset 2 (RFC 1035, section 4.1.1; RFC 4035, section 3.2).
const (
	FlagQR uint16 = 1 << 15
	FlagAA uint16 = 1 << 10
	FlagTC uint16 = 1 << 9
	FlagRD uint16 = 1 << 8
	FlagRA uint16 = 1 << 7
	FlagZ  uint16 = 1 << 6
	FlagAD uint16 = 1 << 5
	FlagCD uint16 = 1 << 4

	maskOpcode uint16 = 0xF << 11
	maskRcode  uint16 = 0xF
)

// Record and query types that this program knows by name.
const (
	TypeA      uint16 = 1
	TypeNS     uint16 = 2
	TypeCNAME  uint16 = 5
	TypeSOA    uint16 = 6
	TypePTR    uint16 = 12
	TypeHINFO  uint16 = 13
	TypeMX     uint16 = 15
	TypeTXT    uint16 = 16
	TypeSIG    uint16 = 24
	TypeAAAA   uint16 = 28
	TypeSRV    uint16 = 33
	TypeDNAME  uint16 = 39
	TypeOPT    uint16 = 41
	TypeRRSIG  uint16 = 46
	TypeSVCB   uint16 = 64
	TypeHTTPS  uint16 = 65
	TypeNXNAME uint16 = 128
	TypeTKEY   uint16 = 249
	TypeTSIG   uint16 = 250
	TypeIXFR   uint16 = 251
	TypeAXFR   uint16 = 252
	TypeMAILB  uint16 = 253
	TypeMAILA  uint16 = 254
	TypeANY    uint16 = 255
)

// Classes.
const (
	ClassIN  uint16 = 1
	ClassCH  uint16 = 3
	ClassANY uint16 = 255
)

// Rcode is a response code, 12 bits when there is an OPT (RFC 6895, section 2.3).
type Rcode uint16

// The response codes that this program makes or looks at.
const (
	NoError  Rcode = 0
	FormErr  Rcode = 1
	ServFail Rcode = 2
	NXDomain Rcode = 3
	NotImp   Rcode = 4
	Refused  Rcode = 5
	BadVers  Rcode = 16

	maxRcode Rcode = 15 // that a header has room for
)

// EDNS options (RFC 6891; RFC 7871, 7873, 7828, 7830, 8914).
const (
	optionECS       = 8
	optionCookie    = 10
	optionKeepalive = 11
	optionPadding   = 12
	optionEDE       = 15
)

// Info codes of Extended DNS Errors that are made here (RFC 8914, section 4).
const (
	EDEOther               = 0
	EDEStaleAnswer         = 3
	EDENotReady            = 14
	EDENotSupported        = 21
	EDENoReachable         = 22 // no reachable authority: here, no upstream answered
	EDENetworkError        = 23
	EDEInvalidData         = 24
	EDEInvalidType         = 30 // RFC 9824, section 3.4
	edeFixed               = 6  // option code, length and info code
	maxEDEText             = 255
	optFixed               = 11 // root owner, type, class, TTL, RDLENGTH
	recordFixed            = 10 // type, class, TTL, RDLENGTH
	optDO           uint16 = 1 << 15
)

func be16(b []byte) uint16           { return binary.BigEndian.Uint16(b) }
func put16(b []byte, v uint16)       { binary.BigEndian.PutUint16(b, v) }
func be32(b []byte) uint32           { return binary.BigEndian.Uint32(b) }
func put32(b []byte, v uint32)       { binary.BigEndian.PutUint32(b, v) }
func count(msg []byte, i int) uint16 { return be16(msg[4+2*i:]) }
