package resolver

import (
	"testing"

	"github.com/miekg/dns"
)

// R57, fault 35: an upstream that leads back to us is noticed, not asked any
// more, counted; we go on with the others.
func TestR57Loop(t *testing.T) {
	t.Parallel()
	var f *forwarder
	ready := make(chan struct{})
	loop := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		<-ready
		send(t, f, q, false, nil) // comes in at our listener
		return nil
	})
	good := newFarEnd(t, answerA)
	f = forwardTo(t, loop, good)
	close(ready)
	eventually(t, "the loop is noticed", func() bool { return f.UpstreamStats()[0].State == "loop" })
	if f.loops.Load() != 1 {
		t.Errorf("%d loops counted", f.loops.Load())
	}
	before := loop.queries.Load()
	for range 5 {
		if r := ask(t, f, question("l.example.", dns.TypeA), false); len(r.Answer) != 1 {
			t.Errorf("reply: %v", r)
		}
	}
	if n := loop.queries.Load() - before; n != 0 {
		t.Errorf("%d queries went into the loop", n)
	}
	// It is tried again later, and taken back once the canary stays away.
	loop.set(answerA)
	f.conf.Load().all[0].health.canaryNext.Store(0)
	f.kickProber()
	eventually(t, "the upstream is taken back", func() bool { return f.UpstreamStats()[0].State == "up" })
}

// R57: a name that looks like a canary but is none is forwarded.
func TestR57GuessedCanary(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	r := ask(t, f, question("00112233445566778899aabbccddeeff.hard-loop.internal.", dns.TypeA), false)
	if len(r.Answer) != 1 || f.UpstreamStats()[0].State != "up" {
		t.Errorf("reply: %v", r)
	}
}

// R57: a canary that got no reply says nothing, and is not waited for until the next round.
func TestR57LostCanary(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]func([]byte, bool) [][]byte{"silent": silent, "closed": nil} {
		o := UpstreamOptions{Servers: []Server{{Addr: closedPort(t)}}}
		if h != nil {
			o = optionsTo(newFarEnd(t, h))
		}
		f := testForwarder(t, o)
		u := f.conf.Load().all[0]
		eventually(t, name+": another canary is due soon", func() bool {
			next := u.health.canaryNext.Load()
			return next != 0 && next <= f.now()+int64(loopRetry)
		})
	}
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	eventually(t, "a canary that got its reply is good for long", func() bool {
		return f.UpstreamStats()[0].Rcodes["NOERROR"] > 0
	})
	if next := f.conf.Load().all[0].health.canaryNext.Load(); next <= f.now()+int64(loopRetry) {
		t.Errorf("the next one is due at %d", next)
	}
}
