package engine

import (
	"log/slog"
	"net/netip"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
)

// Player runs an engine on recorded input in recorded time: the very code that decided then. It
// has no goroutine and must be used by one at a time. Input is given in the order of its time.
type Player struct {
	e       *Engine
	onto    func(AnswerChange)
	quiet   bool
	replies []Input // of upstreams, and own addresses: heard when the engine asks, not before
	own     []netip.Addr
	ownNext []Input
	reply   time.Time
}

// NewPlayer goes on from a checkpoint, under the configuration of that time. answers gets every
// change of an answer from then on; it may be nil.
func NewPlayer(c *config.Config, from *Checkpoint, answers func(AnswerChange)) (*Player, error) {
	p := &Player{onto: answers, quiet: true, own: from.Own}
	e := &Engine{
		o: Options{
			Config: c, Publisher: silence{p}, Prober: silence{p}, Recorder: silence{p}, Log: slog.New(slog.DiscardHandler),
			LastReply: p.lastReply, OwnAddrs: p.ownAddrs,
			Saved: Saved{Overrides: from.Overrides},
		},
		addrs: make(map[HostKey]found),
	}
	e.log, p.e = e.o.Log, e
	p.at(from.At)
	e.clock.at = from.At
	e.restoreOverrides(from.At)
	for i := range from.Names {
		for _, f := range from.Names[i].Found {
			e.addrs[HostKey{from.Names[i].Name, f.Candidate}] = found{f.Addrs, f.Gone, f.Resolved, f.Had || len(f.Addrs) > 0}
		}
	}
	if err := e.apply(c, from.At); err != nil {
		return nil, err
	}
	for i := range from.Names {
		e.resume(&from.Names[i])
	}
	e.guard.Restore(&from.Guard)
	p.settle()
	p.quiet = false
	return p, nil
}

// resume gives a name the state of a checkpoint.
func (e *Engine) resume(c *NameCheckpoint) {
	n := e.named(c.Name)
	if n == nil {
		return
	}
	n.memory, n.before, n.decided = c.Memory, c.Before, c.Decided
	for i := range c.Endpoints {
		s := &c.Endpoints[i]
		if ep := n.find(&rank.Key{Name: c.Name, Candidate: s.Candidate, Addr: s.Addr}); ep != nil && !ep.static() {
			h := s.Health
			ep.health = &h
		}
	}
	d := e.decision(n)
	e.schedule(n, d.Next)
	e.noteSelected(n, &d)
	n.allDown = d.AllDown
	n.sum = sumsOf(e.specOf(n, &d))
}

// at sets the clock.
func (p *Player) at(t time.Time) { p.e.clock.real, p.e.clock.wall = t, t }

// begin does what was due until t.
func (p *Player) begin(t time.Time) {
	p.at(t)
	p.e.advance(t)
	p.e.clock.at = t
}

// settle forgets what nobody publishes.
func (p *Player) settle() {
	clear(p.e.changes)
	p.e.changes = p.e.changes[:0]
}

// Sample takes a sample at its time, Taken.
func (p *Player) Sample(s *rank.Sample) {
	p.begin(s.Taken)
	p.e.sample(s, s.Taken)
	p.settle()
}

// Input takes an input at its time. A reload is Apply's.
func (p *Player) Input(in Input) {
	switch in.Kind {
	case InputReply:
		p.replies = append(p.replies, in)
		return
	case InputOwn:
		p.ownNext = append(p.ownNext, in)
		return
	case InputAddress:
		p.begin(in.At)
		p.e.setAddresses(in.Host, found{addrs: in.Addrs, gone: in.Gone, resolved: in.Resolved}, in.At)
	case InputOverride:
		p.begin(in.At)
		p.e.putOverrides(in.Overrides, in.At)
	}
	p.settle()
}

// Apply reloads another configuration.
func (p *Player) Apply(c *config.Config, at time.Time) error {
	p.begin(at)
	err := p.e.apply(c, at)
	if err == nil {
		p.e.guardTick(at)
	}
	p.settle()
	return err
}

// Advance lets time pass.
func (p *Player) Advance(to time.Time) {
	if to.After(p.e.clock.at) {
		p.begin(to)
		p.settle()
	}
}

// Snapshot is the state at the time reached; of one name, or of all with the empty string.
func (p *Player) Snapshot(name string) Snapshot { return p.e.snapshot(name, p.e.clock.at) }

// Health is the measured health of an endpoint, nil where there is no such endpoint.
func (p *Player) Health(k *rank.Key) *rank.Health {
	if n := p.e.named(k.Name); n != nil {
		if ep := n.find(k); ep != nil {
			return ep.health
		}
	}
	return nil
}

// Answers are the addresses a name is answered with, by family.
func (p *Player) Answers(text string) (out [2][]netip.Addr) {
	n := p.e.named(text)
	if n == nil {
		return out
	}
	d := p.e.decision(n)
	spec := p.e.specOf(n, &d)
	for f := range out {
		out[f] = kept(spec.Sets[f].Addrs)
	}
	return out
}

func (p *Player) lastReply() time.Time {
	for len(p.replies) > 0 && !p.replies[0].At.After(p.e.clock.at) {
		p.reply, p.replies = p.replies[0].Reply, p.replies[1:]
	}
	return p.reply
}

func (p *Player) ownAddrs() []netip.Addr {
	for len(p.ownNext) > 0 && !p.ownNext[0].At.After(p.e.clock.at) {
		p.own, p.ownNext = p.ownNext[0].Addrs, p.ownNext[1:]
	}
	return p.own
}

// silence stands for the parts around a live engine, which a Player does without.
type silence struct{ p *Player }

func (s silence) Answer(a AnswerChange) {
	if !s.p.quiet && s.p.onto != nil {
		s.p.onto(a)
	}
}
func (silence) Record(rank.Sample)                  {}
func (silence) Event(Event)                         {}
func (silence) Current([]EndpointState)             {}
func (silence) Forget([]rank.Key)                   {}
func (silence) Memory(string, rank.Memory)          {}
func (silence) Addresses(HostKey, []netip.Addr)     {}
func (silence) Input(Input)                         {}
func (silence) Checkpoint(*Checkpoint)              {}
func (silence) Publish(*answer.Table)               {}
func (silence) SetName(string, []Check)             {}
func (silence) SetHosts([]Host)                     {}
func (silence) SetInterval(rank.Key, time.Duration) {}
func (silence) ProbeNow([]rank.Key)                 {}
