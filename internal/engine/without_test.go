package engine

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"hard/internal/rank"
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
		why := func(kind rank.Kind, reason string) {
			t.Helper()
			snap, err := s.Engine.Snapshot(context.Background(), "h.example")
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range snap.Names[0].Decision.Answers {
				if a.Kind != kind || a.Reason.String() != reason {
					t.Errorf("explained as %v: %v", a.Kind, a.Reason)
				}
			}
		}
		why(rank.NotReady, "no address known yet")
		if m := s.response(t, "h.example"); m != nil {
			t.Fatalf("a query doesn't wait for the second name's look-up: %v", m)
		}
		s.Engine.Addresses(two, nil, nil, true)
		s.pass(coalesce)
		m := s.response(t, "h.example")
		if m == nil || m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("nothing was ever found: %v", m)
		}
		why(rank.NotReady, "DNS has no address of any candidate")
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
		why(rank.Empty, "all addresses have left DNS")
	})
}

// TestLateLookUp: a tier whose addresses come from DNS takes over from one that was there first because its
// address stands in the file, without hold, as long as its look-up took no longer than hold.
func TestLateLookUp(t *testing.T) {
	const text = `
[name."late.example"]
check = "tcp://:80"
[name."late.example".candidate.near]
address = "near.example.net"
[name."late.example".candidate."192.0.2.2"]
address = "192.0.2.2"
tier = 1
`
	near := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{9 * time.Second, "192.0.2.1"}, {11 * time.Second, "192.0.2.2"}} {
		play(t, text, nil, func(s *stage) {
			s.probe("late.example", "192.0.2.2", rank.OK, time.Millisecond)
			s.wants("late.example", "192.0.2.2")
			for range 2 {
				s.pass(c.after / 2)
				s.probe("late.example", "192.0.2.2", rank.OK, time.Millisecond)
			}
			s.Engine.Addresses(HostKey{"late.example", "near"}, []netip.Addr{near}, nil, true)
			synctest.Wait()
			s.Sample(rank.Sample{
				Key: rank.Key{Name: "late.example", Candidate: "near", Addr: near}, At: time.Now(), Outcome: rank.OK, Final: true,
				Phases: rank.Phases{Connect: time.Millisecond, FirstByte: time.Millisecond, Total: time.Millisecond},
			})
			s.pass(coalesce)
			s.wants("late.example", c.want)
			s.pass(10 * time.Second)
			s.wants("late.example", "192.0.2.1")
		})
	}
}
