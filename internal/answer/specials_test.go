package answer

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

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
		{"R95", "1.0.0.127.in-addr.arpa", dns.TypeTXT, 0, "", "1.0.0.127.in-addr.arpa."},
		{"R95", loopback6, dns.TypePTR, 0, "localhost.", ""},
		{"R95", "0." + loopback6[2:], dns.TypePTR, 0, "", "0." + loopback6[2:]},
		{"R95", "0.in-addr.arpa", dns.TypePTR, 0, "", "0.in-addr.arpa."},
		{"R95", "0.0.0.0.in-addr.arpa", dns.TypePTR, 3, "", "0.in-addr.arpa."},
		{"R95", "255.255.255.255.in-addr.arpa", dns.TypePTR, 0, "", "255.255.255.255.in-addr.arpa."},
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
			"10.in-addr.arpa", "100.in-addr.arpa", "255.255.255.in-addr.arpa", "0.255.255.255.in-addr.arpa", "2." + loopback6[2:], loopback6[2:],
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
