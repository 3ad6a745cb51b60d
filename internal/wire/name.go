package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
)

// Errors of AppendName.
var (
	ErrLabelTooLong = errors.New("label over 63 octets")
	ErrNameTooLong  = errors.New("name over 255 octets")
	ErrEmptyLabel   = errors.New("empty label")
	ErrBadEscape    = errors.New(`bad escape: want \DDD (000 to 255) or \X`)
)

// AppendName appends the wire form of a name in presentation form (RFC 1035, section 5.1: escapes \DDD and \X; a final
// dot means nothing; "." is the root), letters in lower case. The empty text is an error.
func AppendName(dst []byte, text string) ([]byte, error) {
	start := len(dst)
	if text == "." {
		return append(dst, 0), nil
	}
	label := len(dst) // where the length of the current label goes
	dst = append(dst, 0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '.':
			n := len(dst) - label - 1
			if n == 0 {
				return dst[:start], ErrEmptyLabel
			}
			dst[label] = byte(n)
			label = len(dst)
			dst = append(dst, 0)
			continue
		case '\\':
			var size int
			if c, size = unescape(text[i+1:]); size == 0 {
				return dst[:start], ErrBadEscape
			}
			i += size
		}
		dst = append(dst, lower(c))
		if len(dst)-label-1 > MaxLabel {
			return dst[:start], ErrLabelTooLong
		}
	}
	if n := len(dst) - label - 1; n > 0 {
		dst[label] = byte(n)
		dst = append(dst, 0)
	} else if label == start {
		return dst[:start], ErrEmptyLabel
	}
	if len(dst)-start > MaxName {
		return dst[:start], ErrNameTooLong
	}
	return dst, nil
}

// unescape reads what follows a backslash and says how long it is; 0 if it is no escape.
func unescape(s string) (c byte, size int) {
	digit := func(i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	switch {
	case s == "":
		return 0, 0
	case !digit(0):
		return s[0], 1
	case !digit(1) || !digit(2):
		return 0, 0
	}
	v := int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	if v > 255 {
		return 0, 0
	}
	return byte(v), 3
}

// AppendText appends the presentation form of an uncompressed wire name, without final dot ("." for the root). Octets
// that are special there are escaped as \X, those that do not print as \DDD, so that the text is safe in logs and
// two different names never look the same (R20).
func AppendText(dst, name []byte) []byte {
	if len(name) > 0 && name[0] == 0 {
		return append(dst, '.')
	}
	for i := 0; i < len(name) && name[i] != 0; {
		end := min(i+1+int(name[i]), len(name))
		if i > 0 {
			dst = append(dst, '.')
		}
		for _, c := range name[i+1 : end] {
			dst = appendEscaped(dst, c)
		}
		i = end
	}
	return dst
}

func appendEscaped(dst []byte, c byte) []byte {
	switch {
	case c <= ' ' || c >= 0x7f:
		return append(dst, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
	case bytes.IndexByte([]byte(`."\;()@$`), c) >= 0:
		return append(dst, '\\', c)
	}
	return append(dst, c)
}

// EqualFold compares two uncompressed wire names without case (ASCII only, RFC 4343).
func EqualFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])
		if x != y && lower8(x) != lower8(y) {
			return false
		}
	}
	for ; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// Parent returns the name without its first label; nil for the root.
func Parent(name []byte) []byte {
	if len(name) == 0 || name[0] == 0 || int(name[0])+1 >= len(name) {
		return nil
	}
	return name[1+int(name[0]):]
}

// Below reports whether name is at or below suffix, label by label. Both are lower-case wire names (a Query's Name).
func Below(name, suffix []byte) bool {
	for len(name) > len(suffix) {
		name = Parent(name)
	}
	return len(name) > 0 && bytes.Equal(name, suffix)
}

// Hash is the hash of a lower-case wire name, the same as Query.Hash. It is not keyed: use it for tables whose keys the
// operator chose.
func Hash(name []byte) uint64 {
	h := hashSeed(len(name))
	i := 0
	for ; i+8 <= len(name); i += 8 {
		h = hashWord(h, binary.LittleEndian.Uint64(name[i:]))
	}
	if i < len(name) {
		var w uint64
		for j, c := range name[i:] {
			w |= uint64(c) << (8 * j)
		}
		h = hashWord(h, w)
	}
	return h
}

// The multiplier is 2^64 divided by the golden ratio; the product of 128 bits folded is what wyhash and its kin use.
const hashMultiplier = 0x9E3779B97F4A7C15

func hashSeed(n int) uint64 { return uint64(n+1) * 0xD6E8FEB86659FD93 }

func hashWord(h, w uint64) uint64 {
	hi, lo := bits.Mul64(h^w, hashMultiplier)
	return hi ^ lo
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// lower8 turns the ASCII capitals among eight octets into small letters.
func lower8(w uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	low7 := w &^ high
	fromA := low7 + (0x80-'A')*ones          // high bit: octet >= 'A'
	beyondZ := low7 + (0x80-'Z'-1)*ones      // high bit: octet > 'Z'
	capital := (fromA ^ beyondZ) &^ w & high // 0x80 where there is one; a letter's 0x20 is two bits below
	return w | capital>>2
}
