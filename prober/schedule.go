package prober

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"time"

	"hard/internal/bug"
	"hard/internal/config"
	"hard/internal/rank"
)

const (
	// firstGap is the distance of the first probes of new endpoints: as fast as one core can
	// run them, so that a query that waits for a first verdict gets one ...
	firstGap = 100 * time.Microsecond
	// ... and firstWithin is how long the last of very many may wait: a query waits 1 s.
	firstWithin = 800 * time.Millisecond

	// slack starts what is due this soon together with what is due, up to a tenth of its
	// interval. The runtime's timers are good to a millisecond, and with every sleep the
	// process also wakes its monitor thread: at 2,000 probes a second a slack of 0.5 ms cost
	// 104 us of CPU a probe, 1 ms 86 us, 2 ms 75 us.
	slack = 2 * time.Millisecond

	// maxBatch bounds the probes that start together. After a stall hundreds are due; all at
	// once they would measure each other. The rest starts when the replies had their turn.
	maxBatch = 32

	// spread is the jitter of an interval, to either side. earlier is the part of it to the early side
	// that is kept for starting together with others.
	spread, earlier = 0.1, 0.05

	// company is how many probes start together although the last of them are early, by earlier of
	// their interval and at most earliest. They share their jitter and so stay together. A wake-up
	// costs an idle process several times what a probe does: with 10 endpoints probed every 2 s a
	// second of probing took 1.5 ms of CPU with company and 2.6 without.
	company  = 8
	earliest = 100 * time.Millisecond

	// leastSlots is how many places there are in an interval where the endpoints are few.
	leastSlots = 5
)

func (p *Prober) now() moment { return moment(time.Since(p.base)) }

// offset is a job's place in its interval.
func (p *Prober) offset(id jobID) uint32 { return uint32(maphash.Comparable(p.seed, id)) }

// firstSlotLocked paces the first probes of new jobs.
func (p *Prober) firstSlotLocked() moment {
	now := p.now()
	slot := max(now, p.first.add(firstGap))
	if slot > now.add(firstWithin) {
		return now.add(rand.N(firstWithin)) // too many to pace; the limit of running probes does
	}
	p.first = slot
	return slot
}

// armLocked sets the timer for the head of the queue.
func (p *Prober) armLocked() {
	if !p.started || p.stopped || p.heap.len() == 0 {
		return
	}
	if due := p.heap.head().due; due < p.armed {
		p.armed = due
		p.clock.set(due.sub(p.now()))
	}
}

// loop is the schedule's goroutine: it starts what is due.
func (p *Prober) loop() {
	defer p.wg.Done()
	for {
		select {
		case <-p.clock.rung:
			p.startDue()
		case <-p.quit:
			return
		}
	}
}

func (p *Prober) startDue() {
	defer bug.Caught(p.log, "the schedule of probes")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = moment(never)
	now, jitter := p.now(), drawJitter()
	for n := 0; n < maxBatch && p.heap.len() > 0 && !p.stopped; n++ {
		j := p.heap.head()
		if j.due > now.add(j.slackLocked(now, n)) {
			break
		}
		p.heap.remove(j)
		j.jitter = jitter
		if p.running >= p.maxRuns {
			j.waiting = true
			p.ready.push(j)
			continue
		}
		p.running++
		p.startLocked(j, now)
		p.employLocked(j)
	}
	p.armLocked()
}

// drawJitter is a part of an interval, from -spread to spread less what may be earlier.
func drawJitter() float64 { return rand.Float64()*(2*spread-earlier) - spread + earlier }

// slackLocked is how much too early a job may start as the n-th that starts together. A time to
// wait that was asked for is kept.
func (j *job) slackLocked(now moment, n int) time.Duration {
	d := min(slack, j.every/10)
	if n < company && j.floor <= now {
		d = max(d, min(earliest, time.Duration(earlier*float64(j.every))))
	}
	return d
}

// startLocked marks a job as running.
func (p *Prober) startLocked(j *job, now moment) {
	j.running = true
	j.started = now
	p.counters.lag.observe(max(0, now.sub(j.due)))
}

// worker is a goroutine that runs probes. A few are kept when there is nothing to do: their stacks
// have grown to what a probe needs, which a new goroutine pays for with copying.
type worker struct{ jobs chan *job }

const maxIdleWorkers = 16

// employLocked gives a job to an idle worker, or to a new one.
func (p *Prober) employLocked(j *job) {
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1] // the one whose stack is warmest
		p.idle = p.idle[:n-1]
		w.jobs <- j // never blocks: there is room for one
		return
	}
	p.wg.Add(1)
	go p.work(&worker{jobs: make(chan *job, 1)}, j)
}

// work runs a job, then those that waited for its slot, and then what comes.
func (p *Prober) work(w *worker, j *job) {
	defer p.wg.Done()
	for {
		for j != nil {
			pr := p.newProbe(j)
			p.runProbe(pr)
			j = p.finish(j, pr)
		}
		if !p.rest(w) {
			return
		}
		select {
		case j = <-w.jobs:
		case <-p.quit:
			select {
			case j = <-w.jobs: // given before the end, and to be ended by its own abort
			default:
				return
			}
		}
	}
}

// rest makes a worker idle, unless there are enough.
func (p *Prober) rest(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || len(p.idle) >= maxIdleWorkers {
		return false
	}
	p.idle = append(p.idle, w)
	return true
}

// newProbe makes the probe of a job that is about to run.
func (p *Prober) newProbe(j *job) *probe {
	pr := &probe{addr: j.id.addr, timeout: j.id.timeout, check: j.check, prepared: j.prepared}
	p.mu.Lock()
	pr.done = j.done
	if len(j.keys) > 0 {
		pr.name, pr.candidate = j.keys[0].Name, j.keys[0].Candidate
	}
	p.mu.Unlock()
	return pr
}

// runProbe runs one probe. A panic in it is a bug of ours and ends that probe alone.
func (p *Prober) runProbe(pr *probe) {
	defer func() {
		if r := recover(); r != nil {
			bug.Note(p.log, r, "a probe", "name", pr.name, "candidate", pr.candidate, "address", pr.addr)
			pr.begin()
			pr.end(rank.Aborted, 0, fmt.Sprintf("bug in the probe: %v", r))
		}
	}()
	pr.begin()
	if usesTCP(pr.check) { // then the connection knows what was late
		p.o.run(pr)
		pr.markDelayed(pr.late)
		return
	}
	mark := p.stalls.enter(pr.start)
	bug.Here("probe")
	p.o.run(pr)
	pr.markDelayed(pr.late + p.stalls.leave(mark))
}

// finish hands the samples out, plans the next probe, and returns the job that takes the slot
// over, or nil.
func (p *Prober) finish(j *job, pr *probe) *job {
	p.mu.Lock()
	keys := j.keys
	p.mu.Unlock()
	p.deliver(keys, pr)

	p.mu.Lock()
	defer p.mu.Unlock()
	j.prepared = pr.prepared
	j.running = false
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
	return j.started.add(j.every + time.Duration(j.jitter*float64(j.every)))
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
