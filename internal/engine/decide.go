package engine

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
)

// Extended DNS Error codes of local answers (RFC 8914, section 4).
const (
	edeStaleAnswer = 3
	edeNotReady    = 14
	edeNoReachable = 22
)

// ownFamily is the address family of an endpoint.
func ownFamily(a netip.Addr) rank.Family {
	if a.Is4() {
		return rank.V4
	}
	return rank.V6
}

// rebuild decides every name anew and publishes a whole table.
func (e *Engine) rebuild(now time.Time) {
	entries := make([]*answer.Entry, len(e.names))
	for _, n := range e.names {
		e.decide(n, now, false)
	}
	for i := range e.changes {
		entries[e.changes[i].Slot] = e.changes[i].Entry
	}
	e.changes = e.changes[:0]
	e.urgent = false
	e.table = answer.NewTable(e.index, entries)
	e.published = now
	e.o.Publisher.Publish(e.table)
}

// decide asks the policy what a name answers now, and queues a new table entry where that is
// something else than before. urgent: something went down, nobody shall be sent there any more.
func (e *Engine) decide(n *name, now time.Time, urgent bool) {
	was := n.decision
	d := rank.Decide(n.cfg.Policy, n.view, &n.memory, now)
	if !n.memory.Equal(&d.Memory) {
		e.o.Recorder.Memory(n.cfg.Name, d.Memory)
	}
	n.memory, n.decision = d.Memory, d
	e.schedule(n, now)
	e.noteSelected(n, was.Endpoints, now)
	e.noteAllDown(n, was.AllDown, now)
	if spec := e.specOf(n); n.stale || !n.spec.equal(&spec) {
		e.noteAnswers(n, &was, &spec, now)
		n.spec, n.stale = spec, false
		e.changes = append(e.changes, answer.Change{Slot: n.slot, Entry: answer.Build(e.full(n, &spec))})
		e.urgent = e.urgent || urgent || was.Answers[rank.V4].Kind == rank.Wait || was.Answers[rank.V6].Kind == rank.Wait
	}
	e.pace(n)
}

// schedule puts a name's next time into the wake queue: the policy's or the idle watch's.
func (e *Engine) schedule(n *name, now time.Time) {
	due := n.decision.Next
	if t := n.idle.next(); !t.IsZero() && (due.IsZero() || t.Before(due)) {
		due = t
	}
	e.wake.set(n, due)
}

// nameDue does what was scheduled for a name.
func (e *Engine) nameDue(n *name, now time.Time) {
	n.idle.tick(n.cfg.IdleAfter, now)
	e.decide(n, now, false)
}

// wakeUp is called when somebody asked for a name marked Idle in the table.
func (e *Engine) wakeUp(slot int) {
	if slot >= len(e.names) {
		return // of a table before the last reload
	}
	n, now := e.names[slot], e.o.Now()
	was := n.idle.phase
	n.idle.reset(n.cfg.IdleAfter, now)
	e.decide(n, now, false)
	if was == idleSlow {
		keys := make([]rank.Key, 0, len(n.eps))
		for i := range n.eps {
			keys = append(keys, n.key(&n.eps[i]))
		}
		e.o.Prober.ProbeNow(keys)
	}
}

// pace tells the prober where an endpoint's interval changed.
func (e *Engine) pace(n *name) {
	ctx := rank.PaceContext{Idle: n.idle.phase == idleSlow}
	for i := range n.decision.Endpoints {
		ctx.NameHasEligible = ctx.NameHasEligible || n.decision.Endpoints[i].Eligible
	}
	for i := range n.eps {
		ep := &n.eps[i]
		if ep.cand.Check.Kind == config.CheckStatic {
			continue
		}
		every := rank.Interval(n.cfg.Pace, &ep.health, ctx)
		if every != ep.every && e.started {
			ep.every = every
			e.o.Prober.SetInterval(n.key(ep), every)
		}
	}
}

// noteSelected records which endpoints came into an answer or left it.
func (e *Engine) noteSelected(n *name, was []rank.Verdict, now time.Time) {
	if len(was) != len(n.decision.Endpoints) {
		e.current.add(n)
		if n.cfg.Watch && e.started {
			e.setChecks(n)
		}
		return
	}
	changed := false
	for i := range was {
		changed = changed || was[i].Selected != n.decision.Endpoints[i].Selected
	}
	if !changed {
		return
	}
	e.current.add(n)
	if n.cfg.Watch && e.started {
		e.setChecks(n)
	}
}

// noteAnswers records each family whose answer is another one now.
func (e *Engine) noteAnswers(n *name, was *rank.Decision, spec *specKey, now time.Time) {
	for f := range spec.sets {
		if n.spec.valid && n.spec.sets[f].equal(&spec.sets[f]) {
			continue
		}
		s, a := &spec.sets[f], &n.decision.Answers[f]
		reason := a.Reason.String()
		e.o.Recorder.Answer(AnswerChange{
			At: now, Name: n.cfg.Name, Family: rank.Family(f), Addresses: s.addrs, Reason: reason,
		})
		if n.spec.valid && e.started {
			e.log.Info("answer changed", "name", n.cfg.Name, "family", rank.Family(f).String(),
				"from", joinAddrs(n.spec.sets[f].addrs), "to", joinAddrs(s.addrs), "reason", reason)
		}
	}
}

// specKey is what an entry is built from, kept to see whether a decision changes it.
type specKey struct {
	valid, idle bool
	sets        [2]setKey
}

type setKey struct {
	kind    answer.Kind
	addrs   []netip.Addr
	ids     []uint32 // of the candidates, for the counters
	weights []int
	max     int
	ede     int
}

func (s *setKey) equal(t *setKey) bool {
	return s.kind == t.kind && s.max == t.max && s.ede == t.ede &&
		slices.Equal(s.addrs, t.addrs) && slices.Equal(s.ids, t.ids) && slices.Equal(s.weights, t.weights)
}

func (s *specKey) equal(t *specKey) bool {
	return s.valid && t.valid && s.idle == t.idle && s.sets[0].equal(&t.sets[0]) && s.sets[1].equal(&t.sets[1])
}

// specOf translates a decision into what the front end serves.
func (e *Engine) specOf(n *name) specKey {
	k := specKey{valid: true, idle: n.idle.phase != idleActive}
	for f := range k.sets {
		k.sets[f] = e.setOf(n, &n.decision.Answers[f])
	}
	return k
}

func (e *Engine) setOf(n *name, a *rank.Answer) setKey {
	s := setKey{max: n.cfg.Policy.MaxAnswers, ede: answer.NoEDE}
	switch a.Kind {
	case rank.Wait:
		s.kind, s.ede, s.max = answer.Hold, edeNotReady, 0
	case rank.StaleAll:
		s.ede, s.max = edeStaleAnswer, 0
	case rank.Stale:
		s.ede = edeStaleAnswer
	case rank.Pass:
		s.kind = answer.Forward
	case rank.Empty:
		if n.decision.AllDown {
			s.ede = edeNoReachable
		}
	case rank.Fail:
		s.kind, s.ede = answer.ServFail, edeNoReachable
	case rank.NotReady:
		if e.lookedUp(n) {
			break // DNS has no address of this family: that is NODATA, not a start that isn't over
		}
		s.kind, s.ede = answer.Hold, edeNotReady
	}
	for _, i := range a.Selected {
		s.addrs = append(s.addrs, n.eps[i].addr)
		s.ids = append(s.ids, e.ids.of(HostKey{n.cfg.Name, n.eps[i].cand.Label}))
		if a.Rotate {
			s.weights = append(s.weights, n.view[i].Weight)
		}
	}
	return s
}

// lookedUp tells whether every host name of a name's candidates had an answer in this run.
func (e *Engine) lookedUp(n *name) bool {
	for i := range n.cfg.Candidates {
		c := &n.cfg.Candidates[i]
		if len(c.Hosts) > 0 && !e.addrs[HostKey{n.cfg.Name, c.Label}].resolved {
			return false
		}
	}
	return true
}

// full is the whole specification of a name's table entry.
func (e *Engine) full(n *name, k *specKey) *answer.Spec {
	s := &answer.Spec{
		Name: n.cfg.Name,
		TTL:  uint32(n.cfg.TTL / time.Second),
		SVCB: answer.SVCB(n.cfg.SVCB),
		Idle: k.idle,
	}
	for f := range k.sets {
		v := &k.sets[f]
		s.Sets[f] = answer.SetSpec{Kind: v.kind, Addrs: v.addrs, IDs: v.ids, Weights: v.weights, Max: v.max, EDE: v.ede}
	}
	return s
}

func newIndex(names []string) (*answer.Index, error) { return answer.NewIndex(names) }

// joinAddrs is a list of addresses as text.
func joinAddrs(addrs []netip.Addr) string {
	var b strings.Builder
	for i, a := range addrs {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.String())
	}
	return b.String()
}
