package wire

// maxPointers bounds the hops of one compressed name: as many as a name can have labels. Together with the size of a
// message it bounds the work that a hostile one can cause (RFC 9267, section 2).
const maxPointers = MaxLabels

// SkipName returns the offset behind the name at off, following compression to see that it ends: every pointer goes
// strictly backwards and not into the header, the whole has at most 255 octets (R64). It is nameWalk unrolled, for
// the forwarder runs it on every record.
func SkipName(msg []byte, off int) (end int, ok bool) {
	floor, length, hops := off, 0, 0
	for off < len(msg) {
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
		if l < 0xC0 || off+2 > len(msg) || hops == maxPointers {
			return 0, false
		}
		if end == 0 {
			end = off + 2
		}
		hops++
		if off = l&0x3F<<8 | int(msg[off+1]); off >= floor || off < HeaderLen {
			return 0, false
		}
		floor = off
	}
	return 0, false
}

// Expand appends the name at off without compression, letter case kept, and returns the offset behind it.
func Expand(dst, msg []byte, off int) (name []byte, end int, ok bool) {
	start := len(dst)
	w := nameWalk{msg: msg, pos: off, floor: off}
	for {
		label, more := w.next()
		if !more {
			return dst[:start], 0, false
		}
		dst = append(dst, byte(len(label)))
		dst = append(dst, label...)
		if len(label) == 0 {
			return dst, w.end, true
		}
	}
}

// nameWalk goes through the labels of a name.
type nameWalk struct {
	msg    []byte
	pos    int // of the next length octet
	floor  int // pointers must go below: the start of the run of labels being read
	end    int // offset behind the name where it stands; set at the first pointer or the root
	length int // octets of the name so far
	hops   int
}

// next returns the next label, empty for the root; false if the name is broken.
func (w *nameWalk) next() (label []byte, ok bool) {
	for {
		if w.pos >= len(w.msg) {
			return nil, false
		}
		switch l := int(w.msg[w.pos]); {
		case l <= MaxLabel:
			return w.label(l)
		case l < 0xC0 || !w.jump():
			return nil, false
		}
	}
}

func (w *nameWalk) label(l int) ([]byte, bool) {
	from, to := w.pos+1, w.pos+1+l
	w.length += 1 + l
	if to > len(w.msg) || w.length > MaxName {
		return nil, false
	}
	w.pos = to
	if l == 0 && w.end == 0 {
		w.end = to
	}
	return w.msg[from:to], true
}

func (w *nameWalk) jump() bool {
	if w.pos+2 > len(w.msg) {
		return false
	}
	target := int(be16(w.msg[w.pos:]) & 0x3FFF)
	if w.end == 0 {
		w.end = w.pos + 2
	}
	w.hops++
	if target >= w.floor || target < HeaderLen || w.hops > maxPointers {
		return false
	}
	w.pos, w.floor = target, target
	return true
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
