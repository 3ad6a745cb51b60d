package engine

import (
	"time"

	"hard/internal/rank"
)

// restoreAddresses takes the stored addresses of candidate host names, of any age: they serve
// until the first look-up has an answer (contract, section 5.6).
func (e *Engine) restoreAddresses() {
	for host, addrs := range e.o.Saved.Addresses {
		e.addrs[host] = found{addrs: addrs}
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
	if age := now.Sub(s.At); age < 0 || age > n.cfg.Warm {
		return
	}
	ep.health = s.Health
	ep.health.Restored()
}

// currentEvery bounds how often the stored row of an endpoint follows its latency: state and
// selection are stored as they change, the rest at this pace.
const currentEvery = 5 * time.Second

// currentRows gathers the names whose stored rows are behind.
type currentRows struct {
	names map[*name]bool
	at    time.Time // when the gathered rows are due; zero when there are none
}

// add marks a name for the next flush, which comes within a second.
func (c *currentRows) add(n *name) {
	if c.names == nil {
		c.names = make(map[*name]bool)
	}
	c.names[n] = true
	if c.at.IsZero() {
		c.at = time.Unix(0, 0) // due at once
	}
}

func (c *currentRows) next() time.Time { return c.at }

// flush hands the marked rows to the recorder, and every row when all is set.
func (c *currentRows) flush(e *Engine, now time.Time, all bool) {
	if !all && (c.at.IsZero() || now.Before(c.at)) {
		return
	}
	if all {
		for _, n := range e.names {
			c.add(n)
		}
	}
	var rows []EndpointState
	for n := range c.names {
		for i := range n.eps {
			n.eps[i].stored = now
			rows = append(rows, n.state(i))
		}
	}
	clear(c.names)
	c.at = time.Time{}
	if len(rows) > 0 {
		e.o.Recorder.Current(rows)
	}
}

// state is the row of one endpoint.
func (n *name) state(i int) EndpointState {
	ep := &n.eps[i]
	s := EndpointState{
		Key: n.key(ep), Fingerprint: ep.cand.Check.Fingerprint,
		Tier: ep.cand.Tier, Weight: n.view[i].Weight, Override: n.view[i].Override,
		Latency: ep.health.Latency(n.cfg.Policy.Latency), Health: ep.health,
	}
	if i < len(n.decision.Endpoints) {
		v := &n.decision.Endpoints[i]
		s.Rank, s.Selected = v.Rank, v.Selected
	}
	return s
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
