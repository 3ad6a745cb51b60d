package rank

import "time"

// PaceContext is what the pace of an endpoint's probes depends on besides its own health.
type PaceContext struct {
	NameHasEligible bool // some endpoint of the name is eligible
	Idle            bool // nobody has asked for the name for idle_after
}

// Interval is the time from one probe of an endpoint to the next, before jitter.
//
//   - A verdict is pending (no result yet, between the first miss and fall, between the first
//     success and rise): fast_interval, idle or not.
//   - Down: the interval doubles with every failure since the verdict, up to backoff_max; no
//     back-off while the name has nothing eligible.
//   - Idle: idle_interval, or the back-off when that is longer.
//   - A verdict that the local-fault guard holds: fast_interval once more, for the miss that may
//     confirm it, then interval, as more misses do not decide it.
//   - Otherwise: interval.
func Interval(p *Pace, h *Health, ctx PaceContext) time.Duration {
	if pending(p, h) {
		return min(p.FastInterval, p.Interval)
	}
	d := p.Interval
	if ctx.Idle {
		d = max(d, p.IdleInterval)
	}
	if h.State == Unhealthy && ctx.NameHasEligible {
		d = max(d, backoff(p, h.Backoff))
	}
	return d
}

// pending tells whether the next result or two may change the state.
func pending(p *Pace, h *Health) bool {
	switch h.State {
	case Unknown:
		return h.Misses <= 1
	case Healthy:
		return h.Misses > 0 && int(h.Misses) <= max(p.Fall, 1)
	default:
		return h.Oks > 0
	}
}

// backoff is interval, doubled with every failure since the verdict, at most backoff_max. Whoever comes
// back after an outage waits for the next probe, up to backoff_max; a lower one finds them sooner, and
// costs the dead server more probes. (Doubling with every 16th failure was tried: the wait was an eighth
// of the outage at most, for 46 probes more. It is not what backoff_max promises.)
func backoff(p *Pace, failures uint16) time.Duration {
	d := p.Interval
	for n := failures; n > 0 && d > 0 && d < p.BackoffMax; n-- {
		d *= 2
	}
	return min(d, max(p.BackoffMax, p.Interval))
}
