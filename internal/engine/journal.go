package engine

import (
	"net/netip"
	"time"

	"hard/internal/rank"
)

// Input is something besides samples that changed what the engine decides by. It is plain data,
// JSON included: with samples and checkpoints it is what the past is rebuilt from (Player).
type Input struct {
	At        time.Time
	Kind      InputKind
	Host      HostKey       `json:",omitzero"`
	Addrs     []netip.Addr  `json:",omitempty"` // InputAddress, InputOwn
	Gone      []netip.Addr  `json:",omitempty"` // InputAddress
	Resolved  bool          `json:",omitempty"` // InputAddress
	Overrides []Override    `json:",omitempty"` // InputOverride
	Config    string        `json:",omitempty"` // InputConfig: the Hash
	Reply     time.Time     `json:",omitzero"`  // InputReply
	Step      time.Duration `json:",omitempty"` // InputClock
}

// InputKind says what an Input is.
type InputKind string

// The kinds of inputs.
const (
	InputAddress    InputKind = "address"    // what a candidate's host names resolve to
	InputOverride   InputKind = "override"   // an operator forced something
	InputConfig     InputKind = "config"     // a reload
	InputReply      InputKind = "reply"      // the guard was told of an upstream's reply
	InputOwn        InputKind = "own"        // this host's own addresses
	InputClock      InputKind = "clock"      // the wall clock was set; a checkpoint follows
	InputCheckpoint InputKind = "checkpoint" // of a Checkpoint in the history, never of an Input
	InputStop       InputKind = "stop"       // the engine ended: nothing is decided from then on
)

// Checkpoint is all that decides, at one instant. Plain data, JSON included; static names, which
// nothing but configuration and overrides decides, are left out.
type Checkpoint struct {
	At        time.Time
	Why       string       // start, config, clock, or "" for the periodic one
	Config    string       // the Hash of the configuration in force
	Own       []netip.Addr `json:",omitempty"`
	Guard     rank.GuardState
	Overrides []Override       `json:",omitempty"`
	Names     []NameCheckpoint `json:"-"` // stored one by one
}

// NameCheckpoint is one name's part.
type NameCheckpoint struct {
	Name      string
	Memory    *rank.Memory         `json:",omitempty"`
	Before    *rank.Memory         `json:",omitempty"` // what the last decision was made with ...
	Decided   time.Time            // ... and when
	Found     []FoundCheckpoint    `json:",omitempty"`
	Endpoints []EndpointCheckpoint `json:",omitempty"` // those that are probed
}

// FoundCheckpoint is what the host names of one candidate resolved to.
type FoundCheckpoint struct {
	Candidate string
	Addrs     []netip.Addr `json:",omitempty"`
	Gone      []netip.Addr `json:",omitempty"`
	Resolved  bool         `json:",omitempty"`
	Had       bool         `json:",omitempty"` // an address, some time
}

// EndpointCheckpoint is the measured health of one endpoint.
type EndpointCheckpoint struct {
	Candidate string
	Addr      netip.Addr
	Health    rank.Health
}

// checkpointEvery is how often all that decides is recorded. Explaining an instant reads that much
// history at most; one costs as much room as some 25 probes of each endpoint.
const checkpointEvery = 10 * time.Minute

// checkpoint records all that decides.
func (e *Engine) checkpoint(why string, now time.Time) {
	e.noted = now
	c := &Checkpoint{
		At: now, Why: why, Config: e.hash, Own: e.guard.own, Guard: e.guard.State(), Overrides: e.overridesList(),
	}
	for _, n := range e.names {
		if p := e.nameCheckpoint(n); len(p.Endpoints) > 0 || len(p.Found) > 0 {
			c.Names = append(c.Names, p)
		}
	}
	e.o.Recorder.Checkpoint(c)
}

func (e *Engine) nameCheckpoint(n *name) NameCheckpoint {
	p := NameCheckpoint{Name: n.cfg.Name, Memory: n.memory, Before: n.before, Decided: n.decided}
	for i := range n.cfg.Candidates {
		c := &n.cfg.Candidates[i]
		if f, ok := e.addrs[HostKey{n.cfg.Name, c.Label}]; ok && len(c.Hosts) > 0 {
			p.Found = append(p.Found, FoundCheckpoint{c.Label, f.addrs, f.gone, f.resolved, f.had})
		}
	}
	for i := range n.eps {
		if ep := &n.eps[i]; !ep.static() {
			p.Endpoints = append(p.Endpoints, EndpointCheckpoint{ep.cand.Label, ep.addr, *ep.health})
		}
	}
	return p
}
