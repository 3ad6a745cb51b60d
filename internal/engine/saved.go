package engine

import (
	"context"
	"net/netip"
	"time"

	"hard/internal/rank"
)

// restoreAddresses takes the stored addresses of candidate host names, of any age: they serve
// until the first look-up has an answer (contract, section 5.6).
func (e *Engine) restoreAddresses() {
	for host, addrs := range e.o.Saved.Addresses {
		e.addrs[host] = found{addrs: addrs, had: len(addrs) > 0}
	}
}

// restore gives a new endpoint its stored health, where the name allows state of that age and
// the check that measured it is the same. A time in the future is a clock that was set back:
// such state counts as old.
func (e *Engine) restore(n *name, ep *endpoint, now time.Time) {
	s, ok := e.o.Saved.Endpoints[n.key(ep)]
	if !ok || s.Fingerprint != ep.cand.Check.Fingerprint {
		return
	}
	if age := now.Sub(s.At); !e.o.Saved.Live && (age < 0 || age > n.cfg.Warm) {
		return
	}
	h := s.Health
	h.Restored()
	ep.health = &h
}

// forgetStrangers takes endpoints out of the history's present that an earlier run knew and this
// configuration doesn't have.
func (e *Engine) forgetStrangers() {
	var keys []rank.Key
	for k := range e.o.Saved.Endpoints {
		if n := e.named(k.Name); n == nil || n.find(&k) == nil {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		e.o.Recorder.Forget(keys)
	}
}

const (
	// currentEvery bounds how often the stored row of an endpoint follows its latency: state and
	// selection are stored as they change, the rest at this pace.
	currentEvery = 5 * time.Second
	// currentBatch and currentPause bound the rows that wait in memory when much changes at once.
	currentBatch = 500
	currentPause = 200 * time.Millisecond
	// backlogBatch names of the backlog are stored every backlogPause: writing what thousands of
	// static names answer is no hurry, and on a single core it would compete with answering.
	backlogBatch = 50
	backlogPause = time.Second
)

// currentRows gathers the names whose stored rows are behind.
type currentRows struct {
	names   []*name
	backlog []*name   // static names of a large configuration, as a start finds them
	at      time.Time // when the next rows are due; zero when there are none
}

// add marks a name for the next flush.
func (c *currentRows) add(n *name) {
	if n.marked {
		return
	}
	n.marked = true
	c.names = append(c.names, n)
	c.at = time.Unix(0, 0) // due at once
}

// addLater marks a name for some flush to come.
func (c *currentRows) addLater(n *name) {
	if n.marked {
		return
	}
	n.marked = true
	c.backlog = append(c.backlog, n)
	if c.at.IsZero() {
		c.at = time.Unix(0, 0)
	}
}

func (c *currentRows) next() time.Time { return c.at }

// flush hands marked rows to the recorder: a batch of them, or with all those of every name.
func (c *currentRows) flush(e *Engine, now time.Time, all bool) {
	if !all && (c.at.IsZero() || now.Before(c.at)) {
		return
	}
	if all {
		for _, n := range e.names {
			if !n.static {
				c.add(n)
			}
		}
	}
	names := take(&c.names, currentBatch, all)
	if len(c.names) == 0 {
		names = append(names, take(&c.backlog, backlogBatch, all)...)
	}
	var rows []EndpointState
	for _, n := range names {
		n.marked = false
		n.stored = now
		d := e.decision(n)
		e.recordFirst(n, &d)
		if n.slot >= len(e.names) || e.names[n.slot] != n {
			continue // a reload took it away while it waited, and its rows are forgotten already
		}
		rows = append(rows, e.states(n, &d)...)
	}
	switch {
	case len(c.names) > 0:
		c.at = now.Add(currentPause)
	case len(c.backlog) > 0:
		c.at = now.Add(backlogPause)
	default:
		*c = currentRows{}
	}
	if len(rows) > 0 {
		e.o.Recorder.Current(rows)
	}
}

// take takes up to count names, or all, from the front of a list.
func take(list *[]*name, count int, all bool) []*name {
	if all || count > len(*list) {
		count = len(*list)
	}
	out := (*list)[:count:count]
	*list = (*list)[count:]
	return out
}

// states are the rows of a name's endpoints under a decision.
func (e *Engine) states(n *name, d *rank.Decision) []EndpointState {
	out := make([]EndpointState, len(n.eps))
	for i := range n.eps {
		ep, v := &n.eps[i], &d.Endpoints[i]
		state, weight := e.forced(n, ep)
		out[i] = EndpointState{
			Key: n.key(ep), Fingerprint: ep.cand.Check.Fingerprint,
			Tier: ep.cand.Tier, Weight: weight, Override: state,
			Rank: v.Rank, Selected: v.Selected,
			Latency: ep.health.Latency(n.cfg.Policy.Latency), Health: *ep.health,
		}
	}
	return out
}

// Snapshot is the engine's state at one instant, for people and their tools.
type Snapshot struct {
	At         time.Time
	LocalFault bool
	Names      []NameView
	Overrides  []Override // in force, of the names shown
	AnswerIDs  []HostKey  // the candidate of each answer.SetSpec.IDs number; read only
}

// NameView is one name with the decision behind its answers.
type NameView struct {
	Name      string
	Decision  rank.Decision
	Endpoints []EndpointState
}

// Saved is what a successor begins with: the state as a restart would find it in the history, but
// of this instant.
func (e *Engine) Saved(ctx context.Context) (Saved, error) {
	var s Saved
	err := e.call(ctx, func() { s = e.saved() })
	return s, err
}

func (e *Engine) saved() Saved {
	s := Saved{
		Live:      true,
		Endpoints: make(map[rank.Key]SavedEndpoint),
		Memories:  make(map[string]rank.Memory),
		Addresses: make(map[HostKey][]netip.Addr, len(e.addrs)),
		Overrides: e.overridesList(),
	}
	for _, n := range e.names {
		if n.memory != nil {
			s.Memories[n.cfg.Name] = *n.memory
		}
		for i := range n.eps {
			if ep := &n.eps[i]; !ep.static() {
				s.Endpoints[n.key(ep)] = SavedEndpoint{*ep.health, ep.cand.Check.Fingerprint, ep.health.Checked}
			}
		}
	}
	for host, f := range e.addrs {
		s.Addresses[host] = f.addrs
	}
	return s
}
