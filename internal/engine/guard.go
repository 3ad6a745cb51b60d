package engine

import (
	"net/netip"
	"slices"
	"time"

	"hard/internal/rank"
)

// guard is the local-fault guard and who stands under it.
type guard struct {
	rank.Guard
	own []netip.Addr // the addresses of this host, as of the last configure
}

// of returns the guard for an endpoint, nil for one whose probes say nothing about our network:
// static ones, and those that never leave this host.
func (g *guard) of(ep *endpoint) *rank.Guard {
	if ep.static() || ep.addr.IsLoopback() || slices.Contains(g.own, ep.addr) {
		return nil
	}
	return &g.Guard
}

// fault tells whether our own network is taken to be broken.
func (g *guard) fault() bool {
	phase, _ := g.Phase()
	return phase == rank.Fault
}

// guardConfigure tells the guard which endpoints there are now.
func (e *Engine) guardConfigure() {
	if e.o.OwnAddrs != nil {
		if own := e.o.OwnAddrs(); !slices.Equal(own, e.guard.own) {
			e.guard.own = own
			e.o.Recorder.Input(Input{At: e.clock.at, Kind: InputOwn, Addrs: own})
		}
	}
	var keys []rank.Key
	var longest time.Duration
	for _, n := range e.names {
		for i := range n.eps {
			if ep := &n.eps[i]; e.guard.of(ep) != nil {
				keys = append(keys, n.key(ep))
				longest = max(longest, n.cfg.Pace.Timeout)
			}
		}
	}
	e.guard.Configure(keys, longest)
}

// guardTick moves the guard on and does what it asks for.
func (e *Engine) guardTick(now time.Time) {
	e.hearReply(now)
	a := e.guard.Tick(now)
	for _, k := range a.Execute {
		if n := e.named(k.Name); n != nil {
			if ep := n.find(&k); ep != nil {
				c := ep.health.Execute(now)
				e.noteChange(n, ep, &c, now)
				e.decide(n, now, true)
			}
		}
	}
	if a.Declared {
		e.log.Error("our own network is suspect: nothing at all answers; verdicts are held, answers stay as they are",
			"held", e.guard.Holding())
		e.o.Recorder.Event(Event{At: now, Kind: "guard", Old: "calm", New: "fault", Reason: "no probe and no upstream shows that our own network works"})
	}
	if a.Cleared {
		e.log.Warn("our own network works again: the misses of its silence are forgotten")
		e.o.Recorder.Event(Event{At: now, Kind: "guard", Old: "fault", New: "calm", Reason: "a sign of life"})
	}
	if a.Forget {
		e.forgetMisses(now)
	}
	if a.Seek {
		e.seekProof()
	}
}

// reply is the last reply of an upstream that the guard was told of.
type reply struct {
	raw time.Time // as it was said
	at  time.Time // by the engine's clock
}

// hearReply tells the guard of the upstreams' last reply, while it wants to know.
func (e *Engine) hearReply(now time.Time) {
	if e.o.LastReply == nil || e.guard.Next().IsZero() {
		return
	}
	raw := e.o.LastReply()
	if raw.IsZero() {
		return
	}
	if raw != e.reply.raw {
		e.reply = reply{raw: raw, at: e.clock.convert(raw)}
		e.o.Recorder.Input(Input{At: now, Kind: InputReply, Reply: e.reply.at})
	}
	e.guard.Reply(e.reply.at)
}

// forgetMisses drops what the silence made of the guarded endpoints and probes all of them.
func (e *Engine) forgetMisses(now time.Time) {
	var keys []rank.Key
	for _, n := range e.names {
		touched := false
		for i := range n.eps {
			if ep := &n.eps[i]; e.guard.of(ep) != nil {
				ep.health.Forget()
				keys = append(keys, n.key(ep))
				touched = true
			}
		}
		if touched {
			e.decide(n, now, false)
		}
	}
	e.o.Prober.ProbeNow(keys)
}

// seekProof probes a few other guarded addresses at once, healthy ones first.
func (e *Engine) seekProof() {
	var first, rest []rank.Key
	for _, n := range e.names {
		for i := range n.eps {
			ep := &n.eps[i]
			if e.guard.of(ep) == nil || ep.health.Misses > 0 {
				continue
			}
			if ep.health.State == rank.Healthy {
				first = append(first, n.key(ep))
			} else {
				rest = append(rest, n.key(ep))
			}
		}
		if len(first) >= rank.SeekProbes {
			break
		}
	}
	keys := append(first, rest...)
	if len(keys) > rank.SeekProbes {
		keys = keys[:rank.SeekProbes]
	}
	if len(keys) > 0 {
		e.o.Prober.ProbeNow(keys)
	}
}
