package rank

import (
	"cmp"
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
// A down verdict on soft outcomes alone is carried out when a proof came after that endpoint's
// first miss and another miss began after the proof: no single cut can have caused both. A cut of
// two seconds, a Wi-Fi handover say, is thus told from a death. That costs a real death nothing,
// as a proof is sought at the first miss already and comes within fast_interval. Where one miss
// makes the verdict (fall = 1, the first result ever) the proof after it is all there can be.
// Any other verdict is held. The phases:
//
//	Calm   nothing is held for want of a proof. A soft miss that no proof follows by itself makes
//	       the owner look for one: Seek, probes of other endpoints, some times while none comes.
//	Doubt  a verdict is held, there is still no proof. One comes: verdicts on a single miss are
//	       carried out (Execute), others with their endpoint's next miss: Calm. None comes for as
//	       long as a probe may take (Configure): Fault.
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

	missing  map[Key]*missing // endpoints in a soft failure streak, not down yet
	unproven []*missing       // those without a proof after their first miss, oldest first
	holding  int              // how many of missing are held
	waiting  int              // how many of unproven are held
	execute  []Key            // single misses that a proof has just confirmed
	seek     time.Time        // when a proof is to be sought; zero: no need
	sought   time.Time        // last Seek
	polled   time.Time        // last Tick
}

// missing is one endpoint whose misses may be our own network's fault.
type missing struct {
	key       Key
	firstMiss time.Time
	proof     time.Time // begin of the first proof after it that we know of; zero: none
	held      bool
	single    bool // held on one miss alone
}

// GuardPhase is where the guard stands.
type GuardPhase uint8

// The phases.
const (
	Calm GuardPhase = iota
	Doubt
	Fault
)

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
	// A proof is sought when none has come by itself so long after a miss (busy configurations see
	// one every few milliseconds), and then again and again, in a doubt and in the first second after a miss: an
	// endpoint that happens to be probed already can't be probed at once, and that probe proves nothing. Where
	// all were, a death took three or four timeouts (4 of 175, when sites died whose names have company).
	seekAfter, seekEvery = 20 * time.Millisecond, 200 * time.Millisecond
	// Replies of upstreams are asked for, not announced: so often without a proof and in Fault.
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
	if len(g.missing) == 0 {
		return
	}
	still := make(map[Key]struct{}, len(guarded))
	for i := range guarded {
		still[guarded[i]] = struct{}{}
	}
	for key := range g.missing {
		if _, ok := still[key]; !ok {
			g.release(key)
		}
	}
}

// Enabled tells whether there are enough guarded addresses.
func (g *Guard) Enabled() bool { return g != nil && g.enabled }

// Phase is where the guard stands, and since when (zero: from the start).
func (g *Guard) Phase() (GuardPhase, time.Time) { return g.phase, g.since }

// Holding is the number of verdicts held back.
func (g *Guard) Holding() int { return g.holding }

// Reply tells the guard when the last reply from an upstream that is not on loopback came. The
// owner asks for it before Step and before Tick; a time it has seen before changes nothing.
func (g *Guard) Reply(at time.Time) {
	if !at.IsZero() {
		g.proven(at.Add(-replySlack), at)
	}
}

// proven takes a proof that began and ended then to all misses it follows.
func (g *Guard) proven(began, ended time.Time) {
	if ended.After(g.heard) {
		g.heard = ended
	}
	if !began.After(g.proof) {
		return
	}
	g.proof = began
	g.unproven = slices.DeleteFunc(g.unproven, func(m *missing) bool {
		if began.Before(m.firstMiss) {
			return false
		}
		m.proof = began
		if m.held {
			g.waiting--
		}
		if m.single {
			g.execute = append(g.execute, m.key)
			g.holding--
			delete(g.missing, m.key)
		}
		return true
	})
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

// miss is told of the first soft miss of an endpoint that is not down.
func (g *Guard) miss(key Key, firstMiss time.Time) {
	if !g.Enabled() {
		return
	}
	if g.missing == nil {
		g.missing = make(map[Key]*missing)
	}
	m := &missing{key: key, firstMiss: firstMiss}
	g.missing[key] = m
	if g.phase != Fault && !g.proof.IsZero() && !g.proof.Before(firstMiss) {
		m.proof = g.proof
		return
	}
	g.unproven = append(g.unproven, m)
	if g.seek.IsZero() {
		g.seek = firstMiss.Add(seekAfter)
	}
}

// holds is asked for every down verdict on soft outcomes, which is due by a probe that began
// then; true means held.
func (g *Guard) holds(key Key, began time.Time, single bool) bool {
	if !g.Enabled() || g.missing[key] == nil {
		return false // off, or so recently on that the streak is older
	}
	m := g.missing[key]
	if g.phase != Fault && !m.proof.IsZero() && (single || !began.Before(m.proof)) {
		return false
	}
	if !m.held {
		m.held, m.single = true, single
		g.holding++
		if m.proof.IsZero() {
			g.waiting++
		}
	}
	m.single = single
	return true
}

// release is called when the streak of an endpoint is over or has led to a verdict.
func (g *Guard) release(key Key) {
	if g == nil || g.missing[key] == nil {
		return
	}
	m := g.missing[key]
	delete(g.missing, key)
	if m.held {
		g.holding--
	}
	if !m.proof.IsZero() {
		return
	}
	if m.held {
		g.waiting--
	}
	g.unproven = slices.DeleteFunc(g.unproven, func(u *missing) bool { return u == m })
}

// Tick moves the guard on. Call it after every Step with a guard, before time passes, and at Next.
func (g *Guard) Tick(now time.Time) (a GuardActions) {
	g.polled = now
	if !g.enabled {
		g.giveUp(now, &a)
		return a
	}
	if g.phase == Fault {
		if g.heard.After(g.since) {
			a.Cleared, a.Forget = true, true
			g.forget()
			g.cleared = now
			g.enter(Calm, now)
		}
		return a
	}
	a.Execute, g.execute = g.execute, nil
	switch {
	case g.waiting == 0:
		if g.phase == Doubt {
			g.enter(Calm, now)
		}
	case g.phase == Calm, g.heard.After(g.since):
		g.enter(Doubt, now) // anew after a proof: what is still held needs a younger one
		if g.seek.IsZero() {
			g.seek = now
		}
	case now.Sub(g.since) >= g.doubtFor:
		a.Declared = true
		g.enter(Fault, now)
		return a
	}
	a.Seek = g.seekNow(now)
	return a
}

// seekNow tells whether it is time to look for a proof.
func (g *Guard) seekNow(now time.Time) bool {
	if len(g.unproven) == 0 {
		g.seek = time.Time{}
	}
	if g.seek.IsZero() || now.Before(g.seek) || now.Before(g.sought.Add(seekEvery)) {
		return false
	}
	g.seek, g.sought = time.Time{}, now
	if newest := g.unproven[len(g.unproven)-1].firstMiss; g.phase == Doubt || now.Sub(newest) < minDoubt {
		g.seek = now.Add(seekEvery)
	}
	return true
}

// giveUp ends everything when a new configuration has too few guarded addresses.
func (g *Guard) giveUp(now time.Time, a *GuardActions) {
	for key, m := range g.missing {
		if m.held {
			a.Execute = append(a.Execute, key)
		}
	}
	slices.SortFunc(a.Execute, compareKeys)
	a.Cleared = g.phase == Fault
	g.forget()
	if g.phase != Calm {
		g.enter(Calm, now)
	}
}

// forget drops all misses.
func (g *Guard) forget() {
	g.missing, g.unproven, g.execute = nil, nil, nil
	g.holding, g.waiting, g.seek = 0, 0, time.Time{}
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Candidate, b.Candidate), a.Addr.Compare(b.Addr))
}

func (g *Guard) enter(p GuardPhase, now time.Time) { g.phase, g.since = p, now }

// Next is when Tick must be called even if no sample comes; zero: not at all.
func (g *Guard) Next() time.Time {
	switch {
	case g.phase == Fault:
		return g.polled.Add(pollFault)
	case len(g.unproven) == 0 && g.waiting == 0:
		return time.Time{}
	}
	next := g.polled.Add(pollDoubt)
	if g.phase == Doubt {
		next = earlier(next, g.since.Add(g.doubtFor))
	}
	if at := g.sought.Add(seekEvery); !g.seek.IsZero() {
		if at.Before(g.seek) {
			at = g.seek
		}
		next = earlier(next, at)
	}
	return next
}

// earlier is the earlier of two times; the zero time is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
