package resolver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/mmsg"
	"hard/internal/wire"
)

// The goal of issue 4: one of two upstreams is killed, or frozen, at 100
// queries a second: nothing is lost, nothing answered with an error, and
// nothing waits for the end of an attempt. How slow the slowest was is logged.
func TestUpstreamDiesUnderLoad(t *testing.T) {
	for _, how := range []string{"killed", "frozen"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			a, b := newFarEnd(t, answerA), newFarEnd(t, answerA)
			f := testForwarder(t, patient(optionsTo(a, b)))
			type result struct {
				ch <-chan []byte
				at time.Time
			}
			var worst time.Duration
			results := make(chan result, 300)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for r := range results {
					select {
					case m := <-r.ch:
						worst = max(worst, time.Since(r.at))
						if m[3]&15 != 0 {
							t.Errorf("rcode %d", m[3]&15)
						}
					case <-time.After(patience):
						t.Error("lost")
					}
				}
			}()
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for i := range 150 {
				<-pace.C
				if i == 50 {
					if how == "killed" {
						a.udp.Close()
					} else {
						a.set(silent)
					}
				}
				m, _ := question(fmt.Sprintf("d%d.example.", i), dns.TypeA).Pack()
				results <- result{send(t, f, m, false, nil), time.Now()}
			}
			close(results)
			<-done
			t.Logf("the slowest of 150 took %v", worst)
		})
	}
}

// R73: who floods does not push out others.
func TestR73Fairness(t *testing.T) {
	u := newFarEnd(t, silent)
	o := patient(optionsTo(u))
	o.MaxInflight = 100
	f := testForwarder(t, o)
	ports := apart(3)
	flooding, quiet, late := ports[0], ports[1], ports[2]
	before := sendFrom(t, f, quiet, "quiet.example.")
	var flood []<-chan []byte
	for i := range 500 {
		flood = append(flood, sendFrom(t, f, flooding, fmt.Sprintf("flood%d.example.", i)))
	}
	after := []<-chan []byte{sendFrom(t, f, late, "late0.example."), sendFrom(t, f, late, "late1.example.")}
	for _, ch := range append(after, before) {
		if len(ch) != 0 {
			t.Error("a quiet client's query was refused or pushed out")
		}
	}
	if n := f.jostled.Load(); n != 403 {
		t.Errorf("%d pushed out or refused, want 401 of the flood for itself and two for the late client", n)
	}
	if n := f.waiting.Load(); n != 100 {
		t.Errorf("%d wait", n)
	}
	gone := 0
	for _, ch := range flood[:99] {
		gone += len(ch)
	}
	if gone != 2 {
		t.Errorf("%d of the flood's first were pushed out, want one for each late query", gone)
	}
	for i, ch := range flood[99:] {
		if len(ch) != 1 {
			t.Errorf("%d of the flood, beyond the limit, was not refused at once", 99+i)
		}
	}
}

// apart are ports of 127.0.0.1, those of clients no two of which share a bucket.
func apart(n int) (ports []uint16) {
	taken := make(map[uint16]bool)
	for port := uint16(2000); len(ports) < n; port++ {
		if b := bucketOf(addrPort("127.0.0.1", port)); !taken[b] {
			taken[b] = true
			ports = append(ports, port)
		}
	}
	return ports
}

// sendFrom puts a query of the client at a port of 127.0.0.1 in.
func sendFrom(t testing.TB, f *forwarder, port uint16, name string) <-chan []byte {
	t.Helper()
	b, err := withOPT(question(name, dns.TypeA)).Pack()
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan []byte, 1)
	var q wire.Query
	q.Parse(b)
	a := testAsker(false, func(m []byte) { ch <- bytes.Clone(m) })
	a.addr = mmsg.AddrFrom(addrPort("127.0.0.1", port))
	f.query(&request{msg: b, q: &q, from: a})
	f.flush()
	return ch
}

// Contract section 2: beyond max_inflight SERVFAIL at once, to the newcomer, and those before go on waiting: whether
// one client asks, as many as there are queries, or each two, and whatever lanes the names fall to.
func TestMaxInflight(t *testing.T) {
	const most, more = 10, 5
	ports := apart(most + more + 1)
	clients := map[string]func(i int) uint16{
		"one client":      func(int) uint16 { return ports[0] },
		"a client each":   func(i int) uint16 { return ports[i] },
		"a client of two": func(i int) uint16 { return ports[i/2] },
	}
	for what, port := range clients {
		t.Run(what, func(t *testing.T) {
			u := newFarEnd(t, silent)
			o := patient(optionsTo(u))
			o.MaxInflight = most
			f := testForwarder(t, o)
			var waiting []<-chan []byte
			for i := range most {
				waiting = append(waiting, sendFrom(t, f, port(i), fmt.Sprintf("n%d.example.", i)))
			}
			for i := range more {
				r := wait(t, sendFrom(t, f, port(most+i), fmt.Sprintf("more%d.example.", i)))
				if r.Rcode != dns.RcodeServerFailure || ede(r) != 22 {
					t.Errorf("one too many: %v", r)
				}
			}
			r := wait(t, sendFrom(t, f, port(most+more), "n3.example.")) // would share another's query
			if r.Rcode != dns.RcodeServerFailure || ede(r) != 22 {
				t.Errorf("an equal question: %v", r)
			}
			for i, ch := range waiting {
				if len(ch) != 0 {
					t.Errorf("%d waits no longer", i)
				}
			}
			u.set(answerA)
			for _, l := range f.lanes { // its turn again, without waiting a minute
				l.mu.Lock()
				for l.oldest != nil {
					l.fail(l.oldest, wire.EDENoReachable)
				}
				l.mu.Unlock()
			}
			if r := wait(t, sendFrom(t, f, 999, "again.example.")); r.Rcode != dns.RcodeSuccess {
				t.Errorf("with room again: %v", r)
			}
			if n := f.waiting.Load(); n != 0 {
				t.Errorf("%d still wait", n)
			}
		})
	}
}

// Faults 12, 30, 31: after a network change or a resume everything is tried
// again at once, over new sockets.
func TestRetryAll(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	up := f.conf.Load().all[0]
	for i := range 50 {
		usePool(f, up)
		ask(t, f, question(fmt.Sprintf("n%d.example.", i), dns.TypeA), false)
	}
	up.health.nextProbe.Store(f.now() + int64(time.Hour))
	up.health.backoff.Store(int64(time.Hour))
	up.health.state.Store(stateDown)
	pooled := func() map[*sock]bool {
		all := make(map[*sock]bool)
		for i, l := range f.lanes {
			l.mu.Lock()
			for _, s := range up.lanes[i].pool {
				if s != nil {
					all[s] = true
				}
			}
			l.mu.Unlock()
		}
		return all
	}
	before := pooled()
	f.retryAll("test")
	for s := range pooled() {
		if before[s] {
			t.Error("an old socket is kept")
		}
	}
	if len(before) < 10 {
		t.Errorf("only %d sockets before", len(before))
	}
	eventually(t, "the upstream is up", func() bool { return up.usable() })
}

// usePool has the next queries to u leave from pooled sockets, as at high
// rates, however slowly the test runs.
func usePool(f *forwarder, u *upstream) {
	for i, l := range f.lanes {
		l.mu.Lock()
		u.lanes[i].fresh = bucket{tokens: -freshBurst, at: f.now()}
		l.mu.Unlock()
	}
}

// Fault 14: without descriptors a query is answered with SERVFAIL, and
// forwarding goes on when there are some again.
func TestFault14NoDescriptors(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	ask(t, f, question("a.example.", dns.TypeA), false)
	setOpen := func(by int) {
		for _, l := range f.lanes {
			l.mu.Lock()
			l.open += by
			l.mu.Unlock()
		}
	}
	setOpen(maxOpen)
	if r := ask(t, f, withOPT(question("b.example.", dns.TypeA)), false); r.Rcode != dns.RcodeServerFailure || ede(r) != 23 {
		t.Errorf("reply: %v", r)
	}
	setOpen(-maxOpen)
	if r := ask(t, f, question("c.example.", dns.TypeA), false); r.Rcode != 0 {
		t.Errorf("reply: %v", r)
	}
	if s := f.UpstreamStats()[0].State; s != "up" {
		t.Errorf("the upstream is %s: it was not its fault", s)
	}
}

// A late goodbye of the forwarder answers what is still waiting.
func TestStopAnswersTheRest(t *testing.T) {
	f := makeForwarder(slog.New(slog.DiscardHandler), 1)
	if err := f.SetUpstreams(optionsTo(newFarEnd(t, silent))); err != nil {
		t.Fatal(err)
	}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	b, _ := question("w.example.", dns.TypeA).Pack()
	ch := send(t, f, b, false, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	f.stop(ctx)
	if r := wait(t, ch); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("reply: %v", r)
	}
}

// max_inflight is exact whatever lanes the queries of many fall to at one time: no more wait, and no place is refused.
func TestMaxInflightAtOnce(t *testing.T) {
	const most, each, askers = 64, 50, 8
	u := newFarEnd(t, silent)
	o := patient(optionsTo(u))
	o.MaxInflight = most
	f := testForwarder(t, o)
	port := apart(1)[0]
	var refused atomic.Int64
	var wg sync.WaitGroup
	for a := range askers {
		wg.Go(func() {
			for i := range each {
				b, err := question(fmt.Sprintf("n%d.a%d.example.", i, a), dns.TypeA).Pack()
				if err != nil {
					t.Error(err)
				}
				var q wire.Query
				q.Parse(b)
				from := testAsker(false, func([]byte) { refused.Add(1) })
				from.addr = mmsg.AddrFrom(addrPort("127.0.0.1", port))
				f.query(&request{msg: b, q: &q, from: from})
				f.flush()
				if n := f.waiting.Load(); n > most {
					t.Errorf("%d wait", n)
				}
			}
		})
	}
	wg.Wait()
	if n := refused.Load(); n != askers*each-most {
		t.Errorf("%d refused, want %d", n, askers*each-most)
	}
}
