package wire

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// answerTo is a reply with one question, www.example.com A.
func answerTo(counts ...uint16) message {
	return header(0x1234, FlagQR|FlagRD|FlagRA, append([]uint16{1}, counts...)...).name("www.example.com").u16(TypeA, ClassIN)
}

const atQuestion = "\xc0\x0c"

func TestMatchReply(t *testing.T) {
	name := []byte("\x03www\x07example\x03com\x00")
	good := answerTo()
	for _, c := range []struct {
		name string
		msg  message
		want Match
	}{
		{"R60 the same", good, MatchYes},
		{"R16 R60 another letter case", header(1, FlagQR, 1).str("\x03WWW\x07exAmple\x03cOm\x00").u16(1, 1), MatchYes},
		{"R60 a query", header(1, 0, 1).name("www.example.com").u16(1, 1), MatchNo},
		{"R60 another opcode", header(1, FlagQR|1<<11, 1).name("www.example.com").u16(1, 1), MatchNo},
		{"R60 another name", header(1, FlagQR, 1).name("wwx.example.com").u16(1, 1), MatchNo},
		{"R60 a longer name", header(1, FlagQR, 1).name("www.example.com.net").u16(1, 1), MatchNo},
		{"R60 another type", header(1, FlagQR, 1).name("www.example.com").u16(2, 1), MatchNo},
		{"R60 another class", header(1, FlagQR, 1).name("www.example.com").u16(1, 3), MatchNo},
		{"R60 two questions", header(1, FlagQR, 2).name("www.example.com").u16(1, 1).name("www.example.com").u16(1, 1), MatchNo},
		{"R60 cut", good[:len(good)-1], MatchNo},
		{"R61 garbage", message("garbage"), MatchNo},
		{"R60 no question, no error", header(1, FlagQR), MatchNo},
		{"R60 no question, FORMERR", header(1, FlagQR|1), MatchNoQuestion},
		{"R60 two questions, FORMERR", header(1, FlagQR|1, 2).name("www.example.com").u16(1, 1).name("www.example.com").u16(1, 1), MatchNo},
		{"R60 an error to the question", header(1, FlagQR|2, 1).name("www.example.com").u16(1, 1), MatchYes},
		{"R11 R60 a header cut short", header(1, FlagQR|1)[:11], MatchNo},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := MatchReply(c.msg, name, TypeA, ClassIN); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestReplyParse(t *testing.T) {
	soa := "\x02ns" + atQuestion + "\x00" + strings.Repeat("\x00", 20)
	for _, c := range []struct {
		name string
		msg  message
		want bool
	}{
		{"R48 an address", answerTo(1).str(atQuestion).record(1, 1, 9, "\x01\x02\x03\x04"), true},
		{"R48 an unknown type", answerTo(1).str(atQuestion).record(65280, 1, 9, "\xc0\xff"), true},
		{"R49 compressed CNAME", answerTo(1).str(atQuestion).record(TypeCNAME, 1, 9, "\x01a"+pointTo(16)), true},
		{"R51 SOA", answerTo(0, 1).str(atQuestion).record(TypeSOA, 1, 9, soa), true},
		{"R64 no question", header(1, FlagQR|1), true},
		{"R64 two questions", header(1, FlagQR, 2).name("a").u16(1, 1).name("a").u16(1, 1), false},
		{"R64 pointer in the question", header(1, FlagQR, 1).str(pointTo(12)).u16(1, 1), false},
		{"R64 question cut", answerTo()[:20], false},
		{"R64 question cut before its root", answerTo()[:28], false},
		{"R64 question cut in its class", answerTo()[:32], false},
		{"R64 label over 63 in the question", header(1, FlagQR, 1).str("\x40"+strings.Repeat("a", 64)+"\x00").u16(1, 1), false},
		{"R21 a label of 63", header(1, FlagQR, 1).str("\x3f"+strings.Repeat("a", 63)+"\x00").u16(1, 1), true},
		{"R21 a question of 255 octets", header(1, FlagQR, 1).name(name255()).u16(1, 1), true},
		{"R64 nothing", nil, false},
		{"R64 a header cut short", header(1, FlagQR|1)[:11], false},
		{"R42 the longest message", append(answerTo(), make([]byte, MaxTCP-33)...), true},
		{"R42 longer than any message", append(answerTo(), make([]byte, MaxTCP+1-33)...), false},
		{"R64 counts too high", answerTo(2).str(atQuestion).record(1, 1, 9, "\x01\x02\x03\x04"), false},
		{"R64 counts of 65535", answerTo(65535, 65535, 65535), false},
		{"R64 RDLENGTH past the end", answerTo(1).str(atQuestion).u16(1, 1, 0, 9, 5).str("\x01\x02\x03\x04"), false},
		{"R64 cut in a record", answerTo(1).str(atQuestion).u16(1, 1), false},
		{"R64 A of 3 octets", answerTo(1).str(atQuestion).record(1, 1, 9, "\x01\x02\x03"), false},
		{"R64 A of 5 octets", answerTo(1).str(atQuestion).record(1, 1, 9, "\x01\x02\x03\x04\x05"), false},
		{"R64 AAAA of 17 octets", answerTo(1).str(atQuestion).record(TypeAAAA, 1, 9, strings.Repeat("x", 17)), false},
		{"R64 question of 256 octets", header(1, FlagQR, 1).str(strings.Repeat("\x01a", 126)+"\x02aa\x00").u16(1, 1), false},
		{"R64 AAAA of 4 octets", answerTo(1).str(atQuestion).record(TypeAAAA, 1, 9, "\x01\x02\x03\x04"), false},
		{"R64 owner points to itself", answerTo(1).str(pointTo(33)).record(1, 1, 9, "\x01\x02\x03\x04"), false},
		{"R64 owner points forward", answerTo(1).str(pointTo(45)).record(1, 1, 9, "\x00\x00\x00\x00"), false},
		{"R64 owner points to the header", answerTo(1).str(pointTo(2)).record(1, 1, 9, "\x01\x02\x03\x04"), false},
		{"R64 CNAME loop", answerTo(1).str(atQuestion).record(TypeCNAME, 1, 9, pointTo(45)), false},
		{"R64 CNAME beyond RDATA", answerTo(1).str(atQuestion).record(TypeCNAME, 1, 9, "\x03ab"), false},
		{"R64 CNAME with a rest", answerTo(1).str(atQuestion).record(TypeCNAME, 1, 9, "\x01a\x00x"), false},
		{"R64 empty CNAME", answerTo(1).str(atQuestion).record(TypeCNAME, 1, 9, ""), false},
		{"R64 short SOA", answerTo(0, 1).str(atQuestion).record(TypeSOA, 1, 9, soa[1:]), false},
		{"R64 MX without name", answerTo(1).str(atQuestion).record(TypeMX, 1, 9, "\x00\x01"), false},
		{"R64 NAPTR strings overrun", answerTo(1).str(atQuestion).record(35, 1, 9, "\x00\x01\x00\x01\x09a\x00\x00\x00"), false},
		{"R48 NAPTR", answerTo(1).str(atQuestion).record(35, 1, 9, "\x00\x01\x00\x01\x01a\x00\x01b\x01c\x00"), true},
		{"R48 HTTPS", answerTo(1).str(atQuestion).record(TypeHTTPS, 1, 9, "\x00\x01\x00\x00\x04\x00\x04\x01\x02\x03\x04"), true},
		{"R28 OPT", answerTo(0, 0, 1).opt(1232, 0, option(15, "\x00\x16")), true},
		{"R64 two OPTs", answerTo(0, 0, 2).opt(1232, 0, "").opt(1232, 0, ""), false},
		{"R64 OPT in the answer section", answerTo(1).opt(1232, 0, ""), false},
		{"R64 OPT with an owner", answerTo(0, 0, 1).str(atQuestion).record(TypeOPT, 1232, 0, ""), false},
		{"R64 option overruns", answerTo(0, 0, 1).opt(1232, 0, "\x00\x01\x00\x01"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Reply
			if got := r.Parse(c.msg); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	t.Run("R64 fields", func(t *testing.T) {
		m := answerTo(2, 0, 1).str(atQuestion).record(TypeCNAME, 1, 300, "\x01a"+pointTo(16)).
			str(pointTo(45)).record(TypeAAAA, 1, 60, strings.Repeat("x", 16)).opt(4096, 1<<24, "")
		var r Reply
		if !r.Parse(append(m, 1, 2, 3)) || r.Types != HasCNAME|HasAddress || r.MinTTL != 60 || r.Rcode != BadVers ||
			r.OPT != len(m)-11 || r.OPTLen != 11 || r.End != len(m) || r.Counts != [3]uint16{2, 0, 1} || r.QEnd != 33 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("R65 a TTL with the top bit counts as 0", func(t *testing.T) {
		var r Reply
		if !r.Parse(answerTo(1).str(atQuestion).record(1, 1, 1<<31, "1234")) || r.MinTTL != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("R64 bounded work", func(t *testing.T) {
		m := worst()
		var r Reply
		start := time.Now()
		if !r.Parse(m) {
			t.Error("not whole")
		}
		t.Logf("%v for %d bytes, %d records", time.Since(start), len(m), r.Counts[0])
	})
}

// worst is 64 KiB of records whose owners are as long and as often compressed as SkipName lets them be. Its work is
// bounded by maxPointers and MaxName a record; one pointer more is refused (TestSkipAndExpand).
func worst() message {
	names := message(strings.Repeat("\x01a", 60) + "\x00")
	data := 33 + 1 + recordFixed // where the RDATA with the names begins
	last := data
	for range maxPointers - 1 {
		here := data + len(names)
		names = names.str(pointTo(last))
		last = here
	}
	m := answerTo(0).str("\x00").record(65280, ClassIN, 0, string(names))
	n := uint16(1)
	for ; len(m) < 65500; n++ {
		m = m.str(pointTo(last)).record(TypeA, ClassIN, 0, "1234")
	}
	put16(m[6:], n)
	return m
}

func TestTTLs(t *testing.T) {
	m := answerTo(3, 0, 1).str(atQuestion).record(1, 1, 300, "1234").str(atQuestion).record(1, 1, 5, "1234").
		str(atQuestion).record(1, 1, 1<<31|7, "1234").opt(1232, 0x8000, "")
	ttls := func(m message) (out []uint32) {
		for _, rr := range unpack(t, m).Answer {
			out = append(out, rr.Header().Ttl)
		}
		return out
	}
	check := func(name string, got []uint32, want ...uint32) {
		t.Helper()
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %v, want %v", name, got, want)
				return
			}
		}
	}
	capped := bytes.Clone(m)
	CapTTLs(capped, 33, 60)
	check("R65 cap", ttls(capped), 60, 5, 0)
	aged := bytes.Clone(m)
	AgeTTLs(aged, 33, 100, 0)
	check("R55 age", ttls(aged), 200, 0, 0)
	aged = bytes.Clone(m)
	AgeTTLs(aged, 33, 299, 3)
	check("R55 age with a floor", ttls(aged), 3, 3, 0)
	if !unpack(t, capped).IsEdns0().Do() {
		t.Error("the OPT was changed")
	}
}

func TestFitOPT(t *testing.T) {
	rec := func(m message) message { return m.str(atQuestion).record(1, 1, 9, "1234") }
	hop := option(10, "1234567812345678") + option(11, "\x00\x10") + option(12, "\x00\x00")
	ede := EDEOption(3, "old")
	plain := Asked{Type: TypeA, QEnd: 33, Size: 512}
	edns := Asked{Type: TypeA, QEnd: 33, Size: 1232, EDNS: true, DO: true}
	keep := Asked{Type: TypeA, QEnd: 33, Size: 1232, EDNS: true, Options: HasKeepalive}
	for _, c := range []struct {
		name      string
		msg, want message
		a         Asked
		ede       []byte
		tr        Transport
	}{
		{"R28 neither has one", rec(answerTo(1)), rec(answerTo(1)), plain, ede, Transport{}},
		{"R28 removed", rec(answerTo(1, 0, 1)).opt(4096, 0, hop), rec(answerTo(1, 0, 0)), plain, ede, Transport{}},
		{"R28 removed before others", rec(rec(answerTo(1, 0, 2)).opt(4096, 0, hop)), rec(rec(answerTo(1, 0, 1))), plain, nil, Transport{}},
		{"R28 appended", rec(answerTo(1)), rec(answerTo(1, 0, 1)).opt(1232, 0x8000, ""), edns, nil, Transport{}},
		{"R31 R32 R33 rebuilt", rec(answerTo(1, 0, 1)).opt(4096, 0x00057fff, hop+option(3, "id")),
			rec(answerTo(1, 0, 1)).opt(1232, 0x8000, option(3, "id")), edns, nil, Transport{}},
		{"R37 EDE added", answerTo(0, 0, 1).opt(4096, 0, ""), answerTo(0, 0, 1).opt(1232, 0x8000, string(ede)), edns, ede, Transport{}},
		{"R37 upstream's EDE passed", answerTo(0, 0, 1).opt(4096, 0, option(15, "\x00\x06")),
			answerTo(0, 0, 1).opt(1232, 0x8000, option(15, "\x00\x06")), edns, ede, Transport{}},
		{"R35 keepalive over TCP", answerTo(0, 0, 1).opt(4096, 0, hop), answerTo(0, 0, 1).opt(1232, 0, option(11, "\x01\x2c")), keep, nil, Transport{TCP: true, Keepalive: 300}},
		{"R28 longer before others", rec(answerTo(0, 0, 2).opt(4096, 0, "")), rec(answerTo(0, 0, 2).opt(1232, 0x8000, string(ede))), edns, ede, Transport{}},
		{"R29 high rcode bits kept", answerTo(0, 0, 1).opt(4096, 1<<24, ""), answerTo(0, 0, 1).opt(1232, 1<<24|0x8000, ""), edns, nil, Transport{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			buf := make([]byte, 600)
			var r Reply
			n := copy(buf, c.msg)
			copy(buf[n:], "rubbish")
			if !r.Parse(buf[:n+7]) {
				t.Fatal("not whole")
			}
			if got := buf[:r.FitOPT(buf, &c.a, c.ede, c.tr)]; !bytes.Equal(got, c.want) {
				t.Errorf("got  %x\nwant %x", got, []byte(c.want))
			}
		})
	}
	t.Run("R29 a high rcode without OPT becomes SERVFAIL", func(t *testing.T) {
		m := answerTo(0, 0, 1).opt(4096, 1<<24, "")
		var r Reply
		r.Parse(m)
		if got := unpack(t, m[:r.FitOPT(m, &plain, nil, Transport{})]); got.Rcode != dns.RcodeServerFailure {
			t.Error(got)
		}
	})
	t.Run("R49 names that would break", func(t *testing.T) {
		m := answerTo(0, 0, 3).opt(4096, 0, "").name("b").record(1, 1, 0, "1234")
		at := len(m) - 17
		for _, bad := range []message{
			bytes.Clone(m.str(pointTo(at)).record(1, 1, 0, "1234")),
			bytes.Clone(m.name("c").record(TypeCNAME, 1, 0, pointTo(at))),
			bytes.Clone(m.name("c").record(TypeSOA, 1, 0, "\x00"+pointTo(at)+strings.Repeat("\x00", 20))),
		} {
			var r Reply
			if !r.Parse(bad) {
				t.Fatal("not whole")
			}
			before := bytes.Clone(bad)
			if n := r.FitOPT(bad, &plain, nil, Transport{}); n != 0 || !bytes.Equal(before, bad) {
				t.Errorf("%d: changed", n)
			}
			if n := r.FitOPT(append(bad, make([]byte, 64)...), &edns, ede, Transport{}); n != 0 {
				t.Errorf("%d", n)
			}
		}
	})
}

func TestRestore(t *testing.T) {
	question := []byte("\x03wWw\x07EXAMPLE\x03com\x00\x00\x01\x00\x01")
	for _, c := range []struct {
		name     string
		a        Asked
		up, want uint16
	}{
		{"R1 RD of the client", Asked{Flags: 0}, FlagQR | FlagRD, FlagQR | FlagRA},
		{"R2 RA always", Asked{Flags: FlagRD}, FlagQR, FlagQR | FlagRD | FlagRA},
		{"R3 AA and TC pass", Asked{}, FlagQR | FlagAA | FlagTC, FlagQR | FlagRA | FlagAA | FlagTC},
		{"R4 Z cleared", Asked{Flags: FlagZ}, FlagQR | FlagZ, FlagQR | FlagRA},
		{"R5 CD of the client", Asked{Flags: FlagCD}, FlagQR, FlagQR | FlagRA | FlagCD},
		{"R6 AD not set by us", Asked{Flags: FlagAD, DO: true}, FlagQR, FlagQR | FlagRA},
		{"R7 AD with AD", Asked{Flags: FlagAD}, FlagQR | FlagAD, FlagQR | FlagRA | FlagAD},
		{"R7 AD with DO", Asked{DO: true}, FlagQR | FlagAD, FlagQR | FlagRA | FlagAD},
		{"R7 no AD without", Asked{}, FlagQR | FlagAD, FlagQR | FlagRA},
		{"R53 rcode passes", Asked{}, FlagQR | 3, FlagQR | FlagRA | 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := header(0x1111, c.up, 1).name("www.example.com").u16(1, 1)
			c.a.ID = 0xABCD
			c.a.Restore(m, question)
			if be16(m) != 0xABCD || be16(m[2:]) != c.want {
				t.Errorf("%x, want flags %x", []byte(m[:4]), c.want)
			}
			if !bytes.Equal(m[12:], question) {
				t.Error("R16 letter case")
			}
		})
	}
}
