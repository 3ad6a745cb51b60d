package resolver

import "time"

// wheel orders attempts by the time something is due, to within a tick: a
// timing wheel, because nearly every attempt is taken out before its time and
// both must cost next to nothing. Guarded by the lane's lock.
type wheel struct {
	slots [wheelSlots]*attempt // chained by wnext
	n     int
	hand  int64 // the tick up to which all is done
	armed int64 // when the lane's timer will fire; 0 = not armed
}

const (
	tick       = 10 * time.Millisecond
	wheelSlots = 512 // 5 s; what is due later goes round more than once
)

func (w *wheel) init() { w.hand = 0 }

// add puts at in, due at due.
func (w *wheel) add(at *attempt, due int64) {
	at.due = due
	t := max((due+int64(tick)-1)/int64(tick), w.hand+1)
	at.slot = int(t % wheelSlots)
	at.wprev, at.wnext = nil, w.slots[at.slot]
	if at.wnext != nil {
		at.wnext.wprev = at
	}
	w.slots[at.slot] = at
	w.n++
}

func (w *wheel) remove(at *attempt) {
	if at.slot < 0 {
		return
	}
	if at.wprev != nil {
		at.wprev.wnext = at.wnext
	} else {
		w.slots[at.slot] = at.wnext
	}
	if at.wnext != nil {
		at.wnext.wprev = at.wprev
	}
	at.wprev, at.wnext, at.slot = nil, nil, -1
	w.n--
}

// due takes out one attempt that is due at now; nil = none.
func (w *wheel) due(now int64) *attempt {
	last := now / int64(tick)
	if last-w.hand > wheelSlots { // nothing was in it for long, or we were stopped
		w.hand = last - wheelSlots
	}
	for ; w.n > 0 && w.hand <= last; w.hand++ {
		for at := w.slots[w.hand%wheelSlots]; at != nil; at = at.wnext {
			if at.due <= now {
				w.remove(at)
				return at
			}
		}
		if w.hand == last {
			break
		}
	}
	w.hand = max(w.hand, last)
	return nil
}

// next is the time at which the next slot with something in it is reached.
func (w *wheel) next() int64 {
	for t := w.hand + 1; t <= w.hand+wheelSlots; t++ {
		if w.slots[t%wheelSlots] != nil {
			return t * int64(tick)
		}
	}
	return w.hand*int64(tick) + int64(wheelSlots*tick)
}

// arm sees to it that the lane's timer fires for what is due at due. Lock held.
func (l *lane) arm(due int64) {
	w := &l.wheel
	if w.armed != 0 && w.armed <= due {
		return
	}
	w.armed = due
	slot := (due + int64(tick) - 1) / int64(tick) * int64(tick)
	l.timer.Reset(time.Duration(slot-l.f.now()) + time.Millisecond/4)
}

// runTicker serves the lane's timer. It sleeps while no attempt is under way.
func (l *lane) runTicker() {
	defer l.wg.Done()
	for {
		select {
		case <-l.done:
			return
		case <-l.timer.C:
			l.tickOnce()
		}
	}
}

func (l *lane) tickOnce() {
	defer l.f.recovered()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.f.now()
	defer l.rearm(now) // whatever happens: everybody who waits, waits for this timer
	for at := l.wheel.due(now); at != nil; at = l.wheel.due(now) {
		l.ripe(at, now)
	}
	l.send(now)
	l.sweepPools(now)
}

// ripe is due; a panic in it ends at's flight with SERVFAIL.
func (l *lane) ripe(at *attempt, now int64) {
	defer l.broken(at, at.fl, at.gen, nil)
	l.due(at, now)
}

func (l *lane) rearm(now int64) {
	l.wheel.armed = 0
	if l.wheel.n > 0 {
		l.arm(l.wheel.next())
	} else if l.open > 0 {
		l.arm(now + int64(sockMaxAge))
	}
}
