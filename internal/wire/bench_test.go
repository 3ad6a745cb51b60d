package wire

import (
	"testing"

	"github.com/miekg/dns"
)

func query(tb testing.TB, name string, qtype uint16, edns bool) []byte {
	tb.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	if edns {
		m.SetEdns0(1232, true)
	}
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func BenchmarkParse(b *testing.B) {
	for _, c := range []struct {
		name string
		edns bool
	}{{"plain", false}, {"edns", true}} {
		b.Run(c.name, func(b *testing.B) {
			msg := query(b, "host-1234.api.example.com", dns.TypeA, c.edns)
			var q Query
			b.ReportAllocs()
			for b.Loop() {
				if q.Parse(msg) != VerdictOK {
					b.Fatal("not OK")
				}
			}
		})
	}
}

func BenchmarkParseReply(b *testing.B) {
	m := new(dns.Msg)
	m.SetQuestion("www.example.com.", dns.TypeA)
	m.SetEdns0(1232, false)
	m.Response, m.RecursionAvailable, m.Compress = true, true, true
	for _, s := range []string{"www.example.com. 300 IN CNAME edge.example.net.", "edge.example.net. 60 IN A 192.0.2.1",
		"edge.example.net. 60 IN A 192.0.2.2"} {
		rr, err := dns.NewRR(s)
		if err != nil {
			b.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	msg, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	name, err := AppendName(nil, "www.example.com")
	if err != nil {
		b.Fatal(err)
	}
	var r Reply
	b.ReportAllocs()
	for b.Loop() {
		if MatchReply(msg, name, TypeA, ClassIN) != MatchYes || !r.Parse(msg) {
			b.Fatal("not OK")
		}
	}
}
