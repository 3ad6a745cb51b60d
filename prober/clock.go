package prober

import "time"

// clock tells the schedule's goroutine when the next probe is due: an alarm of the reactor, or one of
// the runtime's timers where there is no reactor.
type clock struct {
	rung    chan struct{}
	virtual bool     // tests run in a time of their own
	r       *reactor // nil: timer is used
	alarm   alarm
	timer   *time.Timer
}

// start makes the clock ready.
func (c *clock) start(n *network) {
	if !c.virtual {
		if r, err := n.get(); err == nil {
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
	if c.r != nil {
		c.r.set(&c.alarm, d)
	} else {
		c.timer.Reset(max(0, d))
	}
}

// stop is called when nobody listens any more.
func (c *clock) stop() {
	if c.r != nil {
		c.r.unset(&c.alarm)
	} else {
		c.timer.Stop()
	}
}
