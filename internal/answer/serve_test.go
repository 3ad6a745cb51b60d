package answer

import (
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
	t.Run("R21 R22 the root and single labels are forwarded as they are", func(t *testing.T) {
		for _, name := range []string{".", "printer", "example"} {
			if _, res := c.ask(name, dns.TypeA); res.Action != Ask {
				t.Errorf("%s: %+v", name, res)
			}
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
		c := newClient(t, with(Hold, 14, "", "192.0.2.1"))
		if _, res := c.ask("n.example", dns.TypeA); res.Action != Wait || res.Slot != 0 {
			t.Errorf("%+v", res)
		}
		c.now = true
		if m, _ := c.ask("n.example", dns.TypeA); len(m.Answer) != 1 {
			t.Error(m)
		}
		// No address is known yet: that is no NODATA, which stubs would take for the truth and remember.
		m, res := c.ask("n.example", dns.TypeAAAA, edns(1232, false))
		if e := ede(m); m.Rcode != dns.RcodeServerFailure || len(m.Ns) != 0 || e == nil || e.InfoCode != 14 || res.Source != SourceLocal {
			t.Error(m)
		}
	})
	t.Run("R91 PTR of a name with several addresses", func(t *testing.T) {
		s := SetSpec{Addrs: many(3, false), Max: 3, EDE: NoEDE}
		c := newClient(t, &Spec{Name: "n.example", TTL: 3, Sets: [2]SetSpec{s, plain()}})
		if _, res := c.ask("n.example", dns.TypePTR); res.Action != Ask {
			t.Errorf("%+v", res)
		}
	})
	t.Run("R86 a TTL of days", func(t *testing.T) {
		const ttl = 7*86400 + 0x100
		c := newClient(t, &Spec{Name: "n.example", TTL: ttl, Sets: [2]SetSpec{plain(addrs("192.0.2.1")...), plain(addrs("2001:db8::1")...)}})
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY} {
			if m, _ := c.ask("n.example", qtype); len(m.Answer) != 1 || m.Answer[0].Header().Ttl != ttl {
				t.Error(m)
			}
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
