package wire

// Parse fills q from msg, which it does not keep or change. It allocates nothing, and its work is bounded by the
// length of msg. Whatever the verdict, ID and Flags are right if msg has a header; Type, Class, Key and Hash are
// right if QEnd is not 0; EDNS, DO, Size and Options are right if an OPT was found at all, so that errors carry
// one too (RFC 6891, section 7).
func (q *Query) Parse(msg []byte) Verdict { panic("todo") }

// ForwardOPT makes buf[:n], the packet that q was parsed from, fit for an upstream, in place: the bytes behind the
// last record go (R14), an OPT says 1232 and loses its cookie, keepalive and padding options (R31, R34). It returns
// the new length; 0 means that the message is too odd to be rewritten (names behind the OPT are compressed
// against names behind it): answer FORMERR.
func (q *Query) ForwardOPT(buf []byte, n int) int { panic("todo") }

// Transport is what a reply must know of the way it takes.
type Transport struct {
	TCP       bool
	Keepalive uint16 // idle timeout told to TCP clients that ask (RFC 7828), in units of 100 ms; 0 = not told
}

// Limit is the most bytes that a reply may have (R33, R38, R42).
func (a *Asked) Limit(tr Transport) int { panic("todo") }

// Error writes a reply without records into buf: header, question (if QEnd is not 0) and OPT (if the query had one).
// buf[:QEnd] must hold the query's header and question; the packet the query was parsed from does, or a copy of
// its first QEnd bytes (at least the 12 of the header). len(buf) must be at least 512.
// ede is an option made by EDEOption, or nil; it is sent only with an OPT and if it fits.
// AA and AD are clear, RA is set, RD and CD are the query's. The length of the reply is returned.
func (a *Asked) Error(buf []byte, rcode Rcode, ede []byte, tr Transport) int { panic("todo") }

// Truncated writes, like Error, a reply of header, question and OPT with TC set (R38). The rcode is kept.
func (a *Asked) Truncated(buf []byte, rcode Rcode, tr Transport) int { panic("todo") }

// Header writes the header of a reply: the query's ID, RD and CD, QR and RA set, Z and AD clear, and flags (FlagAA,
// FlagTC) besides. QDCOUNT is 1 if QEnd is not 0, else 0; ARCOUNT is 0 until AppendOPT.
func (a *Asked) Header(buf []byte, flags uint16, rcode Rcode, answers, authorities uint16) {
	panic("todo")
}

// AppendOPT writes the OPT that the query is owed at buf[n:], counts it in ARCOUNT, and returns the new length;
// without an OPT in the query it returns n. OPT: version 0, size 1232, DO copied, the high bits of rcode, ede if not
// nil, keepalive over TCP if asked for. There must be OPTLen bytes of room.
func (a *Asked) AppendOPT(buf []byte, n int, rcode Rcode, ede []byte, tr Transport) int {
	panic("todo")
}

// OPTLen is the number of bytes that AppendOPT will add.
func (a *Asked) OPTLen(ede []byte, tr Transport) int { panic("todo") }

// EDEOption makes an Extended DNS Error option (RFC 8914, section 2) for Error and AppendOPT. Text is cut at 255
// octets. It allocates: make it once.
func EDEOption(code uint16, text string) []byte { panic("todo") }

// Match is what MatchReply thinks of a packet from an upstream.
type Match uint8

// The matches.
const (
	MatchNo         Match = iota // not the reply to this question: ignore it and wait on (R60, R61)
	MatchNoQuestion              // right but for an empty question section, as some servers send with FORMERR or NOTIMP
	MatchYes                     // QR set, opcode QUERY, exactly the question asked
)

// MatchReply compares header and question of msg with a question: name is in wire form, in any letter case, without
// compression. The caller has compared the ID (and the peer).
func MatchReply(msg, name []byte, qtype, class uint16) Match { panic("todo") }

// Reply is one parsed reply of an upstream. Parse overwrites all of it.
type Reply struct {
	Flags  uint16
	Rcode  Rcode     // extended, if there is an OPT
	Counts [3]uint16 // answer, authority, additional (the OPT included)
	QEnd   int       // offset behind the question
	OPT    int       // offset of the OPT record; 0: none
	OPTLen int       // length of the OPT record, all of it
	End    int       // offset behind the last record
	MinTTL uint32    // smallest TTL of all records but the OPT (top bit set counts as 0, R65); 1<<32-1 if there is none
	Types  TypeSet   // which types of interest are there
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

// Parse checks the whole of msg, which has exactly one question or none: counts add up, every owner name and every
// name in RDATA of a type that may be compressed ends and points strictly backwards, A and AAAA have their length,
// there is at most one OPT, in the additional section, with root owner and whole options (R64). It allocates
// nothing; its work is bounded by some 64 steps per byte of msg. False: do not pass it to anybody.
func (r *Reply) Parse(msg []byte) bool { panic("todo") }

// FitOPT makes the OPT of buf[:n], the reply that r was parsed from, what the client is owed, in place: removed when
// the query had none; else size 1232, version 0, DO of the query, without cookie, keepalive and padding, appended
// if upstream sent none. Bytes behind the last record go. ede (or nil) is added unless there is an EDE already.
// It returns the new length; 0: the OPT stands before records whose names would break, use miekg/dns.
// len(buf) must be at least n + 11 + len(ede) + 6.
func (r *Reply) FitOPT(buf []byte, n int, a *Asked, ede []byte, tr Transport) int { panic("todo") }

// Restore makes header and question of a reply the client's own: ID, letter case of the name, RD and CD as asked, RA
// set, Z clear, AD only if the query had AD or DO (R5 to R7, R16). question is the client's question section
// (the bytes from offset 12 to QEnd) and must match (MatchYes).
func (a *Asked) Restore(reply, question []byte) { panic("todo") }

// Record is one record of a message, by offsets.
type Record struct {
	Section uint8 // 0 answer, 1 authority, 2 additional
	Type    uint16
	Class   uint16
	TTL     uint32
	Owner   int // offset of the owner name
	Fixed   int // offset of the type; the TTL is at Fixed+4
	Data    int // offset of RDATA
	Len     int // octets of RDATA
}

// Records walks the records of a message that Reply.Parse or Query.Parse has found whole.
type Records struct {
	msg  []byte
	off  int
	left [3]uint16
}

// WalkRecords starts at the first record behind the question, which ends at qend.
func WalkRecords(msg []byte, qend int) Records { panic("todo") }

// Next fills rec with the next record, the OPT included; false at the end.
func (w *Records) Next(rec *Record) bool { panic("todo") }

// CapTTLs lowers every TTL of a reply (but not the OPT's field) to at most limit seconds.
func CapTTLs(msg []byte, qend int, limit uint32) { panic("todo") }

// AgeTTLs lowers every TTL of a reply by age seconds, not below floor.
func AgeTTLs(msg []byte, qend int, age, floor uint32) { panic("todo") }

// AppendName appends the wire form of a name in presentation form (RFC 1035, section 5.1: escapes \DDD and \X; a final
// dot means nothing; "." is the root), letters in lower case.
func AppendName(dst []byte, text string) ([]byte, error) { panic("todo") }

// AppendText appends the presentation form of an uncompressed wire name without final dot ("." for the root).
// Anything but letters, digits, '-', '_', '*' and '/' is escaped, so that it is safe in logs (R20).
func AppendText(dst, name []byte) []byte { panic("todo") }

// EqualFold compares two uncompressed wire names without case (ASCII only, RFC 4343).
func EqualFold(a, b []byte) bool { panic("todo") }

// Parent returns the name without its first label; nil for the root.
func Parent(name []byte) []byte { panic("todo") }

// Below reports whether name is at or below suffix, label by label. Both are lower-case wire names (a Query's Name).
func Below(name, suffix []byte) bool { panic("todo") }

// Hash is the hash of a lower-case wire name, the same as Query.Hash.
func Hash(name []byte) uint64 { panic("todo") }

// SkipName returns the offset behind the name at off, following compression to see that it ends: every pointer goes
// strictly backwards, the whole has at most 255 octets.
func SkipName(msg []byte, off int) (end int, ok bool) { panic("todo") }

// Expand appends the name at off without compression, letter case kept, and returns the offset behind it.
func Expand(dst, msg []byte, off int) (name []byte, end int, ok bool) { panic("todo") }
