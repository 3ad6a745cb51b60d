package rank

import (
	"net/netip"
	"slices"
	"time"
)

// Guard is the local-fault guard of a whole configuration (contract, section 5.7): it keeps our
// own broken network from being taken for dead candidates. It is owned by the goroutine that owns
// the Health values. The zero value guards nothing until Configure.
//
// Guarded endpoints are those that are neither static nor on loopback; with fewer than 3 distinct
// addresses among them the guard is off. A proof is a probe of a guarded endpoint with any outcome
// but the soft ones, or a reply from an upstream that is not on loopback. For a miss, a probe
// proves only if it began after the miss was known: what began before may have come through just
// before the cable was pulled.
//
// The phases:
//
//	Calm   nothing is held. A down verdict on soft outcomes alone is carried out at once if a proof
//	       came after that endpoint's first miss. Otherwise it is held: Doubt.
//	Doubt  the owner looks for a proof at once by probing other endpoints (Seek). A proof carries out
//	       the verdicts whose first miss it follows (Execute), so a real failure is late by one
//	       round trip at most. All carried out or recovered: Calm. No proof for as long as a probe
//	       may take (Configure): Fault.
//	Fault  declared; every verdict on soft outcomes is held. Whatever ends now and is a proof ends
//	       it: the held misses are forgotten, everything is probed at once (Forget), Calm. Probes
//	       that began during the silence and miss are not counted any more.
//
// Overrides and reloads are not the guard's business: they apply in every phase.
type Guard struct {
	enabled  bool
	doubtFor time.Duration
	phase    GuardPhase
	since    time.Time // Doubt: first held verdict without a proof since; Fault: when declared; Calm: its begin
	proof    time.Time // youngest begin of what proved that the network works
	heard    time.Time // youngest end of it
	cleared  time.Time // end of the last fault
	held     []heldVerdict
	seek     bool      // a verdict was held since the last Seek
	sought   time.Time // last Seek
	polled   time.Time // last Tick
}

// GuardPhase is where the guard stands.
type GuardPhase uint8

// The phases.
const (
	Calm GuardPhase = iota
	Doubt
	Fault
)

// heldVerdict is one down verdict that waits for a proof.
type heldVerdict struct {
	key       Key
	firstMiss time.Time
}

// GuardActions is what the owner must do after a Tick, in this order. The zero value is nothing.
type GuardActions struct {
	Execute  []Key // carry these held verdicts out: Health.Execute, then decide their names
	Declared bool  // the fault begins: log it, hard_local_fault = 1
	Cleared  bool  // the fault is over: log it, hard_local_fault = 0
	Forget   bool  // Health.Forget for every guarded endpoint, then probe all of them at once
	Seek     bool  // probe up to SeekProbes other guarded endpoints at once, healthy ones first
}

const (
	// guardMinAddresses: with two, both dead is as likely as our own fault.
	guardMinAddresses = 3
	// SeekProbes is how many distinct addresses a search for a proof needs to ask: many enough
	// that some other site is among them, few enough to be no burden.
	SeekProbes = 8
	// A doubt lasts as long as the longest timeout among the guarded checks, so that every probe
	// sought may end, but at least 1 s (a SYN is sent again after 1 s) and at most 3 s (a check that
	// may take long needs a long time for its verdict, not for a sign of life).
	minDoubt, maxDoubt = time.Second, 3 * time.Second
	// seekEvery bounds how often a proof is sought while new verdicts come to be held.
	seekEvery = 200 * time.Millisecond
	// Replies of upstreams are asked for, not announced: so often in Doubt and in Fault.
	pollDoubt, pollFault = 50 * time.Millisecond, 250 * time.Millisecond
	// replySlack is how long a reply may have waited in a socket's buffer while a miss overtook it.
	replySlack = 20 * time.Millisecond
)

// Configure tells the guard which endpoints are guarded now, and the longest timeout of their
// checks. Verdicts held for endpoints that are no more are dropped; if the guard is off from now
// on, the next Tick carries all of them out.
func (g *Guard) Configure(guarded []Key, timeout time.Duration) {
	addrs := make(map[netip.Addr]struct{}, guardMinAddresses)
	for i := range guarded {
		if addrs[guarded[i].Addr] = struct{}{}; len(addrs) >= guardMinAddresses {
			break
		}
	}
	g.enabled = len(addrs) >= guardMinAddresses
	g.doubtFor = min(max(timeout, minDoubt), maxDoubt)
	if len(g.held) == 0 {
		return
	}
	still := make(map[Key]struct{}, len(guarded))
	for i := range guarded {
		still[guarded[i]] = struct{}{}
	}
	g.held = slices.DeleteFunc(g.held, func(v heldVerdict) bool {
		_, ok := still[v.key]
		return !ok
	})
}

// Enabled tells whether there are enough guarded addresses.
func (g *Guard) Enabled() bool { return g != nil && g.enabled }

// Phase is where the guard stands, and since when (zero: from the start).
func (g *Guard) Phase() (GuardPhase, time.Time) { return g.phase, g.since }

// Holding is the number of verdicts held back.
func (g *Guard) Holding() int { return len(g.held) }

// Reply tells the guard when the last reply from an upstream that is not on loopback came. The
// owner asks for it before Step and before Tick; a time it has seen before changes nothing.
func (g *Guard) Reply(at time.Time) {
	if !at.IsZero() {
		g.proven(at.Add(-replySlack), at)
	}
}

func (g *Guard) proven(began, ended time.Time) {
	if began.After(g.proof) {
		g.proof = began
	}
	if ended.After(g.heard) {
		g.heard = ended
	}
}

// see takes note of what a sample of a guarded endpoint proves, counted or not.
func (g *Guard) see(s *Sample) {
	if g != nil && s.Outcome.Proof() {
		g.proven(s.At, s.End())
	}
}

// outdated tells whether a miss belongs to a silence that is over.
func (g *Guard) outdated(s *Sample) bool {
	return g != nil && s.Outcome.Soft() && s.At.Before(g.cleared)
}

// holds is asked for every down verdict on soft outcomes; true means held.
func (g *Guard) holds(key Key, firstMiss time.Time) bool {
	if g == nil || !g.enabled || (g.phase != Fault && g.follows(firstMiss)) {
		return false
	}
	for i := range g.held {
		if g.held[i].key == key {
			return true
		}
	}
	g.held = append(g.held, heldVerdict{key, firstMiss})
	g.seek = true
	return true
}

// follows tells whether there is a proof after the miss.
func (g *Guard) follows(miss time.Time) bool { return !g.proof.IsZero() && !g.proof.Before(miss) }

// release is called when a held endpoint recovered, or missed in a way that is no network's fault.
func (g *Guard) release(key Key) {
	if g != nil {
		g.held = slices.DeleteFunc(g.held, func(v heldVerdict) bool { return v.key == key })
	}
}

// Tick moves the guard on. Call it after every Step with a guard, before time passes, and at Next.
func (g *Guard) Tick(now time.Time) (a GuardActions) {
	g.polled = now
	if !g.enabled {
		g.giveUp(now, &a)
		return a
	}
	switch g.phase {
	case Calm:
		if len(g.held) > 0 {
			g.enter(Doubt, now)
			g.doubt(now, &a)
		}
	case Doubt:
		g.doubt(now, &a)
	case Fault:
		if g.heard.After(g.since) {
			a.Cleared, a.Forget = true, true
			g.held, g.seek, g.cleared = nil, false, now
			g.enter(Calm, now)
		}
	}
	return a
}

// doubt carries out what is proven, or seeks a proof, or gives the network up.
func (g *Guard) doubt(now time.Time, a *GuardActions) {
	g.held = slices.DeleteFunc(g.held, func(v heldVerdict) bool {
		if !g.follows(v.firstMiss) {
			return false
		}
		a.Execute = append(a.Execute, v.key)
		return true
	})
	switch {
	case len(g.held) == 0:
		g.seek = false
		g.enter(Calm, now)
		return
	case len(a.Execute) > 0: // the network works; what is still held needs a younger proof
		g.since, g.seek = now, true
	case now.Sub(g.since) >= g.doubtFor:
		a.Declared = true
		g.seek = false
		g.enter(Fault, now)
		return
	}
	if g.seek && !now.Before(g.sought.Add(seekEvery)) {
		a.Seek = true
		g.seek, g.sought = false, now
	}
}

// giveUp ends everything when a new configuration has too few guarded addresses.
func (g *Guard) giveUp(now time.Time, a *GuardActions) {
	for i := range g.held {
		a.Execute = append(a.Execute, g.held[i].key)
	}
	a.Cleared = g.phase == Fault
	g.held, g.seek = nil, false
	if g.phase != Calm {
		g.enter(Calm, now)
	}
}

func (g *Guard) enter(p GuardPhase, now time.Time) { g.phase, g.since = p, now }

// Next is when Tick must be called even if no sample comes; zero: not at all.
func (g *Guard) Next() time.Time {
	switch g.phase {
	case Fault:
		return g.polled.Add(pollFault)
	case Doubt:
		next := earlier(g.since.Add(g.doubtFor), g.polled.Add(pollDoubt))
		if g.seek {
			next = earlier(next, g.sought.Add(seekEvery))
		}
		return next
	}
	if len(g.held) > 0 {
		return g.polled // Tick is overdue
	}
	return time.Time{}
}

// earlier is the earlier of two times; the zero time is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
