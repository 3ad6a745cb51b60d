package engine

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hard/internal/answer"
	"hard/internal/rank"
)

// rebuild decides every name anew that has no entry, and publishes a whole table.
func (e *Engine) rebuild(entries []*answer.Entry, now time.Time) {
	for slot, n := range e.names {
		if entries[slot] == nil {
			e.decide(n, now, false)
		}
	}
	for i := range e.changes {
		entries[e.changes[i].Slot] = e.changes[i].Entry
	}
	e.changes = nil // later ones are few
	e.urgent = false
	e.table = answer.NewTable(e.index, entries)
	e.published = e.clock.real
	e.o.Publisher.Publish(e.table)
}

// decide asks the policy what a name answers now, and queues a new table entry where that is
// something else than before. urgent: something went down, nobody shall be sent there any more.
func (e *Engine) decide(n *name, now time.Time, urgent bool) {
	e.room.Fleeting = n.static // its Memory isn't kept
	d := rank.Select(n.cfg.Policy, e.view(n), n.memory, now, &e.room)
	e.awaitLookups(n, &d, now)
	e.lookedUp(n, &d)
	n.before, n.decided = n.memory, now
	// Where nothing is probed there is no latency to be sticky about: file order decides.
	if !n.static && (n.memory == nil || !n.memory.Equal(&d.Memory)) {
		m := d.Memory // a pointer into d would keep all of it
		n.memory = &m
		e.o.Recorder.Memory(n.cfg.Name, m)
	}
	e.schedule(n, d.Next)
	e.noteSelected(n, &d)
	e.noteAllDown(n, &d, now)
	spec := e.specOf(n, &d)
	if sum := sumsOf(spec); n.stale || n.sum != sum {
		// A query may be waiting for what comes after Hold.
		e.urgent = e.urgent || urgent || n.held
		e.noteAnswers(n, &d, spec, sum, now)
		n.entry, n.sum, n.stale = answer.Build(spec), sum, false
		e.changes = append(e.changes, answer.Change{Slot: n.slot, Entry: n.entry})
		n.held = spec.Sets[rank.V4].Kind == answer.Hold || spec.Sets[rank.V6].Kind == answer.Hold
	}
	e.pace(n, &d)
}

// view is a name's endpoints as the policy wants them, good until the next call.
func (e *Engine) view(n *name) []rank.Endpoint {
	v := e.scratch[:0]
	for i := range n.eps {
		ep := &n.eps[i]
		state, weight := e.forced(n, ep)
		v = append(v, rank.Endpoint{
			Key: n.key(ep), Tier: ep.cand.Tier, Weight: weight, Override: state, Gone: ep.gone, Health: ep.health,
		})
	}
	e.scratch = v
	return v
}

// decision is the decision in force with all its reasons. It isn't kept: the policy is a pure
// function, and every change of what goes into it is followed by decide.
func (e *Engine) decision(n *name) rank.Decision {
	d := rank.Decide(n.cfg.Policy, e.view(n), n.before, n.decided)
	e.lookedUp(n, &d)
	return d
}

// schedule puts a name's next time into the wake queue: the policy's or the idle watch's.
func (e *Engine) schedule(n *name, due time.Time) {
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

// wakeUp is called when somebody asked for a name marked Idle in the table: one that is idle, or has no verdict yet.
func (e *Engine) wakeUp(slot int, now time.Time) {
	if slot >= len(e.names) {
		return // of a table before the last reload
	}
	n := e.names[slot]
	slow := n.idle.phase == idleSlow
	var keys []rank.Key
	for i := range n.eps {
		ep := &n.eps[i]
		if slow || ep.unhurried() {
			keys = append(keys, n.key(ep))
		}
		ep.hurried = true
	}
	n.idle.reset(n.cfg.IdleAfter, now)
	e.decide(n, now, false)
	if len(keys) > 0 {
		e.o.Prober.ProbeNow(keys)
	}
}

// unhurried tells whether a query that waits may have the first probe brought forward: those of very many endpoints
// are spread over seconds, and it waits for one.
func (ep *endpoint) unhurried() bool {
	return !ep.hurried && ep.health.State == rank.Unknown
}

// pace tells the prober where an endpoint's interval changed.
func (e *Engine) pace(n *name, d *rank.Decision) {
	ctx := rank.PaceContext{Idle: n.idle.phase == idleSlow}
	for i := range d.Endpoints {
		ctx.NameHasEligible = ctx.NameHasEligible || d.Endpoints[i].Eligible
	}
	for i := range n.eps {
		ep := &n.eps[i]
		if ep.static() {
			continue
		}
		every := rank.Interval(n.cfg.Pace, ep.health, ctx)
		if every != ep.every && e.started {
			ep.every = every
			e.o.Prober.SetInterval(n.key(ep), every)
		}
	}
}

// noteSelected takes note of which endpoints came into an answer or left it.
func (e *Engine) noteSelected(n *name, d *rank.Decision) {
	changed := false
	for i := range n.eps {
		if ep := &n.eps[i]; ep.selected != d.Endpoints[i].Selected {
			ep.selected = !ep.selected
			changed = true
		}
	}
	if !changed {
		return
	}
	if n.static && n.entry == nil && len(e.names) > currentBatch {
		e.current.addLater(n)
		return
	}
	e.current.add(n)
	if n.cfg.Watch && e.started {
		e.setChecks(n)
	}
}

// noteAnswers records each family whose answer is another one now.
func (e *Engine) noteAnswers(n *name, d *rank.Decision, spec *answer.Spec, sum sums, now time.Time) {
	if n.static && n.entry == nil && len(e.names) > currentBatch {
		n.firstAt = now
		e.current.addLater(n)
		return
	}
	first := n.entry == nil
	for f := range spec.Sets {
		if !first && n.sum.sets[f] == sum.sets[f] {
			continue
		}
		addrs, reason := kept(spec.Sets[f].Addrs), d.Answers[f].Reason.String()
		same := !first && n.sum.addrs[f] == sum.addrs[f]
		e.o.Recorder.Answer(AnswerChange{
			At: now, Name: n.cfg.Name, Family: rank.Family(f), Addresses: addrs, Reason: reason, First: first, Same: same,
		})
		if !first && e.started {
			level := slog.LevelInfo
			if same {
				level = slog.LevelDebug // other weights, or another reason: nobody gets another address
			}
			e.log.Log(context.Background(), level, "answer changed", "name", n.cfg.Name, "type", rank.Family(f).String(),
				"from", joinAddrs(n.entry.Addrs(f)), "to", joinAddrs(addrs), "reason", reason)
		}
	}
}

// settleFirst records the first answers of a name, if they still wait, before something changes.
func (e *Engine) settleFirst(n *name) {
	if !n.firstAt.IsZero() {
		d := e.decision(n)
		e.recordFirst(n, &d)
	}
}

// recordFirst records the first answers of a static name, where that was put off.
func (e *Engine) recordFirst(n *name, d *rank.Decision) {
	if n.firstAt.IsZero() {
		return
	}
	spec := e.specOf(n, d)
	for f := range spec.Sets {
		e.o.Recorder.Answer(AnswerChange{
			At: n.firstAt, Name: n.cfg.Name, Family: rank.Family(f), Addresses: kept(spec.Sets[f].Addrs),
			Reason: d.Answers[f].Reason.String(), First: true,
		})
	}
	n.firstAt = time.Time{}
}

// sums tell whether an entry would be another one, without keeping what it was built from.
type sums struct {
	idle  bool
	sets  [2]uint64
	addrs [2]uint64 // of each set's addresses alone
}

// sumSeed makes the sums other ones in each process, so that nobody can look for two answers of the same sum.
var sumSeed = maphash.MakeSeed()

func sumsOf(s *answer.Spec) sums {
	out := sums{idle: s.Idle}
	for f := range s.Sets {
		out.sets[f], out.addrs[f] = sumOf(&s.Sets[f])
	}
	return out
}

func sumOf(s *answer.SetSpec) (set, addrs uint64) {
	var room [512]byte // enough for most names
	b := room[:0]
	for _, a := range s.Addrs {
		x := a.As16()
		b = append(b, x[:]...)
	}
	addrs = maphash.Bytes(sumSeed, b)
	for _, n := range [5]int{int(s.Kind), s.Max, s.EDE, len(s.Addrs), len(s.Weights)} {
		b = binary.NativeEndian.AppendUint64(b, uint64(n))
	}
	for _, id := range s.IDs {
		b = binary.NativeEndian.AppendUint64(b, uint64(id))
	}
	for _, w := range s.Weights {
		b = binary.NativeEndian.AppendUint64(b, uint64(w))
	}
	return maphash.Bytes(sumSeed, append(b, s.EDEText...)), addrs
}

// specOf translates a decision into what the front end serves. The result and its slices are good
// until the next call.
func (e *Engine) specOf(n *name, d *rank.Decision) *answer.Spec {
	s := &e.spec
	s.Name = n.cfg.Name
	s.TTL = uint32(n.cfg.TTL / time.Second)
	s.SVCB = answer.SVCB(n.cfg.SVCB)
	held := false
	for f := range s.Sets {
		e.setOf(&s.Sets[f], n, d, rank.Family(f))
		held = held || s.Sets[f].Kind == answer.Hold
	}
	s.Idle = n.idle.phase != idleActive || held && slices.ContainsFunc(n.eps, func(ep endpoint) bool { return ep.unhurried() })
	return s
}

// setOf makes one family's set, in the memory of the one that was there.
func (e *Engine) setOf(s *answer.SetSpec, n *name, d *rank.Decision, f rank.Family) {
	a := &d.Answers[f]
	*s = answer.SetSpec{Max: n.cfg.Policy.MaxAnswers, EDE: answer.NoEDE, Addrs: s.Addrs[:0], IDs: s.IDs[:0], Weights: s.Weights[:0]}
	switch a.Kind {
	case rank.Wait:
		s.Kind, s.Max = answer.Hold, 0
	case rank.StaleAll:
		s.Max = 0
	case rank.Pass:
		s.Kind = answer.Forward
	case rank.Fail:
		s.Kind = answer.ServFail
	case rank.NotReady:
		if s.Kind = answer.ServFail; e.unresolved(n) {
			s.Kind = answer.Hold // a query waits for the look-up
		}
	}
	s.EDE, s.EDEText = n.edeOf(d, f)
	for _, k := range a.Selected {
		ep := &n.eps[k]
		s.Addrs, s.IDs = append(s.Addrs, ep.addr), append(s.IDs, n.ids[n.candidate(ep)])
		if a.Rotate {
			_, weight := e.forced(n, ep)
			s.Weights = append(s.Weights, weight)
		}
	}
}

// kept is a list of addresses that nothing overwrites; nil of none.
func kept(addrs []netip.Addr) []netip.Addr { return append([]netip.Addr(nil), addrs...) }

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
