package engine

import (
	"context"
	"log/slog"
	"time"

	"hard/internal/rank"
)

// sample takes one probe result into the state.
func (e *Engine) sample(s *rank.Sample, now time.Time) {
	n := e.named(s.Key.Name)
	if n == nil {
		return // of a name that a reload took away
	}
	ep := n.find(&s.Key)
	if ep == nil || ep.static() {
		return // of an address that has left, or of a check that a reload took away
	}
	e.clock.stamp(s, ep.health.Checked, now)
	e.o.Recorder.Record(*s)
	e.hearReply(now)
	// What isn't counted may still prove to the guard that our network works.
	c := rank.Step(ep.health, n.cfg.Pace, s, e.guard.of(ep))
	e.guardTick(now)
	if !s.Counted() {
		return
	}
	e.noteChange(n, ep, &c, now)
	if now.Sub(n.stored) >= currentEvery {
		e.current.add(n)
	}
	e.decide(n, now, c.Changed() && c.New == rank.Unhealthy)
}

// noteChange records and logs what a result did to an endpoint's state.
func (e *Engine) noteChange(n *name, ep *endpoint, c *rank.Change, now time.Time) {
	if !c.Changed() {
		if c.Held {
			e.log.Warn("a down verdict is held: nothing shows that our own network works",
				"name", n.cfg.Name, "candidate", ep.cand.Label, "address", ep.addr.String(), "reason", c.Reason)
		}
		return
	}
	e.current.add(n)
	e.o.Recorder.Event(Event{
		At: now, Key: n.key(ep), Kind: "state", Old: c.Old.String(), New: c.New.String(), Reason: c.Reason,
	})
	level := slog.LevelInfo
	if c.New == rank.Unhealthy {
		level = slog.LevelWarn
	}
	e.log.Log(context.Background(), level, "endpoint is "+c.New.String(),
		"name", n.cfg.Name, "candidate", ep.cand.Label, "address", ep.addr.String(), "was", c.Old.String(), "reason", c.Reason)
}
