package prober

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"hard/internal/rank"
)

// checkDNS asks the endpoint itself, by UDP, and by TCP when the reply is truncated; NOERROR is
// well. SERVFAIL is the outcome DNS, as the endpoint's own resolution failed and that may be the
// fault of the same network as ours; every other code is a definite answer, the outcome Status.
func checkDNS(n *network, pr *probe) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(pr.check.DNSName), pr.check.DNSType)
	m.SetEdns0(1232, false)
	r, err := askUDP(pr, m)
	if err == nil && r.Truncated {
		pr.tracef("*", "truncated: again over TCP")
		r, err = askTCP(n, pr, m)
	}
	if err != nil {
		if pr.Err() != nil {
			err = context.Canceled
		}
		pr.fail(err)
		return
	}
	pr.firstByte()
	pr.tracef("<", "%s, %d answers", dns.RcodeToString[r.Rcode], len(r.Answer))
	switch {
	case !answers(r, m):
		pr.end(rank.Protocol, r.Rcode, "reply to another question")
	case r.Rcode == dns.RcodeServerFailure:
		pr.end(rank.DNS, r.Rcode, "SERVFAIL")
	case r.Rcode != dns.RcodeSuccess:
		pr.end(rank.Status, r.Rcode, fmt.Sprintf("RCODE %d %s", r.Rcode, dns.RcodeToString[r.Rcode]))
	default:
		pr.end(rank.OK, r.Rcode, "")
	}
}

// answers tells whether a reply belongs to a question.
func answers(r, m *dns.Msg) bool {
	if !r.Response || len(r.Question) > 1 {
		return false
	}
	if len(r.Question) == 0 {
		return r.Rcode != dns.RcodeSuccess // errors may come without it
	}
	q, want := r.Question[0], m.Question[0]
	return q.Qtype == want.Qtype && q.Qclass == want.Qclass && strings.EqualFold(q.Name, want.Name)
}

func askUDP(pr *probe, m *dns.Msg) (*dns.Msg, error) {
	to := port(pr.check)
	pr.tracef(">", "udp %v port %d: %s %s", pr.addr, to, m.Question[0].Name, dns.TypeToString[m.Question[0].Qtype])
	d := net.Dialer{Deadline: pr.deadline}
	if pr.check.Source.IsValid() {
		d.LocalAddr = &net.UDPAddr{IP: pr.check.Source.AsSlice()}
	}
	c, err := d.Dial("udp", net.JoinHostPort(pr.addr.String(), fmt.Sprint(to)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(pr, func() { c.Close() })()
	pr.act()
	return ask(pr, c, m)
}

func askTCP(n *network, pr *probe, m *dns.Msg) (*dns.Msg, error) {
	c, err := n.dial(pr, port(pr.check), nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return ask(pr, c, m)
}

// ask sends a question and waits for the reply with its ID.
func ask(pr *probe, c net.Conn, m *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{UDPSize: 1232, Timeout: time.Until(pr.deadline)}
	r, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: c, UDPSize: 1232})
	return r, err
}
