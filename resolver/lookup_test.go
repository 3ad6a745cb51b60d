package resolver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/answer"
)

// LookupAddrs: all addresses, CNAMEs followed, negative answers no error,
// failures errors, TCP after TC, routes heeded.
func TestLookupAddrs(t *testing.T) {
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			name := m.Question[0].Name
			m.Answer = nil
			soa := mustRR("example. 300 IN SOA a. b. 1 2 3 4 77")
			switch name {
			case "many.example.":
				n := 3
				if tcp {
					n = 200
				}
				m.Truncated = !tcp
				for i := range n {
					m.Answer = append(m.Answer, mustRR(fmt.Sprintf("%s 30 IN A 10.0.0.%d", name, i)))
				}
			case "alias.example.":
				m.Answer = []dns.RR{mustRR("alias.example. 20 IN CNAME Real.example."), mustRR("real.example. 30 IN AAAA 2001:db8::1"),
					mustRR("stray.example. 30 IN AAAA 2001:db8::2")}
			case "none.example.":
				m.Ns = []dns.RR{soa}
			case "nx.example.":
				m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
			default:
				m.Rcode = dns.RcodeServerFailure
			}
		})}
	})
	o := optionsTo(newFarEnd(t, withRcode(dns.RcodeRefused)))
	o.Routes = []Route{{"example", []Server{u.server()}}}
	f := testForwarder(t, o)
	for _, c := range []struct {
		host string
		v6   bool
		n    int
		ttl  time.Duration
		ok   bool
	}{
		{"many.example", false, 200, 30 * time.Second, true},
		{"alias.example", true, 1, 20 * time.Second, true},
		{"none.example", false, 0, 77 * time.Second, true},
		{"nx.example", true, 0, 77 * time.Second, true},
		{"fails.example", false, 0, 0, false},
		{"elsewhere.test", false, 0, 0, false},
	} {
		addrs, ttl, err := f.LookupAddrs(t.Context(), c.host, c.v6)
		if len(addrs) != c.n || ttl != c.ttl || (err == nil) != c.ok {
			t.Errorf("%s: %d addresses, %v, %v", c.host, len(addrs), ttl, err)
		}
		if err != nil && !errors.Is(err, ErrLookup) {
			t.Errorf("%s: %v", c.host, err)
		}
	}
	if _, _, err := f.LookupAddrs(t.Context(), strings.Repeat("x", 64), false); err == nil {
		t.Error("no error for a name that cannot be")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.LookupAddrs(ctx, "many.example", false); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
}

// Contract section 4: SVCB and HTTPS of a configured name.
func TestRewriteSVCB(t *testing.T) {
	own := func(p answer.SVCB) *answer.Entry { return &answer.Entry{TTL: 7, SVCB: p} }
	for name, c := range map[string]struct {
		records []string
		want    []string // nil: NODATA
		policy  answer.SVCB
	}{
		"hints": {[]string{`o.example. 60 IN HTTPS 1 . alpn="h2" ipv4hint="10.0.0.1" ipv6hint="2001:db8::1" port="8443"`},
			[]string{`o.example. 60 IN HTTPS 1 . alpn="h2" port="8443"`}, answer.SVCBStrip},
		"mandatory": {[]string{`o.example. 60 IN HTTPS 1 . mandatory="ipv4hint" ipv4hint="10.0.0.1"`},
			[]string{`o.example. 60 IN HTTPS 1 .`}, answer.SVCBStrip},
		"unknown keys stay": {[]string{`o.example. 60 IN HTTPS 2 o.example. ipv4hint="10.0.0.1" key65000="\200x"`},
			[]string{`o.example. 60 IN HTTPS 2 o.example. key65000="\200x"`}, answer.SVCBStrip},
		"alias":   {[]string{"o.example. 60 IN HTTPS 0 other.example."}, nil, answer.SVCBStrip},
		"foreign": {[]string{`o.example. 60 IN HTTPS 1 other.example. alpn="h2"`}, nil, answer.SVCBStrip},
		"cname":   {[]string{"o.example. 60 IN CNAME x.example.", `x.example. 60 IN HTTPS 1 . alpn="h2"`}, nil, answer.SVCBStrip},
		"forward": {[]string{`o.example. 60 IN HTTPS 1 . ipv4hint="10.0.0.1"`}, []string{`o.example. 60 IN HTTPS 1 . ipv4hint="10.0.0.1"`}, answer.SVCBForward},
	} {
		u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
			return [][]byte{replyTo(q, func(m *dns.Msg) {
				m.Answer = nil
				for _, s := range c.records {
					m.Answer = append(m.Answer, mustRR(s))
				}
				if c.policy == answer.SVCBStrip {
					m.Answer = append(m.Answer, mustRR("o.example. 300 IN RRSIG HTTPS 13 2 300 20300101000000 20200101000000 1 example. AAAA"))
					m.Extra = append(m.Extra, mustRR("other.example. 60 IN A 10.0.0.2"))
				}
			})}
		})
		r := askOwn(t, forwardTo(t, u), withOPT(question("o.example.", dns.TypeHTTPS)), false, own(c.policy))
		if len(r.Answer) != len(c.want) || r.Rcode != 0 || len(r.Extra) != 1 || r.IsEdns0() == nil {
			t.Errorf("%s: %v", name, r)
			continue
		}
		for i, w := range c.want {
			if r.Answer[i].String() != mustRR(w).String() {
				t.Errorf("%s: %s, want %s", name, r.Answer[i], w)
			}
		}
		if told := ede(r) == 0; told != (c.want == nil) {
			t.Errorf("%s: extended error %d", name, ede(r))
		}
		if c.want == nil && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA || r.Ns[0].Header().Ttl != 7) {
			t.Errorf("%s: NODATA without SOA: %v", name, r)
		}
	}
}

// R64: a name that points into a TTL, which is capped, is no longer one.
func TestR64NameInTTL(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		b := replyTo(q, func(m *dns.Msg) { m.Answer = nil })
		b[7] = 2
		ttl := byte(len(b) + 6) // of the first record; its last octet is a root, and becomes 7
		b = append(b, 0xC0, 12, 0, 1, 0, 1, 0, 1, 0, 0, 0, 4, 192, 0, 2, 1)
		b = append(b, 0xC0, ttl+3, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 2)
		return [][]byte{b}
	})
	f := forwardTo(t, u)
	if r := ask(t, f, question("o.example.", dns.TypeA), false); len(r.Answer) != 2 {
		t.Errorf("as it came: %v", r)
	}
	if r := askOwn(t, f, question("o.example.", dns.TypeA), false, &answer.Entry{TTL: 7}); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("capped: %v", r)
	}
}

// What an upstream says of SVCB that is no answer: an error passes as it is; one that can't be read is an error of its own.
func TestRewriteSVCBErrors(t *testing.T) {
	for _, qtype := range []uint16{dns.TypeHTTPS, dns.TypeSVCB} {
		q := withOPT(question("o.example.", qtype))
		e := &answer.Entry{TTL: 7}
		f := forwardTo(t, newFarEnd(t, withRcode(dns.RcodeRefused)))
		if r := askOwn(t, f, q, false, e); r.Rcode != dns.RcodeRefused || len(r.Ns) != 0 || ede(r) != -1 {
			t.Errorf("REFUSED became %v", r)
		}
		broken := newFarEnd(t, func(q []byte, _ bool) [][]byte {
			b := replyTo(q, func(m *dns.Msg) { m.Answer, m.Extra = nil, nil })
			b[7]++
			b = append(b, 0xC0, 12, 0, byte(qtype), 0, 1, 0, 0, 0, 9, 0, 5, 0, 1, 0, 0, 1) // half a key
			return [][]byte{b}
		})
		if r := askOwn(t, forwardTo(t, broken), q, false, e); r.Rcode != dns.RcodeServerFailure || ede(r) != 24 {
			t.Errorf("broken data became %v", r)
		}
		alias := newFarEnd(t, func(q []byte, _ bool) [][]byte {
			return [][]byte{replyTo(q, func(m *dns.Msg) { m.Answer = []dns.RR{mustRR("o.example. 60 IN CNAME x.example.")} })}
		})
		if r := askOwn(t, forwardTo(t, alias), q, false, e); r.Rcode != 0 || len(r.Answer) != 0 || len(r.Ns) != 1 || ede(r) != 0 {
			t.Errorf("an alias became %v", r)
		}
	}
}

// R39: what was rewritten is no longer than it came: its owners are compressed again.
func TestR39RewrittenIsCompressed(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			m.Answer = nil
			for i := range 12 {
				m.Answer = append(m.Answer, mustRR(fmt.Sprintf(`a-rather-long-label.o.example. 60 IN HTTPS %d . alpn="h2" ipv4hint="10.0.0.1"`, i+1)))
			}
		})}
	})
	q := question("a-rather-long-label.o.example.", dns.TypeHTTPS)
	if r := askOwn(t, forwardTo(t, u), q, false, &answer.Entry{TTL: 7}); r.Truncated || len(r.Answer) != 12 {
		t.Error(r) // 659 bytes with owners in full; the limit is 512
	}
}

// An answer to a question for another type loses SVCB records that come along, and nothing else.
func TestRewriteSVCBBesides(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			m.Answer = []dns.RR{mustRR("o.example. 60 IN MX 5 o.example.")}
			m.Ns = []dns.RR{mustRR("example. 60 IN NS ns.example.")}
			m.Extra = append(m.Extra, mustRR(`o.example. 60 IN HTTPS 1 . ipv4hint="10.0.0.1"`), mustRR("ns.example. 60 IN A 10.0.0.2"))
		})}
	})
	f := forwardTo(t, u)
	for policy, extra := range map[answer.SVCB]int{answer.SVCBStrip: 1, answer.SVCBNoData: 1, answer.SVCBForward: 2} {
		r := askOwn(t, f, question("o.example.", dns.TypeMX), false, &answer.Entry{TTL: 7, SVCB: policy})
		if len(r.Answer) != 1 || len(r.Ns) != 1 || len(r.Extra) != extra || r.Rcode != 0 {
			t.Errorf("policy %d: %v", policy, r)
		}
	}
}

// NXDOMAIN of a configured name becomes NODATA; forwarded addresses live no
// longer than our own.
func TestRewriteOwnName(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			if m.Question[0].Qtype == dns.TypeMX {
				m.Rcode, m.Answer = dns.RcodeNameError, nil
				m.Ns = []dns.RR{mustRR("example. 300 IN SOA a. b. 1 2 3 4 5"), mustRR("a.example. 300 IN NSEC z.example. A")}
			}
		})}
	})
	f := forwardTo(t, u)
	e := &answer.Entry{TTL: 7}
	r := askOwn(t, f, question("o.example.", dns.TypeMX), false, e)
	if r.Rcode != 0 || len(r.Answer) != 0 || len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA {
		t.Errorf("NXDOMAIN became %v", r)
	}
	if r = askOwn(t, f, withOPT(question("o.example.", dns.TypeMX)), false, e); r.Rcode != 0 || ede(r) != 0 {
		t.Errorf("with OPT, NXDOMAIN became %v", r)
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if r = askOwn(t, f, question("o.example.", qtype), false, e); r.Answer[0].Header().Ttl != 7 {
			t.Errorf("forwarded address: %v", r)
		}
	}
	if r = askOwn(t, f, question("o.example.", dns.TypeTXT), false, e); r.Answer[0].Header().Ttl == 7 {
		t.Errorf("another type's TTL: %v", r)
	}
	if r = ask(t, f, question("o.example.", dns.TypeMX), false); r.Rcode != dns.RcodeNameError {
		t.Errorf("another's NXDOMAIN became %v", r)
	}
}
