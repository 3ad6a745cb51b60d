package resolver

import (
	"context"
	"fmt"
	"log/slog"
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
	o := optionsTo(u)
	o.MaxInflight = 100
	f := testForwarder(t, o)
	from := func(port uint16, name string) <-chan []byte {
		b, _ := question(name, dns.TypeA).Pack()
		ch := make(chan []byte, 1)
		var q wire.Query
		q.Parse(b)
		a := testAsker(false, func(m []byte) { ch <- m })
		a.addr = mmsg.AddrFrom(addrPort("127.0.0.1", port))
		f.query(&request{msg: b, q: &q, from: a})
		f.flush()
		return ch
	}
	quiet := from(1000, "quiet.example.")
	for i := range 500 {
		from(2000, fmt.Sprintf("flood%d.example.", i))
	}
	if len(quiet) != 0 {
		t.Error("the quiet client's query was pushed out")
	}
	if f.jostled.Load() < 350 {
		t.Errorf("%d jostled", f.jostled.Load())
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
