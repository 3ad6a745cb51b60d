package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestForwardOPT(t *testing.T) {
	hop := option(10, "12345678") + option(11, "") + option(12, "\x00\x00")
	ecs := option(8, "\x00\x01\x18\x00\x01\x02\x03")
	forward := func(t *testing.T, m message) ([]byte, *Query) {
		t.Helper()
		var q Query
		buf := append(bytes.Clone(m), "rubbish"...)
		if v := q.Parse(buf); v != VerdictOK {
			t.Fatalf("verdict %d", v)
		}
		return buf[:q.ForwardOPT(buf)], &q
	}
	for _, c := range []struct {
		name      string
		msg, want message
	}{
		{"R14 no OPT", ask(FlagRD, "a", 0), ask(FlagRD, "a", 0)},
		{"R31 R33 size and flags", ask(0, "a", 1).opt(4096, 0xffff, ""), ask(0, "a", 1).opt(1232, 0x8000, "")},
		{"R34 cookie, keepalive and padding go", ask(0, "a", 1).opt(512, 0, hop), ask(0, "a", 1).opt(1232, 0, "")},
		{"R36 others stay", ask(0, "a", 1).opt(512, 0, option(3, "")+hop+ecs), ask(0, "a", 1).opt(1232, 0, option(3, "")+ecs)},
		{"R13 records behind move", ask(0, "a", 2).opt(512, 0, hop+ecs).name("b").record(1, 1, 0, "1234"),
			ask(0, "a", 2).opt(1232, 0, ecs).name("b").record(1, 1, 0, "1234")},
		{"R13 they stay without a change of length", ask(0, "a", 3).opt(512, 0, ecs).name("b").record(1, 1, 0, "1234").str(pointTo(41)).record(1, 1, 0, "1234"),
			ask(0, "a", 3).opt(1232, 0, ecs).name("b").record(1, 1, 0, "1234").str(pointTo(41)).record(1, 1, 0, "1234")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, q := forward(t, c.msg)
			if !bytes.Equal(got, c.want) {
				t.Errorf("got  %x\nwant %x", got, []byte(c.want))
			}
			var again Query
			if again.Parse(got) != VerdictOK || again.End != q.End || again.OPTLen != q.OPTLen {
				t.Error("q does not describe the new message")
			}
		})
	}
	t.Run("R13 names that would break", func(t *testing.T) {
		m := ask(0, "a", 3).opt(512, 0, hop).name("b").record(1, 1, 0, "1234")
		behind := len(m) - 17
		m = m.str(pointTo(behind)).record(1, 1, 0, "1234")
		if got, _ := forward(t, m); len(got) != 0 {
			t.Errorf("got %x", got)
		}
	})
	t.Run("R13 names that don't end where their record does", func(t *testing.T) {
		for rrtype, l := range layouts {
			if l.names == 0 {
				continue
			}
			for _, data := range []string{"", strings.Repeat("\x00", int(l.prefix)) + "A", strings.Repeat("\x01", 64), strings.Repeat("\xc0", 64)} {
				// Another record stands behind it, or nothing.
				for _, m := range []message{
					ask(0, "a", 2).opt(512, 0, hop).name("b").record(uint16(rrtype), 1, 0, data),
					ask(0, "a", 3).opt(512, 0, hop).name("b").record(uint16(rrtype), 1, 0, data).name("c").record(1, 1, 0, "1234"),
				} {
					var q Query
					buf := bytes.Clone(m) // no byte of rubbish behind it
					if v := q.Parse(buf); v != VerdictOK {
						t.Fatalf("verdict %d", v)
					}
					if n := q.ForwardOPT(buf); n != 0 {
						t.Errorf("type %d, %x: passed on as %x", rrtype, data, buf[:n])
					}
				}
			}
		}
	})
}

func TestErrorReplies(t *testing.T) {
	ede := EDEOption(22, "no upstream")
	for _, c := range []struct {
		name   string
		msg    message
		rcode  Rcode
		tr     Transport
		verify func(t *testing.T, m *dns.Msg, raw []byte)
	}{
		{"R1 ID, opcode and RD", header(0xABCD, FlagRD|4<<11, 1), NotImp, Transport{}, func(t *testing.T, m *dns.Msg, raw []byte) {
			if m.Id != 0xABCD || m.Opcode != 4 || !m.RecursionDesired || !m.Response || m.Rcode != 4 || len(raw) != 12 {
				t.Error(m)
			}
		}},
		{"R8 R28 OPT of another opcode", ask(5<<11, "a", 1).opt(1232, 1<<15, ""), NotImp, Transport{}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if m.Opcode != 5 || len(m.Question) != 0 || m.IsEdns0() == nil || !m.IsEdns0().Do() || len(m.Extra) != 1 {
				t.Error(m)
			}
		}},
		{"R8 R28 another opcode's body of another form", header(7, 6<<11).str("\x00\x01\x00\x04\x00\x00\x00\x00"), NotImp, Transport{}, func(t *testing.T, m *dns.Msg, raw []byte) {
			if m.Opcode != 6 || len(raw) != 12 {
				t.Error(m)
			}
		}},
		{"R28 a code above 15 has no place without OPT", ask(0, "a", 0), BadVers, Transport{}, func(t *testing.T, m *dns.Msg, raw []byte) {
			if m.Rcode != dns.RcodeServerFailure || len(m.Extra) != 0 {
				t.Error(m)
			}
		}},
		{"R2 R3 R4 R5 R6 header bits", ask(FlagAA|FlagTC|FlagRA|FlagZ|FlagAD|FlagCD|15, "a", 0), ServFail, Transport{}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if !m.RecursionAvailable || m.Authoritative || m.Truncated || m.Zero || !m.CheckingDisabled ||
				m.AuthenticatedData || m.RecursionDesired || m.Rcode != 2 {
				t.Error(m)
			}
		}},
		{"R11 no question", ask(0, "a", 0)[:14], FormErr, Transport{}, func(t *testing.T, m *dns.Msg, raw []byte) {
			if len(m.Question) != 0 || len(raw) != 12 {
				t.Error(m)
			}
		}},
		{"R15 question with its letter case", header(1, 0, 1).str("\x03wWw\x00").u16(1, 1), Refused, Transport{}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.Question) != 1 || m.Question[0].Name != "wWw." {
				t.Error(m)
			}
		}},
		{"R28 R32 R37 OPT with EDE", ask(0, "a", 1).opt(1232, 0xffff, option(65001, "x")), ServFail, Transport{}, func(t *testing.T, m *dns.Msg, _ []byte) {
			o := m.IsEdns0()
			if o == nil || len(m.Extra) != 1 || o.Version() != 0 || !o.Do() || o.Z() != 0 || o.UDPSize() != 1232 || len(o.Option) != 1 {
				t.Fatal(m)
			}
			if e, ok := o.Option[0].(*dns.EDNS0_EDE); !ok || e.InfoCode != 22 || e.ExtraText != "no upstream" {
				t.Error(o)
			}
		}},
		{"R28 no OPT without one, so no EDE", ask(0, "a", 0), ServFail, Transport{}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.Extra) != 0 {
				t.Error(m)
			}
		}},
		{"R29 BADVERS", ask(0, "a", 1).opt(1232, 3<<16, ""), BadVers, Transport{}, func(t *testing.T, m *dns.Msg, raw []byte) {
			if m.Rcode != dns.RcodeBadVers || raw[3]&15 != 0 || m.IsEdns0().Version() != 0 {
				t.Error(m)
			}
		}},
		{"R35 keepalive over TCP", ask(0, "a", 1).opt(1232, 0, option(11, "")), ServFail, Transport{TCP: true, Keepalive: 300}, func(t *testing.T, m *dns.Msg, _ []byte) {
			k, ok := m.IsEdns0().Option[1].(*dns.EDNS0_TCP_KEEPALIVE)
			if !ok || k.Timeout != 300 {
				t.Error(m)
			}
		}},
		{"R35 not told to who has not asked", ask(0, "a", 1).opt(1232, 0, option(65001, "")), ServFail, Transport{TCP: true, Keepalive: 300}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.IsEdns0().Option) != 1 {
				t.Error(m)
			}
		}},
		{"R35 no timeout to be told", ask(0, "a", 1).opt(1232, 0, option(11, "")), ServFail, Transport{TCP: true}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.IsEdns0().Option) != 1 {
				t.Error(m)
			}
		}},
		{"R35 not over UDP", ask(0, "a", 1).opt(1232, 0, option(11, "")), ServFail, Transport{Keepalive: 300}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.IsEdns0().Option) != 1 {
				t.Error(m)
			}
		}},
		{"R36 padding is not answered where nothing is encrypted", ask(0, "a", 1).opt(1232, 0, option(12, "\x00")), ServFail, Transport{TCP: true}, func(t *testing.T, m *dns.Msg, _ []byte) {
			if len(m.IsEdns0().Option) != 1 {
				t.Error(m)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q Query
			buf := make([]byte, 512)
			q.Parse(buf[:copy(buf, c.msg)])
			other := bytes.Repeat([]byte{0xff}, 512) // as the forwarder has it: the question alone is there
			copy(other[HeaderLen:max(q.QEnd, HeaderLen)], buf[HeaderLen:])
			raw := buf[:q.Error(buf, c.rcode, ede, c.tr)]
			c.verify(t, unpack(t, raw), raw)
			if want := max(int(q.QEnd), HeaderLen) + q.SizeOfOPT(ede, c.tr); len(raw) != want {
				t.Errorf("%d bytes, want %d", len(raw), want)
			}
			if raw2 := other[:q.Error(other, c.rcode, ede, c.tr)]; !bytes.Equal(raw, raw2) {
				t.Errorf("in another buffer: %x", raw2)
			}
		})
	}
	t.Run("R38 truncated", func(t *testing.T) {
		var q Query
		buf := make([]byte, 512)
		q.Parse(buf[:copy(buf, ask(0, "a", 1).opt(512, 0, ""))])
		m := unpack(t, buf[:q.Truncated(buf, NoError, Transport{})])
		if !m.Truncated || len(m.Question) != 1 || m.IsEdns0() == nil || len(m.Answer) != 0 {
			t.Error(m)
		}
	})
	t.Run("R37 R38 an EDE that does not fit is left out", func(t *testing.T) {
		var q Query
		buf := make([]byte, 1232)
		q.Parse(buf[:copy(buf, ask(0, name255(), 1).opt(512, 0, ""))])
		n := q.Error(buf, ServFail, EDEOption(22, strings.Repeat("é", 200)), Transport{})
		if o := unpack(t, buf[:n]).IsEdns0(); n > 512 || o == nil || len(o.Option) != 0 {
			t.Error(n, o)
		}
		const room = 512 - HeaderLen - MaxName - 4 - 11 - 6 // for the text
		for _, c := range []struct{ text, kept int }{{room, 1}, {room + 1, 0}} {
			n := q.Error(buf, ServFail, EDEOption(22, strings.Repeat("x", c.text)), Transport{})
			if o := unpack(t, buf[:n]).IsEdns0(); len(o.Option) != c.kept {
				t.Errorf("text of %d octets: %d bytes, %v", c.text, n, o)
			}
		}
	})
}

func TestEDEText(t *testing.T) {
	if o := EDEOption(1, strings.Repeat("é", 200)); len(o) != 6+254 {
		t.Errorf("%d octets: a character was cut", len(o))
	}
}

func TestNoAllocations(t *testing.T) {
	msgs := []message{ask(0, "www.example.com", 1).opt(1232, 0, option(10, "12345678")),
		ask(0, "a", 2).opt(512, 0, "").name("k").record(TypeTSIG, 255, 0, ""), header(1, 0, 2)}
	buf := make([]byte, MaxUDP)
	ede := EDEOption(22, "x")
	var q Query
	if n := testing.AllocsPerRun(100, func() {
		for _, m := range msgs {
			n := copy(buf, m)
			if q.Parse(buf[:n]) == VerdictOK {
				q.ForwardOPT(buf)
			}
			q.Error(buf, ServFail, ede, Transport{})
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
