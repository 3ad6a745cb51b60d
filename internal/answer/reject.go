package answer

import "hard/internal/wire"

// The extended errors of what is not answered here and not passed on either: in words, since each has several causes
// for one response code.
var (
	edeMalformed = wire.EDEOption(wire.EDEOther, "malformed query")
	edeOpcode    = wire.EDEOption(wire.EDENotSupported, "only opcode QUERY is served")
	edeClass     = wire.EDEOption(wire.EDENotSupported, "only class IN is served")
	edeSigned    = wire.EDEOption(wire.EDENotSupported, "signed queries are not forwarded")
	edeTransfer  = wire.EDEOption(wire.EDENotSupported, "zones are not transferred")
	edeType      = wire.EDEOption(wire.EDEInvalidType, "")
	edeMetaType  = wire.EDEOption(wire.EDENotSupported, "this type is not served")
	edeSpecial   = wire.EDEOption(wire.EDENotSupported, "special-use name, never forwarded")
	edeNoSVCB    = wire.EDEOption(wire.EDEOther, "svcb = nodata")
)

// Reject answers a packet with another verdict than VerdictOK, in place, and returns the length of the reply; 0: it
// gets none. buf holds what q was parsed from; len(buf) must be at least 512.
func Reject(q *wire.Query, v wire.Verdict, buf []byte, tr wire.Transport) int {
	switch v {
	case wire.VerdictDrop:
		return 0
	case wire.VerdictFormErr:
		return q.Error(buf, wire.FormErr, edeMalformed, tr)
	case wire.VerdictNotImp:
		return q.Error(buf, wire.NotImp, edeOpcode, tr)
	}
	return q.Error(buf, v.Rcode(), nil, tr)
}

// unserved returns the error, and why, for whole queries that are neither answered nor forwarded (R23, R25 to R27).
func unserved(q *wire.Query) (wire.Rcode, []byte) {
	if q.Class != wire.ClassIN {
		return wire.Refused, edeClass
	}
	if q.Signed {
		return wire.Refused, edeSigned
	}
	switch q.Type {
	case wire.TypeAXFR, wire.TypeIXFR:
		return wire.Refused, edeTransfer
	case 0, wire.TypeOPT, wire.TypeTSIG, wire.TypeNXNAME, 65535:
		return wire.FormErr, edeType // nothing that can be asked for (RFC 6895, section 3.1; RFC 9824, section 3.4)
	case wire.TypeTKEY, wire.TypeMAILA, wire.TypeMAILB:
		return wire.NotImp, edeMetaType
	}
	return wire.NoError, nil
}
