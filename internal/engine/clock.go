package engine

import (
	"time"

	"hard/internal/rank"
)

// clock is the engine's own: whatever the engine does has a time of its own, in steps of
// rank.Precision, each later than the one before, and that time alone goes into decisions. What
// time itself brings is done at the very time it was due, before what came later (advance). So the
// past can be rebuilt exactly from the recorded times (Player), however late a timer or a channel
// was.
//
// It shows the wall clock's time without a monotonic part. When the wall clock is set, all times
// that the engine remembers are moved along, so that no hold ends early or lasts for hours.
type clock struct {
	at   time.Time // of what is being done now
	real time.Time // Options.Now when it was last asked, with its monotonic part ...
	wall time.Time // ... and without
}

// clockStep is what counts as a clock that was set rather than slewed.
const clockStep = time.Second

// begin starts an operation: it does what has been due, and returns the operation's time.
func (e *Engine) begin() time.Time {
	c := &e.clock
	real := e.o.Now()
	wall := real.Round(0)
	if !c.real.IsZero() {
		if step := wall.Sub(c.wall) - real.Sub(c.real); step.Abs() >= clockStep {
			step = step.Truncate(time.Microsecond)
			e.shift(step)
			e.o.Recorder.Input(Input{At: c.at, Kind: InputClock, Step: step})
			e.checkpoint("clock", c.at)
		}
	}
	c.real, c.wall = real, wall
	now := wall.Truncate(rank.Precision)
	if !now.After(c.at) {
		now = c.at.Truncate(rank.Precision).Add(rank.Precision)
	}
	e.advance(now)
	c.at = now
	return now
}

// advance does what is due until now, each at its own time.
func (e *Engine) advance(now time.Time) {
	for {
		at, do := e.wake.next(), e.wakeNext
		if t := e.expires; !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at, do = t, e.expire
		}
		if t := e.guard.Next(); !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at, do = t, e.guardTick
		}
		if at.IsZero() || at.After(now) {
			return
		}
		if at.After(e.clock.at) {
			e.clock.at = at
		}
		do(e.clock.at)
	}
}

// wakeNext does what was due for one name.
func (e *Engine) wakeNext(now time.Time) {
	if n := e.wake.due(now); n != nil {
		e.nameDue(n, now)
	}
}

// convert gives a time of Options.Now's clock by the engine's.
func (c *clock) convert(t time.Time) time.Time {
	at := t.Round(0)
	if other := c.wall.Add(-c.real.Sub(t)); other.Sub(at).Abs() >= clockStep {
		at = other // the wall clock was set in between
	}
	return at.Truncate(time.Microsecond)
}

// stamp gives a sample the engine's time, and all its times the precision of the history: of its
// start a millisecond, in which it is the only one of its endpoint. last is the start of the one
// before it. A phase that was reached never becomes zero.
func (c *clock) stamp(s *rank.Sample, last, now time.Time) {
	s.At, s.Taken = c.convert(s.At).Truncate(time.Millisecond), now
	if !s.At.After(last) { // refused on loopback, and probed again at once
		s.At = last.Truncate(time.Millisecond).Add(time.Millisecond)
	}
	p := &s.Phases
	for _, d := range []*time.Duration{&p.Connect, &p.TLS, &p.FirstByte, &p.Total} {
		if *d > 0 {
			*d = max(d.Round(rank.Precision), rank.Precision)
		}
	}
}

// shift moves all times that the engine remembers. An override ends by the wall clock, as its
// operator said.
func (e *Engine) shift(d time.Duration) {
	move := func(t *time.Time) {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
	for _, n := range e.names {
		if n.memory != nil {
			m := n.memory.Shifted(d)
			n.memory = &m
		}
		if n.before != nil {
			m := n.before.Shifted(d)
			n.before = &m
		}
		for _, t := range []*time.Time{&n.decided, &n.stored, &n.idle.at, &n.due} {
			move(t)
		}
		for i := range n.eps {
			if ep := &n.eps[i]; !ep.static() {
				ep.health.Shift(d)
			}
		}
	}
	e.guard.Shift(d)
	for _, t := range []*time.Time{&e.clock.at, &e.noted, &e.reply.at} {
		move(t)
	}
	if e.current.at.Unix() > 0 {
		move(&e.current.at)
	}
}
