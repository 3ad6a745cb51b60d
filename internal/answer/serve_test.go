package answer

import (
	"strings"
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

func TestLocalAnswers(t *testing.T) {
	c := newClient(t,
		&Spec{Name: "both.example", TTL: 7, Sets: [2]SetSpec{plain(addrs("192.0.2.1")...), plain(addrs("2001:db8::1")...)}},
		spec("v4.example"))
	t.Run("R1 R3 contract: AA and RA set, RD copied", func(t *testing.T) {
		for _, rd := range []bool{true, false} {
			m, res := c.ask("both.example", dns.TypeA, func(m *dns.Msg) { m.RecursionDesired = rd })
			if !m.Authoritative || m.RecursionDesired != rd || m.Rcode != 0 || m.Truncated || res.Source != SourceLocal {
				t.Error(m)
			}
		}
	})
	t.Run("R4 R5 R6 Z, CD, AD, and the bits of a reply in a query", func(t *testing.T) {
		m, _ := c.ask("both.example", dns.TypeA, func(m *dns.Msg) {
			m.Zero, m.CheckingDisabled, m.AuthenticatedData, m.Truncated, m.Rcode = true, true, true, true, 3
		})
		if !m.CheckingDisabled || m.Truncated || m.Rcode != 0 || len(m.Answer) != 1 {
			t.Error(m)
		}
	})
	t.Run("R15 R87 letter case echoed, not looked at", func(t *testing.T) {
		m, _ := c.ask("BoTh.ExAmPlE", dns.TypeA)
		if len(m.Answer) != 1 || m.Answer[0].Header().Name != "BoTh.ExAmPlE." {
			t.Error(m)
		}
	})
	t.Run("R79 owner, class, TTL, address", func(t *testing.T) {
		for qtype, want := range map[uint16]string{dns.TypeA: "192.0.2.1", dns.TypeAAAA: "2001:db8::1"} {
			m, _ := c.ask("both.example", qtype)
			h := m.Answer[0].Header()
			if len(m.Answer) != 1 || addresses(m)[0] != want || h.Ttl != 7 || h.Class != 1 || h.Rrtype != qtype || h.Name != "both.example." {
				t.Error(m)
			}
		}
	})
	t.Run("R82 other types and other names are forwarded", func(t *testing.T) {
		for _, qtype := range []uint16{dns.TypeMX, dns.TypeTXT, dns.TypeSOA, dns.TypeNS, dns.TypePTR, dns.TypeDS, 65280} {
			if m, res := c.ask("both.example", qtype); m != nil || res.Action != Ask || res.Entry == nil || res.Slot != 0 || res.Owner != 12 {
				t.Errorf("type %d: %+v", qtype, res)
			}
		}
		if m, res := c.ask("other.example", dns.TypeA); m != nil || res.Action != Ask || res.Entry != nil || res.Slot != -1 {
			t.Errorf("%+v", res)
		}
	})
	t.Run("R83 R84 NODATA with an SOA", func(t *testing.T) {
		m, _ := c.ask("v4.example", dns.TypeAAAA)
		if m.Rcode != 0 || len(m.Answer) != 0 || len(m.Ns) != 1 || !m.Authoritative {
			t.Fatal(m)
		}
		soa, ok := m.Ns[0].(*dns.SOA)
		if !ok || soa.Hdr.Name != "v4.example." || soa.Hdr.Ttl != 5 || soa.Minttl != 5 || soa.Hdr.Class != 1 ||
			soa.Ns != "v4.example." || soa.Mbox != "nobody.invalid." {
			t.Error(m)
		}
	})
	t.Run("R23 other classes", func(t *testing.T) {
		for _, class := range []uint16{dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassANY, dns.ClassNONE, 0, 77} {
			for _, name := range []string{"version.bind", "hostname.bind", "id.server", "version.server", "both.example"} {
				m, res := c.ask(name, dns.TypeTXT, func(m *dns.Msg) { m.Question[0].Qclass = class })
				if m.Rcode != dns.RcodeRefused || res.Source != SourceError || len(m.Answer) != 0 {
					t.Error(m)
				}
			}
		}
	})
	t.Run("R24 ANY", func(t *testing.T) {
		m, _ := c.ask("both.example", dns.TypeANY)
		if h, ok := m.Answer[0].(*dns.HINFO); !ok || len(m.Answer) != 1 || h.Cpu != "RFC8482" || h.Os != "" || h.Hdr.Ttl != 7 {
			t.Error(m)
		}
		if _, res := c.ask("other.example", dns.TypeANY); res.Action != Ask {
			t.Error("not forwarded")
		}
	})
	t.Run("R25 zone transfers", func(t *testing.T) {
		for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
			if m, _ := c.ask("other.example", qtype); m.Rcode != dns.RcodeRefused {
				t.Error(m)
			}
		}
		m, _ := c.ask("both.example", dns.TypeIXFR, func(m *dns.Msg) {
			m.Ns = append(m.Ns, &dns.SOA{Hdr: dns.RR_Header{Name: "both.example.", Rrtype: dns.TypeSOA, Class: 1}, Ns: ".", Mbox: "."})
		})
		if m.Rcode != dns.RcodeRefused || len(m.Ns) != 0 {
			t.Error(m)
		}
	})
	t.Run("R26 types that nobody may ask for", func(t *testing.T) {
		for qtype, rcode := range map[uint16]int{0: 1, dns.TypeOPT: 1, dns.TypeTSIG: 1, 128: 1, 65535: 1, dns.TypeTKEY: 4, dns.TypeMAILA: 4, dns.TypeMAILB: 4} {
			for _, name := range []string{"both.example", "other.example"} {
				if m, res := c.ask(name, qtype); m.Rcode != rcode || res.Source != SourceError {
					t.Errorf("type %d: %v", qtype, m)
				}
			}
		}
	})
	t.Run("R27 TSIG", func(t *testing.T) {
		m, _ := c.ask("both.example", dns.TypeA, func(m *dns.Msg) {
			m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "k.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256})
		})
		if m.Rcode != dns.RcodeRefused || len(m.Answer) != 0 {
			t.Error(m)
		}
	})
	t.Run("R28 R31 R32 R33 R34 R36 OPT", func(t *testing.T) {
		for _, do := range []bool{true, false} {
			m, _ := c.ask("both.example", dns.TypeA, edns(4096, do, &dns.EDNS0_COOKIE{Code: 10, Cookie: "0011223344556677"},
				&dns.EDNS0_NSID{Code: 3}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}, &dns.EDNS0_PADDING{Padding: make([]byte, 9)}))
			o := m.IsEdns0()
			if len(m.Extra) != 1 || o.Version() != 0 || o.UDPSize() != 1232 || o.Do() != do || o.Z() != 0 || len(o.Option) != 0 || len(m.Answer) != 1 {
				t.Error(m)
			}
		}
		m, _ := c.ask("v4.example", dns.TypeAAAA, edns(1232, true))
		if len(m.Extra) != 1 || len(m.Ns) != 1 {
			t.Error(m)
		}
	})
	t.Run("R29 BADVERS", func(t *testing.T) {
		m, _ := c.ask("both.example", dns.TypeA, edns(1232, false), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) })
		if m.Rcode != dns.RcodeBadVers || len(m.Answer) != 0 {
			t.Error(m)
		}
	})
	t.Run("R35 keepalive", func(t *testing.T) {
		tcp := *c
		tcp.tr = wire.Transport{TCP: true, Keepalive: 200}
		m, _ := tcp.ask("both.example", dns.TypeA, edns(1232, false, &dns.EDNS0_TCP_KEEPALIVE{Code: 11}))
		if k, ok := m.IsEdns0().Option[0].(*dns.EDNS0_TCP_KEEPALIVE); !ok || k.Timeout != 200 {
			t.Error(m)
		}
		if m, _ := c.ask("both.example", dns.TypeA, edns(1232, false, &dns.EDNS0_TCP_KEEPALIVE{Code: 11})); len(m.IsEdns0().Option) != 0 {
			t.Error(m)
		}
	})
	t.Run("R8 R9 R10 R11 packets that are no query", func(t *testing.T) {
		for _, p := range []struct {
			packet string
			action Action
			rcode  int
		}{
			{"", Drop, 0}, {"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00", Drop, 0},
			{"\x00\x01\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01", Drop, 0},
			{"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", Answer, 1},
			{"\x00\x01\x28\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff", Answer, 4},
		} {
			if m, res, _ := c.raw([]byte(p.packet)); res.Action != p.action || m != nil && (m.Rcode != p.rcode || len(m.Question) != 0) {
				t.Errorf("%x: %+v\n%v", p.packet, res, m)
			}
		}
	})
}

func TestKinds(t *testing.T) {
	with := func(kind Kind, code int, text string, a ...string) *Spec {
		s := SetSpec{Kind: kind, Addrs: addrs(a...), Max: 1, EDE: code, EDEText: text}
		return &Spec{Name: "n.example", TTL: 3, Idle: true, Sets: [2]SetSpec{s, s}}
	}
	t.Run("R37 stale answers say so", func(t *testing.T) {
		c := newClient(t, with(Reply, 3, "last good", "192.0.2.1"))
		m, _ := c.ask("n.example", dns.TypeA, edns(1232, true))
		if e := ede(m); e == nil || e.InfoCode != 3 || e.ExtraText != "last good" || len(m.Answer) != 1 || !m.IsEdns0().Do() {
			t.Error(m)
		}
		if m, _ := c.ask("n.example", dns.TypeA); len(m.Answer) != 1 {
			t.Error(m)
		}
		if m, _ := c.ask("n.example", dns.TypeAAAA, edns(512, false)); ede(m) == nil || len(m.Ns) != 1 {
			t.Error(m)
		}
	})
	t.Run("R85 SERVFAIL when asked for", func(t *testing.T) {
		c := newClient(t, with(ServFail, 14, ""))
		m, res := c.ask("n.example", dns.TypeA, edns(1232, false))
		if e := ede(m); m.Rcode != 2 || e == nil || e.InfoCode != 14 || res.Source != SourceLocal || res.Entry == nil {
			t.Error(m)
		}
	})
	t.Run("forward", func(t *testing.T) {
		c := newClient(t, with(Forward, NoEDE, ""))
		if _, res := c.ask("n.example", dns.TypeA); res.Action != Ask || res.Entry == nil || res.Entry.TTL != 3 || !res.Entry.Idle {
			t.Errorf("%+v", res)
		}
	})
	t.Run("hold", func(t *testing.T) {
		c := newClient(t, with(Hold, NoEDE, "", "192.0.2.1"))
		if _, res := c.ask("n.example", dns.TypeA); res.Action != Wait || res.Slot != 0 {
			t.Errorf("%+v", res)
		}
		c.now = true
		if m, _ := c.ask("n.example", dns.TypeA); len(m.Answer) != 1 {
			t.Error(m)
		}
		if m, _ := c.ask("n.example", dns.TypeAAAA); len(m.Ns) != 1 {
			t.Error(m)
		}
	})
	t.Run("SVCB and HTTPS", func(t *testing.T) {
		for policy, action := range map[SVCB]Action{SVCBStrip: Ask, SVCBForward: Ask, SVCBNoData: Answer} {
			s := spec("n.example")
			s.SVCB = policy
			c := newClient(t, s)
			for _, qtype := range []uint16{dns.TypeSVCB, dns.TypeHTTPS} {
				m, res := c.ask("n.example", qtype)
				if res.Action != action || res.Entry.SVCB != policy || m != nil && (len(m.Ns) != 1 || m.Rcode != 0) {
					t.Errorf("%+v\n%v", res, m)
				}
			}
		}
	})
	t.Run("a nil entry is no name", func(t *testing.T) {
		c := newClient(t, spec("n.example"))
		c.table = c.table.With([]Change{{Slot: 0}})
		if _, res := c.ask("n.example", dns.TypeA); res.Action != Ask || res.Entry != nil || res.Slot != -1 {
			t.Errorf("%+v", res)
		}
	})
}

func TestSizes(t *testing.T) {
	set := func(v6 bool, n, limit int) SetSpec { return SetSpec{Addrs: many(n, v6), Max: limit, EDE: NoEDE} }
	name := "n.example" // 11 octets: 27 bytes with header and question
	for _, c := range []struct {
		name    string
		n, max  int
		v6      bool
		size    uint16 // of the OPT; 0 = no OPT
		tcp     bool
		records int
	}{
		{"R39 25 A fit into 512", 25, 25, false, 0, false, 25},
		{"R39 as many A as fit", 100, 100, false, 0, false, (512 - 27) / 16},
		{"R39 as many AAAA as fit", 100, 100, true, 0, false, (512 - 27) / 28},
		{"R33 with OPT below 512", 100, 100, false, 100, false, (512 - 27 - 11) / 16},
		{"R33 with OPT of 800", 100, 100, false, 800, false, (800 - 27 - 11) / 16},
		{"R33 with OPT of 4096", 100, 100, false, 4096, false, (1232 - 27 - 11) / 16},
		{"R42 over TCP", 100, 100, false, 0, true, 100},
		{"max 1", 100, 1, false, 4096, false, 1},
		{"max 3", 100, 3, true, 4096, false, 3},
		{"max above what there is", 2, 9, true, 0, false, 2},
		{"max 0: 512 bytes in any case", 100, 0, false, 4096, false, (512 - 27) / 16},
		{"max 0 with OPT of 512", 100, 0, false, 512, false, (512 - 27 - 11) / 16},
		{"max 0 over TCP", 100, 0, true, 0, true, (512 - 27) / 28},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{set(false, c.n, c.max), set(true, c.n, c.max)}}
			cl := newClient(t, s)
			cl.tr.TCP = c.tcp
			qtype, options := uint16(dns.TypeA), []func(*dns.Msg){}
			if c.v6 {
				qtype = dns.TypeAAAA
			}
			if c.size > 0 {
				options = append(options, edns(c.size, false))
			}
			m, _ := cl.ask(name, qtype, options...)
			want := many(c.records, c.v6)
			if len(m.Answer) != c.records || m.Truncated {
				t.Fatalf("%d records, TC %v; want %d", len(m.Answer), m.Truncated, c.records)
			}
			for i, a := range addresses(m) {
				if a != want[i].String() {
					t.Fatalf("record %d is %s", i, a)
				}
			}
		})
	}
	t.Run("R37 R39 addresses before explanations", func(t *testing.T) {
		long := SetSpec{Addrs: many(40, false), Max: 28, EDE: 3, EDEText: strings.Repeat("x", 200)}
		cl := newClient(t, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{long, plain()}})
		if m, _ := cl.ask(name, dns.TypeA, edns(512, false)); len(m.Answer) != 28 || ede(m) != nil {
			t.Error(m)
		}
		if m, _ := cl.ask(name, dns.TypeA, edns(1232, false)); len(m.Answer) != 28 || ede(m) == nil {
			t.Error(m)
		}
	})
	t.Run("R42 never more than the buffer", func(t *testing.T) {
		tb := table(t, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{set(false, 100, 100), plain()}})
		var q wire.Query
		buf := make([]byte, 600)
		res := tb.Serve(&q, buf, copy(buf, packet(t, name, dns.TypeA, true)), wire.Transport{TCP: true}, new(Counters).NewRotor())
		if want := 27 + 16*((600-27-11)/16) + 11; res.N != want {
			t.Errorf("%d bytes, want %d", res.N, want)
		}
	})
	t.Run("R21 the longest name", func(t *testing.T) {
		l := strings.Repeat("a", 63)
		longest := l + "." + l + "." + l + "." + strings.Repeat("b", 61)
		s := spec(longest)
		s.Sets[1].EDE, s.Sets[1].EDEText = 3, strings.Repeat("x", 255)
		cl := newClient(t, s)
		if m, _ := cl.ask(longest, dns.TypeA); len(m.Answer) != 1 {
			t.Error(m)
		}
		if m, _ := cl.ask(longest, dns.TypeAAAA, edns(512, false)); len(m.Ns) != 1 || ede(m) != nil {
			t.Error(m)
		}
	})
}

func TestSpecialNames(t *testing.T) {
	override := spec("localhost")
	c := newClient(t, spec("a.example"))
	loopback6, err := dns.ReverseAddr("::1")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		id    string
		name  string
		qtype uint16
		rcode int
		want  string // RDATA; "" = none, but an SOA owned by soa
		soa   string
	}{
		{"R93", "localhost", dns.TypeA, 0, "127.0.0.1", ""},
		{"R93", "LocalHost", dns.TypeAAAA, 0, "::1", ""},
		{"R93", "a.b.localhost", dns.TypeA, 0, "127.0.0.1", ""},
		{"R93", "localhost", dns.TypeMX, 0, "", "localhost."},
		{"R93", "a.localhost", dns.TypeHTTPS, 0, "", "localhost."},
		{"R94", "invalid", dns.TypeA, 3, "", "invalid."},
		{"R94", "a.b.invalid", dns.TypeTXT, 3, "", "invalid."},
		{"R94", "onion", dns.TypeANY, 3, "", "onion."},
		{"R94", "x.onion", dns.TypeAAAA, 3, "", "onion."},
		{"R95", "1.0.0.127.in-addr.arpa", dns.TypePTR, 0, "localhost.", ""},
		{"R95", "1.0.0.127.in-addr.arpa", dns.TypeA, 0, "", "1.0.0.127.in-addr.arpa."},
		{"R95", "0.0.127.in-addr.arpa", dns.TypePTR, 0, "", "0.0.127.in-addr.arpa."},
		{"R95", "2.0.0.127.in-addr.arpa", dns.TypePTR, 3, "", "127.in-addr.arpa."},
		{"R95", "127.in-addr.arpa", dns.TypeNS, 0, "", "127.in-addr.arpa."},
		{"R95", loopback6, dns.TypePTR, 0, "localhost.", ""},
		{"R96", "_dns.resolver.arpa", dns.TypeSVCB, 0, "", "resolver.arpa."},
		{"R96", "resolver.arpa", dns.TypeSOA, 0, "", "resolver.arpa."},
	} {
		t.Run(q.id+" "+q.name+" "+dns.TypeToString[q.qtype], func(t *testing.T) {
			m, res := c.ask(q.name, q.qtype, edns(1232, false))
			if m == nil || res.Source != SourceSpecial || res.Entry != nil || res.Slot != -1 || m.Rcode != q.rcode || !m.Authoritative {
				t.Fatalf("%+v\n%v", res, m)
			}
			if q.want == "" {
				if len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Name != q.soa {
					t.Error(m)
				}
				return
			}
			if len(m.Answer) != 1 || !strings.HasSuffix(m.Answer[0].String(), "\t"+q.want) {
				t.Error(m)
			}
		})
	}
	t.Run("R91 R94 R95 R96 forwarded", func(t *testing.T) {
		for _, name := range []string{"test", "a.local", "home.arpa", "x.internal", "1.168.192.in-addr.arpa", "1.2.0.192.in-addr.arpa",
			"use-application-dns.net", "notlocalhost", "localhost.example", "arpa", "in-addr.arpa", "."} {
			if _, res := c.ask(name, dns.TypePTR); res.Action != Ask {
				t.Errorf("%s is not forwarded", name)
			}
		}
	})
	t.Run("R93 a configured name goes first", func(t *testing.T) {
		c := newClient(t, override)
		if m, res := c.ask("localhost", dns.TypeA); addresses(m)[0] != "192.0.2.1" || res.Slot != 0 {
			t.Error(m)
		}
		if m, _ := c.ask("x.localhost", dns.TypeA); addresses(m)[0] != "127.0.0.1" {
			t.Error(m)
		}
	})
}

func TestNoDataForTheForwarder(t *testing.T) {
	c := newClient(t, spec("*.w.example"))
	m := new(dns.Msg)
	m.SetQuestion("a.b.w.example.", dns.TypeMX)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 512)
	var q wire.Query
	res := c.table.Serve(&q, buf, copy(buf, packed), wire.Transport{}, c.rotor)
	if res.Action != Ask || res.Entry == nil {
		t.Fatalf("%+v", res)
	}
	n := NoData(&q.Asked, buf, res.Owner, res.Entry.TTL, nil, wire.Transport{})
	reply := new(dns.Msg)
	if err := reply.Unpack(buf[:n]); err != nil || reply.Rcode != 0 || reply.Ns[0].Header().Name != "w.example." {
		t.Error(err, reply)
	}
}
