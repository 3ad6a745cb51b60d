package wire

// optEdit rebuilds the OPT of a whole message in place: size 1232, version 0, DO as told, other flags clear, the
// high bits of the rcode kept, without the hop-by-hop options.
type optEdit struct {
	opt    int // offset of the record
	optLen int
	end    int // offset behind the last record of the message
	qend   int
	do     bool
}

// apply returns the new end of the message; 0, with nothing changed, if records behind the OPT would break.
// The two options (nil: none) are added; there must be room for them in buf.
func (e *optEdit) apply(buf, option, option2 []byte) int {
	options := buf[e.opt+optFixed : e.opt+e.optLen]
	kept := keptOptions(options, false)
	after := optFixed + kept + len(option) + len(option2)
	if after != e.optLen && !e.movable(buf) {
		return 0
	}
	keptOptions(options, true)
	copy(buf[e.opt+after:], buf[e.opt+e.optLen:e.end])
	o := buf[e.opt:]
	put16(o[3:], MaxUDP)
	o[6] = 0
	put16(o[7:], doFlag(e.do))
	put16(o[9:], uint16(after-optFixed))
	n := optFixed + kept
	n += copy(o[n:], option)
	copy(o[n:], option2)
	return e.end + after - e.optLen
}

// remove takes the OPT out and returns the new end; 0, with nothing changed, if records behind it would break.
func (e *optEdit) remove(buf []byte) int {
	if !e.movable(buf) {
		return 0
	}
	copy(buf[e.opt:], buf[e.opt+e.optLen:e.end])
	put16(buf[10:], be16(buf[10:])-1)
	return e.end - e.optLen
}

// movable reports whether the records behind the OPT may change their place: no name in them is compressed against
// anything that moves with them. Nearly always the OPT is the last record.
func (e *optEdit) movable(buf []byte) bool {
	if e.opt+e.optLen == e.end {
		return true
	}
	var rec Record
	for w := WalkRecords(buf[:e.end], e.qend); w.Next(&rec); {
		if rec.Owner > e.opt && !staysPut(buf[:e.end], &rec, e.opt) {
			return false
		}
	}
	return true
}

// staysPut reports whether all names of a record end in it and point below limit. Nobody has looked at the RDATA of a
// query's records.
func staysPut(msg []byte, rec *Record, limit int) bool {
	if pointer(msg, rec.Owner) >= limit {
		return false
	}
	if rec.Class != ClassIN || int(rec.Type) >= len(layouts) {
		return true
	}
	l := layouts[rec.Type]
	off := nameOffset(msg, rec, l)
	for range l.names {
		end, ok := SkipName(msg[:rec.Data+rec.Len], off)
		if !ok || pointer(msg, off) >= limit {
			return false
		}
		off = end
	}
	return true
}

// keptOptions returns how many octets of options are not hop by hop. With move it brings them together at the start.
// The options are whole.
func keptOptions(options []byte, move bool) int {
	kept := 0
	for i := 0; i+4 <= len(options); {
		size := 4 + int(be16(options[i+2:]))
		switch be16(options[i:]) {
		case optionCookie, optionKeepalive, optionPadding:
		default:
			if move {
				copy(options[kept:], options[i:i+size])
			}
			kept += size
		}
		i += size
	}
	return kept
}

// hasOption reports whether whole options contain one.
func hasOption(options []byte, code uint16) bool {
	for i := 0; i+4 <= len(options); i += 4 + int(be16(options[i+2:])) {
		if be16(options[i:]) == code {
			return true
		}
	}
	return false
}

// wholeOptions reports whether the options of an OPT end where its RDATA ends.
func wholeOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 4 || 4+int(be16(b[2:])) > len(b) {
			return false
		}
		b = b[4+int(be16(b[2:])):]
	}
	return true
}
