package answer

import (
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

// TestR37Rejections: what is neither answered nor forwarded says why, if there is an OPT to say it in, and keeps the
// client's OPT in any case (R28).
func TestR37Rejections(t *testing.T) {
	ask := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg)
		m.SetQuestion("both.example.", dns.TypeA)
		m.SetEdns0(1232, true)
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	qtype := func(n uint16) []byte { return ask(func(m *dns.Msg) { m.Question[0].Qtype = n }) }
	both := ask(func(*dns.Msg) {})
	for _, c := range []struct {
		name   string
		packet []byte
		rcode  int
		code   int // -1: none
		text   string
	}{
		{"R8 opcode", ask(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), 4, 21, "only opcode QUERY is served"},
		{"R10 two questions", ask(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), 1, 0, "malformed query"},
		{"R23 class", ask(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), 5, 21, "only class IN is served"},
		{"R25 AXFR", qtype(dns.TypeAXFR), 5, 21, "zones are not transferred"},
		{"R25 IXFR", qtype(dns.TypeIXFR), 5, 21, "zones are not transferred"},
		{"R26 type 0", qtype(0), 1, 30, ""},
		{"R26 type NXNAME", qtype(dns.TypeNXNAME), 1, 30, ""},
		{"R26 type TKEY", qtype(dns.TypeTKEY), 4, 21, "this type is not served"},
		{"R27 signed", ask(func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256})
		}), 5, 21, "signed queries are not forwarded"},
		{"R29 version", ask(func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers, -1, ""},
		{"R30 two OPTs", ask(func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), 1, 0, "malformed query"},
		{"R34 cookie", ask(func(m *dns.Msg) {
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "00"}}
		}), 1, 0, "malformed query"},
		{"R94 special-use name", ask(func(m *dns.Msg) { m.Question[0].Name = "x.invalid." }), 3, 21, "special-use name, never forwarded"},
		{"R94 special-use name, another type", ask(func(m *dns.Msg) { m.Question[0] = dns.Question{Name: "onion.", Qtype: dns.TypeTXT, Qclass: 1} }), 3, 21, "special-use name, never forwarded"},
		{"R95 what is not there", ask(func(m *dns.Msg) { m.Question[0].Name = "9.127.in-addr.arpa." }), 3, -1, ""},
		{"svcb = nodata", qtype(dns.TypeHTTPS), 0, 0, "svcb = nodata"},
		{"a normal answer", both, 0, -1, ""},
		{"a family without candidates", qtype(dns.TypeAAAA), 0, -1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec("both.example")
			s.SVCB = SVCBNoData
			m, _, _ := newClient(t, s).raw(c.packet)
			if m == nil || m.Rcode != c.rcode || m.IsEdns0() == nil || !m.IsEdns0().Do() || len(m.Extra) != 1 {
				t.Fatal(m)
			}
			switch e := ede(m); {
			case c.code < 0:
				if e != nil {
					t.Error(e)
				}
			case e == nil || int(e.InfoCode) != c.code || e.ExtraText != c.text:
				t.Error(e)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		var q wire.Query
		buf := make([]byte, 512)
		n := copy(buf, both)
		buf[2] |= 0x80
		if v := q.Parse(buf[:n]); Reject(&q, v, buf, wire.Transport{}) != 0 {
			t.Error("a response is answered")
		}
	})
}

// Thousands of names that are down share one option, whichever of them is built again.
func TestEDEOptionsAreShared(t *testing.T) {
	a, b := edeOption(3, "x"), edeOption(3, string([]byte{'x'}))
	if &a[0] != &b[0] {
		t.Error("two options for one text")
	}
	for _, other := range [][]byte{edeOption(3, "y"), edeOption(4, "y"), edeOption(4, "")} {
		if string(other) == string(a) {
			t.Errorf("%x", other)
		}
	}
}
