package resolver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func addrPort(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// R53, R67, faults 21, 22: one upstream refuses, is silent or fails; every
// query is answered by the other, without the client asking again.
func TestR67OtherUpstreamAnswers(t *testing.T) {
	first := map[string]func([]byte, bool) [][]byte{
		"silent":   silent,
		"SERVFAIL": withRcode(dns.RcodeServerFailure),
		"REFUSED":  withRcode(dns.RcodeRefused),
		"closed":   nil,
	}
	for name, h := range first {
		good := newFarEnd(t, answerA)
		o := optionsTo(good)
		bad := Server{Addr: closedPort(t)}
		if h != nil {
			bad = newFarEnd(t, h).server()
		}
		o.Servers = []Server{bad, good.server()}
		f := testForwarder(t, patient(o))
		for i := range 30 {
			r := ask(t, f, question(fmt.Sprintf("q%d.example.", i), dns.TypeA), false)
			if r.Rcode != 0 || len(r.Answer) != 1 {
				t.Fatalf("%s: %v", name, r)
			}
		}
	}
}

// R68, faults 21, 25: a dead upstream is learnt, and comes back by itself.
func TestR68DeadUpstreamIsLearntAndHeals(t *testing.T) {
	t.Parallel()
	a, b := newFarEnd(t, answerA), newFarEnd(t, answerA)
	f := forwardTo(t, a, b)
	n := 0
	askOne := func() {
		t.Helper()
		n++
		if r := ask(t, f, question(fmt.Sprintf("q%d.example.", n), dns.TypeA), false); r.Rcode != 0 {
			t.Fatalf("query %d: %v", n, r)
		}
	}
	for range 20 {
		askOne()
	}
	if b.queries.Load() != 0 {
		t.Errorf("ordered: %d queries went to the second", b.queries.Load())
	}
	a.set(silent)
	eventually(t, "the first is no longer asked first", func() bool {
		before := a.queries.Load()
		askOne()
		return a.queries.Load() == before
	})
	a.set(answerA)
	eventually(t, "the first is asked again", func() bool {
		before := b.queries.Load()
		askOne()
		return b.queries.Load() == before
	})
}

// R53: if all fail, the first error is passed on.
func TestR53FirstErrorIsPassedOn(t *testing.T) {
	f := forwardTo(t, newFarEnd(t, withRcode(dns.RcodeRefused)), newFarEnd(t, withRcode(dns.RcodeServerFailure)))
	if r := ask(t, f, question("e.example.", dns.TypeA), false); r.Rcode != dns.RcodeRefused {
		t.Errorf("reply: %v", r)
	}
}

// R70: a slow answer is delivered; a late one is dropped.
func TestR70SlowAnswers(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		time.Sleep(300 * time.Millisecond)
		return answerA(q, false)
	})
	if r := ask(t, forwardTo(t, u), question("slow.example.", dns.TypeA), false); len(r.Answer) != 1 {
		t.Errorf("slow: %v", r)
	}
	late := make(chan struct{})
	o := optionsTo(newFarEnd(t, func(q []byte, _ bool) [][]byte {
		<-late
		return answerA(q, false)
	}))
	o.AttemptTimeout, o.TotalTimeout = 50*time.Millisecond, 150*time.Millisecond
	f := testForwarder(t, o)
	b, _ := question("late.example.", dns.TypeA).Pack()
	ch := send(t, f, b, false, nil)
	if r := wait(t, ch); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("late: %v", r)
	}
	close(late)
	eventually(t, "late replies are counted", func() bool { return f.UpstreamStats()[0].Rcodes["NOERROR"]+f.UpstreamStats()[0].Strays > 0 })
	select {
	case m := <-ch:
		t.Errorf("second reply %x", m)
	default:
	}
}

// R73, fault 24: hanging queries do not block others; at the limit the oldest that has waited for a whole
// attempt_timeout goes, with SERVFAIL, not the newest.
func TestR73OldestGoes(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		if q[13] == 'h' {
			return nil
		}
		return answerA(q, false)
	})
	o := patient(optionsTo(u))
	o.TotalTimeout = 2 * o.AttemptTimeout
	o.MaxInflight = 200
	f := testForwarder(t, o)
	var hanging []<-chan []byte
	ports := apart(201)
	for i := range 200 {
		hanging = append(hanging, sendFrom(t, f, ports[i], fmt.Sprintf("h%d.example.", i)))
		if i%20 == 19 { // more at once might not fit into the upstream's socket
			eventually(t, "the upstream has them", func() bool { return u.queries.Load() > int64(i) })
		}
	}
	if r := wait(t, sendFrom(t, f, ports[200], "next.example.")); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("while nobody hangs: %v", r)
	}
	for _, l := range f.lanes { // an attempt_timeout later
		l.mu.Lock()
		for fl := l.oldest; fl != nil; fl = fl.nextAge {
			fl.deadline -= int64(o.AttemptTimeout)
		}
		l.mu.Unlock()
	}
	for i := range 20 { // the first needs room, which it leaves to the next
		if r := wait(t, sendFrom(t, f, ports[200], fmt.Sprintf("n%d.example.", i))); len(r.Answer) != 1 {
			t.Errorf("%v", r)
		}
	}
	gone := 0
	for i, ch := range hanging {
		if len(ch) == 0 {
			continue
		}
		gone++
		if r := wait(t, ch); r.Rcode != dns.RcodeServerFailure || ede(r) != 22 {
			t.Errorf("one of the oldest: %v", r)
		}
		if i >= 100 { // not exactly 0: there are two lanes
			t.Errorf("%d, one of the newer ones, went", i)
		}
	}
	if gone != 1 {
		t.Errorf("%d went, want 1", gone)
	}
}

// R74: A and AAAA asked at one time do not wait for one another.
func TestR74QuickBesideSlow(t *testing.T) {
	u := newFarEnd(t, nil)
	release := make(chan struct{})
	u.set(func(q []byte, _ bool) [][]byte {
		if q[len(q)-3] == 28 {
			go func() { <-release }()
			return nil
		}
		return answerA(q, false)
	})
	defer close(release)
	f := forwardTo(t, u)
	b6, _ := question("two.example.", dns.TypeAAAA).Pack()
	b4, _ := question("two.example.", dns.TypeA).Pack()
	slow := send(t, f, b6, false, nil)
	wait(t, send(t, f, b4, false, nil))
	if len(slow) != 0 {
		t.Error("AAAA was answered")
	}
}

// R75: a burst of 500 queries is served.
func TestR75ForwardBurst(t *testing.T) {
	f := forwardTo(t, newFarEnd(t, answerA))
	var all []<-chan []byte
	for i := range 500 {
		b, _ := question(fmt.Sprintf("b%d.example.", i), dns.TypeA).Pack()
		all = append(all, send(t, f, b, false, nil))
	}
	for _, ch := range all {
		if r := wait(t, ch); r.Rcode != 0 {
			t.Fatalf("reply: %v", r)
		}
	}
}

// Quiet times cost no more than 1.2 upstream packets a query, also when some
// questions are slow.
func TestQuietTimesAreCheap(t *testing.T) {
	slowSome := func(q []byte, _ bool) [][]byte { return answerA(q, false) }
	a, b := newFarEnd(t, slowSome), newFarEnd(t, slowSome)
	f := forwardTo(t, a, b)
	for i := range 300 {
		ask(t, f, question(fmt.Sprintf("c%d.example.", i), dns.TypeA), false)
	}
	if n := a.queries.Load() + b.queries.Load(); n > 330 {
		t.Errorf("%d upstream packets for 300 queries", n)
	}
}

// Policy fastest follows measured time.
func TestFastest(t *testing.T) {
	slow := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		time.Sleep(300 * time.Millisecond) // longer than the quick one can be starved for
		return answerA(q, false)
	})
	quick := newFarEnd(t, answerA)
	o := optionsTo(slow, quick)
	o.Fastest = true
	f := testForwarder(t, o)
	eventually(t, "both are measured", func() bool {
		s := f.UpstreamStats()
		return s[0].RTT > 0 && s[1].RTT > 0
	})
	before := slow.queries.Load()
	for i := range 20 {
		ask(t, f, question(fmt.Sprintf("f%d.example.", i), dns.TypeA), false)
	}
	if n := slow.queries.Load() - before; n > 2 {
		t.Errorf("%d of 20 went to the slow one", n)
	}
}

// R78, fault 35: an upstream that is one of our listeners is never asked.
func TestR78SelfIsSkipped(t *testing.T) {
	u := newFarEnd(t, answerA)
	for _, self := range []netip.AddrPort{u.addr, addrPort("0.0.0.0", u.addr.Port()), addrPort("::", u.addr.Port())} {
		o := optionsTo(u)
		o.Self = []netip.AddrPort{self}
		f := testForwarder(t, o)
		if r := ask(t, f, question("s.example.", dns.TypeA), false); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("reply: %v", r)
		}
	}
	if u.queries.Load() != 0 {
		t.Errorf("%d queries were sent to ourselves", u.queries.Load())
	}
}

// [route]: the longest suffix wins, on labels, reverse zones included.
func TestRoutes(t *testing.T) {
	mark := func(ip string) func([]byte, bool) [][]byte {
		return func(q []byte, _ bool) [][]byte {
			return [][]byte{replyTo(q, func(m *dns.Msg) { m.Answer = []dns.RR{mustRR(m.Question[0].Name + " 1 IN TXT " + ip)} })}
		}
	}
	o := optionsTo(newFarEnd(t, mark("main")))
	for suffix, name := range map[string]string{"corp.example": "corp", "deep.corp.example": "deep", "10.in-addr.arpa": "reverse"} {
		o.Routes = append(o.Routes, Route{suffix, []Server{newFarEnd(t, mark(name)).server()}})
	}
	f := testForwarder(t, o)
	for name, want := range map[string]string{
		"www.example.": "main", "corp.example.": "corp", "a.CORP.example.": "corp", "xcorp.example.": "main",
		"b.deep.corp.example.": "deep", "1.2.3.10.in-addr.arpa.": "reverse", "1.2.3.110.in-addr.arpa.": "main",
	} {
		r := ask(t, f, question(name, dns.TypeTXT), false)
		if got := r.Answer[0].(*dns.TXT).Txt[0]; got != want {
			t.Errorf("%s went to %s, want %s", name, got, want)
		}
	}
}

// SetUpstreams while serving loses no query.
func TestSetUpstreamsLosesNothing(t *testing.T) {
	a, b := newFarEnd(t, answerA), newFarEnd(t, answerA)
	f := forwardTo(t, a)
	var all []<-chan []byte
	for i := range 400 {
		m, _ := question(fmt.Sprintf("s%d.example.", i), dns.TypeA).Pack()
		all = append(all, send(t, f, m, i%4 == 0, nil))
		if i%50 == 0 {
			if err := f.SetUpstreams(optionsTo([]*farEnd{a, b}[i/50%2])); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, ch := range all {
		if r := wait(t, ch); r.Rcode != 0 {
			t.Errorf("query %d: %v", i, r)
		}
	}
}

// R68: whoever reads the log knows when an upstream that was said to be gone is back, however soon.
func TestR68ReturnIsLogged(t *testing.T) {
	t.Parallel()
	var log logged
	u := newFarEnd(t, silent)
	o := optionsTo(u)
	o.AttemptTimeout, o.TotalTimeout = 100*time.Millisecond, 300*time.Millisecond
	f := testForwarderLog(t, o, &log)
	said := func(text string) func() bool { return func() bool { return strings.Contains(log.String(), text) } }
	for i := 0; !said("upstream is silent")(); i++ {
		if i > 100 {
			t.Fatal("never said to be gone")
		}
		if r := ask(t, f, question(fmt.Sprintf("q%d.example.", i), dns.TypeA), false); r.Rcode != dns.RcodeServerFailure {
			t.Fatal(r)
		}
	}
	u.set(answerA)
	eventually(t, "the log says that it is back", said(`level=INFO msg="upstream answers again"`))
}
