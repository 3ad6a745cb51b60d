package prober

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"time"

	"hard/internal/bug"
	"hard/internal/procs"
	"hard/internal/rank"
)

const (
	// firstGap is the distance of the first probes of new endpoints: as fast as one core can
	// run them, so that a query that waits for a first verdict gets one.
	firstGap = 100 * time.Microsecond
	// firstQuick is how long it goes on like that, for 1,000 endpoints. Those beyond come as half of the
	// processors can take them, at firstCost each: probe, ranking and history. With 20,000 of them as
	// fast as they would go, all processors were busy for seconds, and with them whoever answers queries.
	firstQuick = 100 * time.Millisecond
	firstCost  = 300 * time.Microsecond

	// slack starts what is due this soon together with what is due, up to a tenth of its
	// interval. The runtime's timers are good to a millisecond, and with every sleep the
	// process also wakes its monitor thread: at 2,000 probes a second a slack of 0.5 ms cost
	// 104 us of CPU a probe, 1 ms 86 us, 2 ms 75 us.
	slack = 2 * time.Millisecond

	// maxBatch bounds the probes that start together. After a stall hundreds are due; all at
	// once they would measure each other. The rest starts when the replies had their turn.
	maxBatch = 32

	// spread is the jitter of an interval, to either side. earlier is the part of it that is kept for
	// starting together with others.
	spread, earlier = 0.1, 0.05

	// company is how many probes start together although the last of them are early, by earlier of
	// their interval and at most earliest. They share their jitter and so stay together. A wake-up
	// costs an idle process several times what a probe does: with 10 endpoints probed every 2 s a
	// second of probing took 1.7 ms of CPU with company and 2.6 without.
	company  = 16
	earliest = 100 * time.Millisecond

	// leastSlots is how many places there are in an interval where the endpoints are few.
	leastSlots = 5
)

func (p *Prober) now() moment { return moment(time.Since(p.base)) }

// offset is a job's place in its interval.
func (p *Prober) offset(id jobID) uint32 { return uint32(maphash.Comparable(p.seed, id)) }

// firstSlotLocked paces the first probes of new jobs.
func (p *Prober) firstSlotLocked() moment {
	now, gap := p.now(), firstGap
	if p.first > now.add(firstQuick) {
		gap = max(gap, 2*firstCost/processors())
	}
	p.first = max(now, p.first.add(gap))
	return p.first
}

// processors is how many there are, and not more than a cgroup's quota lets Go's scheduler use.
func processors() time.Duration { return time.Duration(min(runtime.NumCPU(), procs.Own())) }

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

// drawJitter is a part of an interval, to either side.
func drawJitter() float64 { return (2*rand.Float64() - 1) * (spread - earlier) }

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
	j.started, j.planned = now, max(now, j.due)
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
	bug.Here("probe")
	if usesTCP(pr.check) { // then the connection knows what was late
		p.o.run(pr)
		pr.markDelayed(pr.late)
		return
	}
	mark := p.stalls.enter(pr.start)
	p.o.run(pr)
	pr.markDelayed(pr.late + p.stalls.leave(mark))
}
