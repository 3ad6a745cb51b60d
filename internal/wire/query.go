package wire

// Verdict is what Query.Parse thinks of a packet.
type Verdict uint8

// The verdicts. All but VerdictOK and VerdictDrop are answered with Asked.Error and the Rcode of Verdict.Rcode.
const (
	VerdictOK      Verdict = iota
	VerdictDrop            // silence: under 12 bytes (R11) or a response (R9)
	VerdictFormErr         // the question is echoed if Asked.QEnd is not 0
	VerdictNotImp          // opcode other than QUERY (R8)
	VerdictBadVers         // EDNS version above 0 (R29)
)

// Rcode returns the response code that answers the verdict. It is meaningless for VerdictDrop.
func (v Verdict) Rcode() Rcode { return verdictRcodes[v] }

var verdictRcodes = [...]Rcode{
	VerdictOK: NoError, VerdictDrop: NoError, VerdictFormErr: FormErr, VerdictNotImp: NotImp, VerdictBadVers: BadVers,
}

// Options says which EDNS options a query carried.
type Options uint8

// The options that somebody acts on; all others are ignored (R31).
const (
	HasECS Options = 1 << iota
	HasCookie
	HasKeepalive
	HasPadding
)

// HopByHop are the options that are never passed on.
const HopByHop = HasCookie | HasKeepalive | HasPadding

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
