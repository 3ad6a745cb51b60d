package engine

import (
	"time"

	"hard/internal/rank"
)

// This file is about candidates of which no address is known, yet or at all.

// awaitLookups has the policy treat the time in which candidates' names wait for their first look-up like
// that in which endpoints wait for their first verdict: what was selected meanwhile gives way without hold. Else a
// start would stay with the far region for that long, only because its addresses stand in the file.
func (e *Engine) awaitLookups(n *name, d *rank.Decision, now time.Time) {
	m, was, hold := &d.Memory, n.memory, n.cfg.Policy.Hold
	if hold <= 0 || !m.Settles.IsZero() || !placed(m) || !e.lookupsPending(n) {
		return
	}
	switch {
	case was == nil || !placed(was):
		m.Settles = now.Add(hold)
	case was.Settles.After(now) && !was.Settles.After(now.Add(hold)):
		m.Settles = was.Settles
	}
}

// placed tells whether a tier was chosen for either family.
func placed(m *rank.Memory) bool { return m.Families[rank.V4].Placed || m.Families[rank.V6].Placed }

// lookupsPending tells whether a candidate of the name has no address because its first look-up has no answer yet.
func (e *Engine) lookupsPending(n *name) bool {
	return e.anyFound(n, func(f found) bool { return !f.resolved && len(f.addrs) == 0 })
}

// unresolved tells whether a look-up of the name's candidates has had no answer in this run.
func (e *Engine) unresolved(n *name) bool {
	return e.anyFound(n, func(f found) bool { return !f.resolved })
}

// anyFound tells whether is holds for what is known of any candidate that has to be looked up.
func (e *Engine) anyFound(n *name, is func(found) bool) bool {
	for i := range n.cfg.Candidates {
		c := &n.cfg.Candidates[i]
		if len(c.Hosts) > 0 && is(e.addrs[HostKey{n.cfg.Name, c.Label}]) {
			return true
		}
	}
	return false
}

// lookedUp gives a name without any address the answer that it has once all look-ups have had theirs. Where none ever
// brought an address, that is most likely a mistake in the file or in DNS: SERVFAIL, as while one is still to come
// (contract, section 5, number 6), but without the wait. Addresses that have left DNS were taken out on purpose: NODATA.
func (e *Engine) lookedUp(n *name, d *rank.Decision) {
	if d.Answers[rank.V4].Kind != rank.NotReady || e.unresolved(n) { // it is both families' or neither's
		return
	}
	had := e.anyFound(n, func(f found) bool { return f.had })
	for f := range d.Answers {
		d.Answers[f] = rank.WithoutAddress(had)
	}
}
