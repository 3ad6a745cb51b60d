package wire

// maxPointers bounds the hops of one compressed name: as many as a name can have labels. Together with the size of a
// message it bounds the work that a hostile one can cause (RFC 9267, section 2).
const maxPointers = MaxLabels

// SkipName returns the offset behind the name at off, following compression to see that it ends: every pointer goes
// strictly backwards and not into the header, what it points at ends before the run of labels that it stands behind begins,
// as only bytes before that have been a name, and the whole has at most 255 octets (R64). It is one loop, for the
// forwarder runs it on every record; the tests have it written step by step.
func SkipName(msg []byte, off int) (end int, ok bool) {
	start, limit, length, hops := off, len(msg), 0, 0
	for off < limit {
		l := int(msg[off])
		if l <= MaxLabel {
			off++
			length += 1 + l
			if length > MaxName {
				return 0, false
			}
			if l == 0 {
				if end == 0 {
					end = off
				}
				return end, true
			}
			off += l
			continue
		}
		if l < 0xC0 || off+2 > limit || hops == maxPointers {
			return 0, false
		}
		if end == 0 {
			end = off + 2
		}
		hops++
		limit = start
		if off = l&0x3F<<8 | int(msg[off+1]); off < HeaderLen {
			return 0, false
		}
		start = off
	}
	return 0, false
}

// pointer returns where the first compression pointer of the (whole) name at off points to; 0: it has none.
func pointer(msg []byte, off int) int {
	for msg[off] != 0 {
		if msg[off] >= 0xC0 {
			return int(be16(msg[off:]) & 0x3FFF)
		}
		off += 1 + int(msg[off])
	}
	return 0
}
