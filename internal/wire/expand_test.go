package wire

// What SkipName does in one loop, step by step: the tests compare the two.

// expand appends the name at off without compression, letter case kept, and returns the offset behind it.
func expand(dst, msg []byte, off int) (name []byte, end int, ok bool) {
	start := len(dst)
	w := nameWalk{msg: msg, pos: off, start: off, limit: len(msg)}
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
	start  int // of the run of labels being read: pointers must go below, and what they point at end there
	limit  int // where the run must have ended
	end    int // offset behind the name where it stands; set at the first pointer or the root
	length int // octets of the name so far
	hops   int
}

// next returns the next label, empty for the root; false if the name is broken.
func (w *nameWalk) next() (label []byte, ok bool) {
	for {
		if w.pos >= w.limit {
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
	if to > w.limit || w.length > MaxName {
		return nil, false
	}
	w.pos = to
	if l == 0 && w.end == 0 {
		w.end = to
	}
	return w.msg[from:to], true
}

func (w *nameWalk) jump() bool {
	if w.pos+2 > w.limit {
		return false
	}
	target := int(be16(w.msg[w.pos:]) & 0x3FFF)
	if w.end == 0 {
		w.end = w.pos + 2
	}
	w.hops++
	if target >= w.start || target < HeaderLen || w.hops > maxPointers {
		return false
	}
	w.pos, w.limit, w.start = target, w.start, target
	return true
}
