package resolver

import (
	"testing"

	"github.com/miekg/dns"
)

func TestForwardUDPAndTCP(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	for _, tcp := range []bool{false, true} {
		q := withOPT(question("WwW.Example.com.", dns.TypeA))
		r := ask(t, f, q, tcp)
		if r.Id != q.Id || r.Rcode != 0 || len(r.Answer) != 1 || r.Question[0] != q.Question[0] || r.IsEdns0() == nil {
			t.Errorf("tcp %v: %v", tcp, r)
		}
		q = question("www.example.com.", dns.TypeA)
		if r = ask(t, f, q, tcp); r.Id != q.Id || len(r.Answer) != 1 || r.IsEdns0() != nil {
			t.Errorf("tcp %v without OPT: %v", tcp, r)
		}
	}
}

func TestDeadUpstreams(t *testing.T) {
	o := optionsTo(newFarEnd(t, silent))
	o.AttemptTimeout, o.TotalTimeout = 100e6, 300e6
	f := testForwarder(t, o)
	r := ask(t, f, withOPT(question("a.example.", dns.TypeA)), false)
	if r.Rcode != dns.RcodeServerFailure || ede(r) != 22 {
		t.Errorf("silent: %v", r)
	}
	o.Servers[0].Addr = closedPort(t)
	f = testForwarder(t, o)
	r = ask(t, f, withOPT(question("a.example.", dns.TypeA)), false)
	if r.Rcode != dns.RcodeServerFailure || ede(r) != 23 {
		t.Errorf("refused: %v", r)
	}
}
