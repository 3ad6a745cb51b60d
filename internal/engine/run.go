package engine

import (
	"time"

	"hard/internal/bug"
)

// run is the engine's goroutine.
func (e *Engine) run() {
	defer close(e.done)
	e.started = true
	for _, n := range e.names {
		e.setChecks(n)
	}
	e.setHosts()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !e.ended {
		timer.Reset(e.next(timer.C))
	}
}

// afterBug is when the engine looks again after a panic, if nothing comes in.
const afterBug = time.Second

// next waits for one event and handles it, and returns how long to wait for one to come. A panic is a
// bug of ours: that event is given up, the table in force stays, and the next event is handled. Endpoints
// whose probes go on are so decided anew.
func (e *Engine) next(timer <-chan time.Time) (wait time.Duration) {
	wait = afterBug
	defer bug.Caught(e.log, "the ranking")
	select {
	case s := <-e.samples:
		bug.Here("engine-sample")
		e.sample(&s, e.begin())
		e.drain()
	case f := <-e.calls:
		f()
	case slot := <-e.asked:
		e.wakeUp(slot, e.begin())
	case <-timer:
		e.tick(e.begin())
	case <-e.quit:
		e.ended = true
		e.drain()
		now := e.begin()
		e.publish()
		e.current.flush(e, now, true)
		e.o.Recorder.Input(Input{At: now, Kind: InputStop})
		return 0
	}
	e.settle()
	return e.untilNext()
}

// drain takes the samples that already wait, so that a burst costs one table; what is urgent
// goes out in between.
func (e *Engine) drain() {
	for range cap(e.samples) {
		if e.urgent {
			e.publish()
		}
		select {
		case s := <-e.samples:
			e.sample(&s, e.begin())
		default:
			return
		}
	}
}

// settle publishes what is due.
func (e *Engine) settle() {
	if len(e.changes) > 0 && (e.urgent || e.o.Now().Sub(e.published) >= coalesce) {
		e.publish()
	}
}

// untilNext is how long the engine may sleep when nothing comes in.
func (e *Engine) untilNext() time.Duration {
	now := e.o.Now().Round(0) // the engine's times have no monotonic part: see clock
	d := time.Hour
	at := func(t time.Time) {
		if !t.IsZero() {
			d = min(d, max(0, t.Sub(now)))
		}
	}
	at(e.wake.next())
	at(e.guard.Next())
	at(e.expires)
	at(e.current.next())
	at(e.noted.Add(checkpointEvery))
	if len(e.changes) > 0 {
		at(e.published.Round(0).Add(coalesce))
	}
	return d
}

// tick does what time brings beyond what begin did already.
func (e *Engine) tick(now time.Time) {
	e.current.flush(e, now, false)
	if now.Sub(e.noted) >= checkpointEvery {
		e.checkpoint("", now)
	}
}

// publish hands the gathered changes out as one table.
func (e *Engine) publish() {
	if len(e.changes) == 0 {
		return
	}
	e.table = e.table.With(e.changes)
	clear(e.changes)
	e.changes = e.changes[:0]
	e.urgent = false
	e.published = e.o.Now()
	e.o.Publisher.Publish(e.table)
}
