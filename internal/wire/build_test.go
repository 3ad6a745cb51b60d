package wire

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// message builds packets that no library would.
type message []byte

func header(id, flags uint16, counts ...uint16) message {
	m := make(message, HeaderLen)
	put16(m, id)
	put16(m[2:], flags)
	for i, c := range counts {
		put16(m[4+2*i:], c)
	}
	return m
}

// ask is a header with one question: A IN of the name.
func ask(flags uint16, name string, additional uint16) message {
	return header(0x1234, flags, 1, 0, 0, additional).name(name).u16(TypeA, ClassIN)
}

func (m message) name(text string) message {
	out, err := AppendName(m, text)
	if err != nil {
		panic(err)
	}
	return out
}

func (m message) u16(vs ...uint16) message {
	for _, v := range vs {
		m = append(m, byte(v>>8), byte(v))
	}
	return m
}

func (m message) str(s string) message { return append(m, s...) }

// record appends everything behind an owner.
func (m message) record(rrtype, class uint16, ttl uint32, data string) message {
	return m.u16(rrtype, class, uint16(ttl>>16), uint16(ttl), uint16(len(data))).str(data)
}

// opt appends an OPT with root owner.
func (m message) opt(size uint16, ttl uint32, options string) message {
	return append(m, 0).record(TypeOPT, size, ttl, options)
}

// option is one EDNS option.
func option(code uint16, data string) string {
	return string(message(nil).u16(code, uint16(len(data))).str(data))
}

// pointTo is a compression pointer.
func pointTo(off int) string { return string([]byte{0xC0 | byte(off>>8), byte(off)}) }

// name255 is the longest name: 255 octets on the wire.
func name255() string {
	l := strings.Repeat("a", 63)
	return l + "." + l + "." + l + "." + strings.Repeat("b", 61)
}

// unpack parses a packet with miekg/dns.
func unpack(t *testing.T, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("miekg/dns does not take %x: %v", b, err)
	}
	return m
}
