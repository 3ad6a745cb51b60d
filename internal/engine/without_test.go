package engine

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"
)

// TestNoAddressAtAll: candidates' names of which DNS has no address. What never had one is a mistake,
// SERVFAIL with EDE 14; addresses that were taken out leave NODATA.
func TestNoAddressAtAll(t *testing.T) {
	const text = `
[name."h.example"]
candidates = ["one.example.net", "two.example.net"]
check = "static:"
`
	play(t, text, nil, func(s *stage) {
		one, two := HostKey{"h.example", "one.example.net"}, HostKey{"h.example", "two.example.net"}
		s.Engine.Addresses(one, nil, nil, true)
		s.pass(coalesce)
		if m := s.response(t, "h.example"); m != nil {
			t.Fatalf("a query doesn't wait for the second name's look-up: %v", m)
		}
		s.Engine.Addresses(two, nil, nil, true)
		s.pass(coalesce)
		m := s.response(t, "h.example")
		if m == nil || m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("nothing was ever found: %v", m)
		}
		opts := m.IsEdns0().Option
		if ede, ok := opts[0].(*dns.EDNS0_EDE); len(opts) != 1 || !ok || ede.InfoCode != dns.ExtendedErrorCodeNotReady {
			t.Errorf("options %v", opts)
		}
		s.Engine.Addresses(two, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil, true)
		synctest.Wait()
		s.pass(coalesce)
		s.wants("h.example", "192.0.2.1")
		s.Engine.Addresses(two, nil, nil, true)
		s.pass(coalesce)
		if m := s.response(t, "h.example"); m == nil || m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
			t.Errorf("the address has left DNS: %v", m)
		}
	})
}
