package prober

import (
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// finish hands the samples out, plans the next probe, and returns the job that takes the slot
// over, or nil.
func (p *Prober) finish(j *job, pr *probe) *job {
	p.mu.Lock()
	keys := j.keys
	j.ending = true
	p.mu.Unlock()
	p.deliver(keys, pr)

	p.mu.Lock()
	defer p.mu.Unlock()
	j.prepared = pr.prepared
	j.running, j.ending = false, false
	j.probed = true
	p.nextLocked(j, pr)
	next := p.takeLocked()
	p.armLocked()
	return next
}

// takeLocked gives the slot that became free to the job that waits longest.
func (p *Prober) takeLocked() *job {
	for p.ready.len() > 0 && !p.stopped {
		j := p.ready.pop()
		j.waiting = false
		if len(j.members) == 0 {
			delete(p.jobs, j.id)
			continue
		}
		p.reviveLocked(j)
		j.jitter = drawJitter()
		p.startLocked(j, p.now())
		return j
	}
	p.running--
	return nil
}

// reviveLocked gives a job that was aborted and wanted again a new life.
func (p *Prober) reviveLocked(j *job) {
	if j.canceled && !p.stopped {
		j.canceled = false
		j.done = make(chan struct{})
	}
}

// deliver sends the samples of a probe, one set for each endpoint that shares it.
func (p *Prober) deliver(keys []rank.Key, pr *probe) {
	for i := range pr.samples {
		s := &pr.samples[i]
		p.counters.count(s)
		for _, key := range keys {
			s.Key = key
			p.o.Sink.Sample(*s)
		}
	}
}

// nextLocked plans the probe after one that has ended.
func (p *Prober) nextLocked(j *job, pr *probe) {
	if p.stopped {
		return
	}
	if len(j.members) == 0 {
		delete(p.jobs, j.id)
		return
	}
	now := p.now()
	outcome := pr.outcome()
	again := j.again || j.canceled
	p.reviveLocked(j)
	j.refreshLocked()
	switch {
	case refusal(outcome) && j.burst > 0:
		j.burst--
		again = true
	case !j.again: // else the break came while the probe ran
		j.burst = 0
	}
	j.again = false
	j.floor = 0
	if pr.slow {
		j.floor = j.started.add(j.slowDownLocked(pr.retryAfter))
	}
	if outcome == rank.Timeout {
		j.floor = max(j.floor, now.add(j.breathLocked()))
	}
	p.reconnectLocked(j, outcome)
	switch {
	case again:
		p.heap.set(j, now)
	case pr.wasted():
		p.heap.set(j, max(now.add(j.breathLocked()), j.floor))
	case j.check.Kind == config.CheckStatic:
		// always healthy: one sample says it all
	default:
		p.heap.set(j, max(now, j.floor, p.dueLocked(j)))
	}
}

// slowDownLocked is how long a server that answered 429 is left alone: twice the interval or
// what it asked for, but no longer than a down endpoint would be.
func (j *job) slowDownLocked(retryAfter time.Duration) time.Duration {
	limit := j.every
	for _, m := range j.members {
		limit = max(limit, m.pace.BackoffMax)
	}
	return min(max(2*j.every, retryAfter), limit)
}

// breathLocked is how long a job rests after a timeout, which may have outlasted its interval: one
// fast_interval. Without it the next probe would begin before the local-fault guard could have its
// proof that our own network works, its miss would not confirm the verdict, and it would take a
// third timeout: 4.0 s in the median at default settings instead of 3.3 s.
func (j *job) breathLocked() time.Duration {
	d := j.every
	for _, m := range j.members {
		if m.pace.FastInterval > 0 {
			d = min(d, m.pace.FastInterval)
		}
	}
	return d
}

// dueLocked is when a job's interval after its last start ends. The first time that it is at its
// steady pace it is put on its hash offset, never later than the interval would be. Offsets are
// whole slots, so that few endpoints have company from the start and many are spread.
func (p *Prober) dueLocked(j *job) moment {
	if !j.aligned && j.every >= j.steadyLocked() {
		j.aligned = true
		cycle := moment(j.every)
		slots := uint64(max(leastSlots, len(p.jobs)/(company/2)))
		phase := cycle / moment(slots) * moment(uint64(j.offset)*slots>>32)
		due := j.started - j.started%cycle + phase
		for due < j.started+cycle/16 {
			due += cycle
		}
		return min(due, j.started+cycle)
	}
	return j.planned.add(j.every + time.Duration(j.jitter*float64(j.every)))
}

// steadyLocked is the shortest interval of a job's members when nothing is pending.
func (j *job) steadyLocked() time.Duration {
	d := never
	for _, m := range j.members {
		d = min(d, m.pace.Interval)
	}
	return d
}

// repaceLocked moves a job that waits for its next turn after its pace has changed. One that is due
// already stays so: it may be the probe that a broken connection or ProbeNow asked for.
func (p *Prober) repaceLocked(j *job) {
	now := p.now()
	if j.pos == 0 || !j.probed || j.due <= now {
		return
	}
	p.heap.set(j, max(now, j.floor, p.dueLocked(j)))
}

// refusal tells outcomes that confirm, after a watched connection broke, that nobody is there.
func refusal(o rank.Outcome) bool { return o == rank.Refused || o == rank.Reset }
