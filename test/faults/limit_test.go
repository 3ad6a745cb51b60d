package faults

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// TestMaxInflight: max_inflight queries of one client wait for an upstream that is silent; each one more gets SERVFAIL
// with an extended error at once, and those that wait get their answers when the upstream comes round.
func TestMaxInflight(t *testing.T) {
	const most, more = 20, 4
	release := make(chan struct{})
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	up.Answers(func(q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "hangs") {
			<-release
		}
		return faulty.Everything(q)
	})
	head := strings.Replace(headWith(up.Addr.String()), "attempt_timeout = \"300ms\"\ntotal_timeout = \"1500ms\"",
		fmt.Sprintf("attempt_timeout = \"30s\"\ntotal_timeout = \"60s\"\nmax_inflight = %d", most), 1)
	h := faulty.Start(t, nil, head+static)
	h.Wants("forwarding", faulty.Forwarded())
	c, err := net.Dial("udp", h.DNS.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // for all; before anybody is given up
	conn := &dns.Conn{Conn: c}
	for id := range uint16(most + more) {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("hangs%d.example.", id), dns.TypeA).SetEdns0(1232, false)
		q.Id = id
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	next := func() *dns.Msg {
		r, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for range more {
		r := next()
		if why := failing(dns.ExtendedErrorCodeNoReachableAuthority).Check(r); why != "" || r.Id < most {
			t.Errorf("reply to query %d: %v %s", r.Id, r, why)
		}
	}
	close(release)
	for range most {
		if r := next(); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || r.Id >= most {
			t.Errorf("reply to query %d: %v", r.Id, r)
		}
	}
}
