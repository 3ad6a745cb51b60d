package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestAppendName(t *testing.T) {
	l63 := strings.Repeat("a", 63)
	for _, c := range []struct {
		text, want string
		err        error
	}{
		{".", "\x00", nil},
		{"WWW.Example.", "\x03www\x07example\x00", nil},
		{"a", "\x01a\x00", nil},
		{`a\.b.c`, "\x03a.b\x01c\x00", nil},
		{`\000\255\032`, "\x03\x00\xff \x00", nil},
		{`\\\065`, "\x02\\a\x00", nil},
		{"*.x", "\x01*\x01x\x00", nil},
		{l63, "\x3f" + l63 + "\x00", nil},
		{l63 + "a", "", ErrLabelTooLong},
		{name255(), "\x3f" + l63 + "\x3f" + l63 + "\x3f" + l63 + "\x3d" + strings.Repeat("b", 61) + "\x00", nil},
		{name255() + "b", "", ErrNameTooLong},
		{"", "", ErrEmptyLabel},
		{"..", "", ErrEmptyLabel},
		{"a..b", "", ErrEmptyLabel},
		{".a", "", ErrEmptyLabel},
		{`a\`, "", ErrBadEscape},
		{`\25`, "", ErrBadEscape},
		{`\256`, "", ErrBadEscape},
	} {
		got, err := AppendName([]byte("x"), c.text)
		if string(got) != "x"+c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %q, %v; want %q, %v", c.text, got, err, c.want, c.err)
		}
	}
}

func TestAppendText(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"\x00", "."},
		{"\x03www\x01x\x00", "www.x"},
		{"\x03a.b\x01c\x00", `a\.b.c`},
		{"\x04\x00\n\x1b\xff\x00", `\000\010\027\255`},
		{"\x02_*\x00", "_*"},
		{"\x05\"\\@; \x00", `\"\\\@\;\032`},
	} {
		if got := string(AppendText(nil, []byte(c.name))); got != c.want {
			t.Errorf("%q: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNameRelations(t *testing.T) {
	wire := func(s string) []byte {
		b, err := AppendName(nil, s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, suffix string
		want         bool
	}{
		{"a.example.com", "example.com", true},
		{"example.com", "example.com", true},
		{"example.com", ".", true},
		{".", ".", true},
		{"com", "example.com", false},
		{"badexample.com", "example.com", false},
		{`a\.example.com`, "example.com", false},
		{"aaaaaaa.com", "\\007example.com", false},
	} {
		if got := Below(wire(c.name), wire(c.suffix)); got != c.want {
			t.Errorf("%s below %s: %v", c.name, c.suffix, got)
		}
	}
	if got := Parent(wire("a.b")); !bytes.Equal(got, wire("b")) {
		t.Errorf("parent %q", got)
	}
	if got := Parent(wire("b")); !bytes.Equal(got, wire(".")) {
		t.Errorf("parent %q", got)
	}
	if Parent(wire(".")) != nil || Parent(nil) != nil || Parent([]byte("\x05ab")) != nil {
		t.Error("the root has a parent")
	}
	if !EqualFold([]byte("\x0bWWW-EXAMPLE\x00"), []byte("\x0bwww-example\x00")) || EqualFold([]byte("\x01@\x00"), []byte("\x01`\x00")) ||
		EqualFold([]byte("\x09aaaaaaaa[\x00"), []byte("\x09aaaaaaaa{\x00")) || EqualFold([]byte("\x01\xc0\x00"), []byte("\x01\xe0\x00")) ||
		EqualFold([]byte("a"), []byte("aa")) {
		t.Error("EqualFold")
	}
}

// TestLower8 compares the eight-at-a-time folding with the plain one for all octets in all places.
func TestLower8(t *testing.T) {
	for place := range 8 {
		for c := range 256 {
			w := uint64(c)<<(8*place) | 0x4141414141414141&^(0xff<<(8*place))
			got := byte(lower8(w) >> (8 * place))
			if got != lower(byte(c)) || byte(lower8(w)>>(8*((place+1)%8))) != 'a' {
				t.Fatalf("octet %#x in place %d became %#x", c, place, got)
			}
		}
	}
}

func TestSkipAndExpand(t *testing.T) {
	// At 12: www.example.com; at 29: ftp + pointer to example.com (16); at 35: pointer to 29; at 37: root.
	m := header(0, 0).name("www.Example.com").str("\x03ftp" + pointTo(16)).str(pointTo(29)).str("\x00")
	for _, c := range []struct {
		off, end int
		want     string
	}{{12, 29, "\x03www\x07example\x03com\x00"}, {29, 35, "\x03ftp\x07example\x03com\x00"}, {35, 37, "\x03ftp\x07example\x03com\x00"}, {37, 38, "\x00"}} {
		name, end, ok := expand(nil, m, c.off)
		if !ok || end != c.end || string(name) != c.want {
			t.Errorf("%d: %q, %d, %v", c.off, name, end, ok)
		}
		if end, ok := SkipName(m, c.off); !ok || end != c.end {
			t.Errorf("%d: skipped to %d, %v", c.off, end, ok)
		}
	}
	long := header(0, 0).str(strings.Repeat("\x01a", 127))
	chain := header(0, 0).str("\x00")
	for range 200 {
		target := len(chain) - 2
		if len(chain) == HeaderLen+1 {
			target = HeaderLen
		}
		chain = chain.str(pointTo(target))
	}
	for _, c := range []struct {
		name string
		msg  message
		off  int
	}{
		{"to itself", header(0, 0).str(pointTo(12)), 12},
		{"to labels that run into itself", header(0, 0).str("\x03x" + pointTo(12) + "\x00"), 14},
		{"to labels that run into those before it", header(0, 0).str("\x05x\x01y" + pointTo(12) + "\x00"), 14},
		{"to half a pointer", header(0, 0).str(strings.Repeat("\x00", 0xc0-11) + "\xc0" + pointTo(0xc1)), 0xc2},
		{"into its own labels", header(0, 0).str("\x01a\x01b" + pointTo(14)), 12},
		{"forward", header(0, 0).str(pointTo(14) + "\x00"), 12},
		{"to each other", header(0, 0).str(pointTo(14) + pointTo(12)), 14},
		{"into the header", header(0, 0).str(pointTo(5)), 12},
		{"label type 01", header(0, 0).str("\x41" + strings.Repeat("a", 65) + "\x00"), 12},
		{"label type 10", header(0, 0).str("\x81" + strings.Repeat("a", 129) + "\x00"), 12},
		{"half a pointer", header(0, 0).str("\xc0"), 12},
		{"no end", header(0, 0).str("\x01a"), 12},
		{"cut label", header(0, 0).str("\x05a"), 12},
		{"past the end", header(0, 0), 12},
		{"forward on the second hop", header(0, 0).str(pointTo(16) + "\x00\x00\x00\x00" + pointTo(12)), 18},
		{"256 octets by a pointer", header(0, 0).str(strings.Repeat("\x01a", 126) + "\x00\x02bb" + pointTo(12)), 12 + 253},
		{"257 octets by a pointer", long.str("\x00\x01b" + pointTo(12)), 12 + 255},
		{"a chain of 200 pointers", chain, len(chain) - 2},
	} {
		t.Run("R64 "+c.name, func(t *testing.T) {
			if end, ok := SkipName(c.msg, c.off); ok {
				t.Errorf("skipped to %d", end)
			}
			if name, _, ok := expand([]byte("x"), c.msg, c.off); ok || string(name) != "x" {
				t.Errorf("expanded to %q", name)
			}
		})
	}
}
