package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestQueryVerdicts(t *testing.T) {
	good := ask(FlagRD, "www.example.com", 0)
	cookie8, cookie16 := option(10, "12345678"), option(10, "1234567812345678")
	for _, c := range []struct {
		name string
		msg  message
		want Verdict
	}{
		{"R8 opcode NOTIFY", ask(4<<11, "a", 0), VerdictNotImp},
		{"R8 opcode UPDATE", ask(5<<11, "a", 0), VerdictNotImp},
		{"R8 opcode IQUERY", ask(1<<11, "a", 0), VerdictNotImp},
		{"R8 opcode 15 with any body", header(1, 15<<11, 9, 9, 9, 9).str("\xff\xff"), VerdictNotImp},
		{"R9 response", ask(FlagQR, "a", 0), VerdictDrop},
		{"R9 malformed response", header(1, FlagQR, 7), VerdictDrop},
		{"R9 response of another opcode", header(1, FlagQR|5<<11, 1), VerdictDrop},
		{"R10 no question", header(1, 0, 0), VerdictFormErr},
		{"R10 two questions", header(1, 0, 2).name("a").u16(1, 1).name("b").u16(1, 1), VerdictFormErr},
		{"R10 65535 questions", header(1, 0, 65535).name("a").u16(1, 1), VerdictFormErr},
		{"R11 nothing", nil, VerdictDrop},
		{"R11 eleven bytes", good[:11], VerdictDrop},
		{"R11 header alone", good[:12], VerdictFormErr},
		{"R11 cut in the name", good[:16], VerdictFormErr},
		{"R11 cut before the root", good[:28], VerdictFormErr},
		{"R11 cut before the type", good[:29], VerdictFormErr},
		{"R11 cut in the class", good[:len(good)-1], VerdictFormErr},
		{"R12 label over 63", header(1, 0, 1).str("\x40"+strings.Repeat("a", 64)+"\x00").u16(1, 1), VerdictFormErr},
		{"R12 label type 01", header(1, 0, 1).str("\x41a\x00").u16(1, 1), VerdictFormErr},
		{"R12 label type 10", header(1, 0, 1).str("\x81a\x00").u16(1, 1), VerdictFormErr},
		{"R12 pointer to itself", header(1, 0, 1).str(pointTo(12)).u16(1, 1), VerdictFormErr},
		{"R12 pointer forward", header(1, 0, 1).str(pointTo(18)).u16(1, 1, 0, 0), VerdictFormErr},
		{"R12 pointer into the header", header(1, 0, 1).str(pointTo(4)).u16(1, 1), VerdictFormErr},
		{"R12 pointer behind a label", header(1, 0, 1).str("\x01a"+pointTo(12)).u16(1, 1), VerdictFormErr},
		{"R12 name of 256 octets", header(1, 0, 1).str(strings.Repeat("\x01a", 126)+"\x02aa\x00").u16(1, 1), VerdictFormErr},
		{"R13 record in the answer section", header(1, 0, 1, 1).name("a").u16(1, 1).name("a").record(1, 1, 0, "1234"), VerdictOK},
		{"R13 SOA in authority, as IXFR has", header(1, 0, 1, 0, 1).name("a").u16(1, 1).name("a").record(6, 1, 0, "x"), VerdictOK},
		{"R13 lying count", header(1, 0, 1, 65535, 65535, 65535).name("a").u16(1, 1), VerdictFormErr},
		{"R13 RDLENGTH past the end", ask(0, "a", 1).name("b").u16(1, 1, 0, 0, 5).str("1234"), VerdictFormErr},
		{"R13 a record promised, and none there", ask(0, "a", 1), VerdictFormErr},
		{"R13 cut behind its owner", ask(0, "a", 1).str("\x00"), VerdictFormErr},
		{"R13 cut in its type", ask(0, "a", 1).str("\x00\x00"), VerdictFormErr},
		{"R13 an owner that looks like an OPT's type", ask(0, "a", 1).str("\x02\x00\x29\x00").u16(1, 1, 0, 0, 0), VerdictOK},
		{"R13 cut in a record", ask(0, "a", 1).name("b").u16(1, 1, 0), VerdictFormErr},
		{"R14 bytes behind", append(bytes.Clone(good), "rubbish"...), VerdictOK},
		{"R14 R42 the longest message", append(bytes.Clone(good), make([]byte, MaxTCP-len(good))...), VerdictOK},
		{"R42 longer than any message", append(bytes.Clone(good), make([]byte, MaxTCP+1-len(good))...), VerdictDrop},
		{"R21 root", ask(0, ".", 0), VerdictOK},
		{"R21 255 octets", ask(0, name255(), 0), VerdictOK},
		{"R21 127 labels", header(1, 0, 1).str(strings.Repeat("\x01a", 127)+"\x00").u16(1, 1), VerdictOK},
		{"R29 version 1", ask(0, "a", 1).opt(1232, 1<<16, ""), VerdictBadVers},
		{"R29 version 255 with what may be options there", ask(0, "a", 1).opt(1232, 255<<16|0x7fff, "\x00"), VerdictBadVers},
		{"R30 two OPTs", ask(0, "a", 2).opt(1232, 0, "").opt(1232, 0, ""), VerdictFormErr},
		{"R30 two OPTs, one of version 1", ask(0, "a", 2).opt(1232, 1<<16, "").opt(1232, 0, ""), VerdictFormErr},
		{"R30 OPT with an owner", ask(0, "a", 1).name("b").record(TypeOPT, 1232, 0, ""), VerdictFormErr},
		{"R30 OPT owned by a pointer to the root", ask(0, "a", 1).str(pointTo(14)).record(TypeOPT, 1232, 0, ""), VerdictFormErr},
		{"R30 OPT in the answer section", header(1, 0, 1, 1).name("a").u16(1, 1).opt(1232, 0, ""), VerdictFormErr},
		{"R30 option overruns", ask(0, "a", 1).opt(1232, 0, "\x00\x03\x00\x01"), VerdictFormErr},
		{"R30 half an option", ask(0, "a", 1).opt(1232, 0, "\x00\x03\x00"), VerdictFormErr},
		{"R30 OPT's RDLENGTH past the end", ask(0, "a", 1).str("\x00").u16(TypeOPT, 1232, 0, 0, 4).str("\x00\x03\x00"), VerdictFormErr},
		{"R30 OPT cut", ask(0, "a", 1).str("\x00").u16(TypeOPT, 1232, 0), VerdictFormErr},
		{"R31 unknown option", ask(0, "a", 1).opt(1232, 0, option(65001, "x")), VerdictOK},
		{"R34 cookie of 8", ask(0, "a", 1).opt(1232, 0, cookie8), VerdictOK},
		{"R34 cookie of 16", ask(0, "a", 1).opt(1232, 0, cookie16), VerdictOK},
		{"R34 cookie of 40", ask(0, "a", 1).opt(1232, 0, option(10, strings.Repeat("x", 40))), VerdictOK},
		{"R34 cookie of 15", ask(0, "a", 1).opt(1232, 0, option(10, strings.Repeat("x", 15))), VerdictFormErr},
		{"R34 cookie of 9", ask(0, "a", 1).opt(1232, 0, option(10, "123456789")), VerdictFormErr},
		{"R34 cookie of 0", ask(0, "a", 1).opt(1232, 0, option(10, "")), VerdictFormErr},
		{"R34 cookie of 41", ask(0, "a", 1).opt(1232, 0, option(10, strings.Repeat("x", 41))), VerdictFormErr},
		{"R36 NSID, padding, ECS, expire", ask(0, "a", 1).opt(1232, 0,
			option(3, "")+option(12, "\x00\x00")+option(8, "\x00\x01\x18\x00\x01\x02\x03")+option(9, "")), VerdictOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q Query
			if got := q.Parse(c.msg); got != c.want {
				t.Errorf("verdict %d, want %d", got, c.want)
			}
		})
	}
}

func TestQueryFields(t *testing.T) {
	parse := func(t *testing.T, m message) *Query {
		t.Helper()
		q := new(Query)
		if v := q.Parse(m); v != VerdictOK {
			t.Fatalf("verdict %d", v)
		}
		return q
	}
	t.Run("question", func(t *testing.T) {
		q := parse(t, header(0xBEEF, FlagRD|FlagCD, 1).str("\x03wWw\x07EXAMPLE\x03com\x00").u16(TypeAAAA, ClassCH))
		if string(q.Name()) != "\x03www\x07example\x03com\x00" || q.Type != TypeAAAA || q.Class != ClassCH ||
			q.ID != 0xBEEF || q.QEnd != 33 || q.End != 33 || q.Hash != Hash(q.Name()) || q.EDNS || q.Size != 512 {
			t.Errorf("%+v", q.Asked)
		}
	})
	t.Run("R14 the end is that of the last record", func(t *testing.T) {
		m := ask(0, "a", 1).opt(1232, 0, option(65001, "abc"))
		if q := parse(t, append(bytes.Clone(m), "more"...)); int(q.End) != len(m) {
			t.Errorf("end %d, want %d", q.End, len(m))
		}
	})
	t.Run("R20 any octet", func(t *testing.T) {
		for c := range 256 {
			q := parse(t, header(1, 0, 1).str("\x03a"+string([]byte{byte(c)})+"b\x00").u16(1, 1))
			want := byte(c)
			if c >= 'A' && c <= 'Z' {
				want += 32
			}
			if got := q.Name(); len(got) != 5 || got[2] != want {
				t.Errorf("octet %d became %q", c, got)
			}
		}
	})
	t.Run("R20 a dot in a label is not two labels", func(t *testing.T) {
		a := parse(t, header(1, 0, 1).str("\x03a.b\x00").u16(1, 1))
		b := parse(t, header(1, 0, 1).str("\x01a\x01b\x00").u16(1, 1))
		if bytes.Equal(a.Name(), b.Name()) {
			t.Error("equal keys")
		}
	})
	t.Run("R27 TSIG", func(t *testing.T) {
		if q := parse(t, ask(0, "a", 1).name("k").record(TypeTSIG, ClassANY, 0, "x")); !q.Signed || q.Extra {
			t.Error("not seen")
		}
	})
	t.Run("R27 SIG(0)", func(t *testing.T) {
		if q := parse(t, ask(0, "a", 1).name(".").record(TypeSIG, ClassANY, 0, "\x00\x00xyz")); !q.Signed {
			t.Error("not seen")
		}
		if q := parse(t, ask(0, "a", 1).name(".").record(TypeSIG, ClassANY, 0, "\x00\x01xyz")); q.Signed {
			t.Error("a SIG of A records is no SIG(0)")
		}
		if q := parse(t, header(1, 0, 1, 1).name("a").u16(1, 1).name(".").record(TypeSIG, ClassANY, 0, "\x00\x00xyz")); q.Signed {
			t.Error("SIG(0) is an additional record")
		}
	})
	t.Run("R28 OPT noticed in spite of an error", func(t *testing.T) {
		for _, m := range []message{
			header(1, 0, 0, 0, 0, 1).opt(4096, 0x8000, ""),
			header(1, 0, 2, 0, 0, 1).name("a").u16(1, 1).name("b").u16(1, 1).opt(4096, 0x8000, ""),
			ask(0, "a", 1).opt(4096, 0x8000, "\x00"),
			ask(0, "a", 2).opt(4096, 0x8000, "").opt(4096, 0x8000, ""),
		} {
			var q Query
			if q.Parse(m) != VerdictFormErr || !q.EDNS || !q.DO || q.Size != 4096 {
				t.Errorf("%x: %+v", []byte(m), q.Asked)
			}
		}
	})
	t.Run("R32 DO, and nothing but DO", func(t *testing.T) {
		if q := parse(t, ask(0, "a", 1).opt(1232, 0x8000, "")); !q.DO {
			t.Error("DO not seen")
		}
		if q := parse(t, ask(0, "a", 1).opt(1232, 0x7fff, "")); q.DO {
			t.Error("other flags taken for DO")
		}
	})
	t.Run("R33 size", func(t *testing.T) {
		for _, c := range []struct{ client, size, udp uint16 }{{0, 512, 512}, {511, 512, 512}, {513, 513, 513}, {1232, 1232, 1232}, {65535, 65535, 1232}} {
			q := parse(t, ask(0, "a", 1).opt(c.client, 0, ""))
			if q.Size != c.size || q.Limit(Transport{}) != int(c.udp) || q.Limit(Transport{TCP: true}) != 65535 {
				t.Errorf("%+v: %d, %d", c, q.Size, q.Limit(Transport{}))
			}
		}
	})
	t.Run("R34 to R36 options", func(t *testing.T) {
		all := option(8, "\x00\x01\x00\x00") + option(10, "12345678") + option(11, "") + option(12, "\x00")
		for _, m := range []message{
			ask(0, "a", 1).opt(1232, 0, all),
			ask(0, "a", 2).opt(1232, 0, all).name("b").record(1, 1, 0, "1234"),
		} {
			if q := parse(t, m); q.Options != HasECS|HasCookie|HasKeepalive|HasPadding {
				t.Errorf("options %b", q.Options)
			}
		}
	})
	t.Run("nothing is left from the query before", func(t *testing.T) {
		q := parse(t, ask(0, "long.name.example", 2).opt(4096, 0x8000, option(11, "")).name("k").record(TypeTSIG, 255, 0, ""))
		if v := q.Parse(ask(0, "a", 0)); v != VerdictOK {
			t.Fatal(v)
		}
		fresh := parse(t, ask(0, "a", 0))
		q.Key, fresh.Key = [256]byte{}, [256]byte{}
		if *q != *fresh {
			t.Errorf("%+v, want %+v", q, fresh)
		}
	})
}
