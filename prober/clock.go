package prober

import "time"

// clock tells the schedule's goroutine when the next probe is due: an alarm of the reactor, or one of
// the runtime's timers where there is no reactor. Guarded by Prober.mu.
type clock struct {
	rung    chan struct{}
	net     *network // nil: tests run in a time of their own
	r       *reactor
	alarm   alarm
	timer   *time.Timer
	started bool
}

func newClock(n *network) clock { return clock{rung: make(chan struct{}, 1), net: n} }

// start chooses the timer, with the first thing there is to wait for.
func (c *clock) start() {
	c.started = true
	if c.net != nil {
		if r, err := c.net.get(); err == nil {
			c.r, c.alarm.ring = r, c.ring
			return
		}
	}
	c.timer = time.AfterFunc(never, c.ring)
}

func (c *clock) ring() {
	select {
	case c.rung <- struct{}{}:
	default: // the goroutine is about to look anyway
	}
}

// set makes the clock ring once, after d, instead of what was set before.
func (c *clock) set(d time.Duration) {
	if !c.started {
		c.start()
	}
	if c.r != nil {
		c.r.set(&c.alarm, d)
	} else {
		c.timer.Reset(max(0, d))
	}
}

// stop ends the ringing; nothing is set afterwards.
func (c *clock) stop() {
	switch {
	case c.r != nil:
		c.r.unset(&c.alarm)
	case c.timer != nil:
		c.timer.Stop()
	}
}
