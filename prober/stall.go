package prober

import (
	"sync"
	"time"
)

// stallTick is how often the process looks whether it gets the CPU, while probes are running that
// have no TCP connection to ask (conn.go). A hundred looks a second cost some milliseconds of CPU
// where the process is idle otherwise.
const stallTick = 10 * time.Millisecond

// stallMeter measures how long the process did not run although it should have: stopped,
// suspended, or without CPU. What comes late to such a process says nothing about the candidate.
type stallMeter struct {
	mu     sync.Mutex
	timer  *time.Timer
	users  int
	armed  bool
	closed bool
	expect time.Time     // when the next look is due; meaningful while armed
	total  time.Duration // stalled so far
}

// stallMark is the meter's reading when a probe began.
type stallMark time.Duration

// enter is called when a probe begins.
func (s *stallMeter) enter(now time.Time) stallMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	if !s.armed && !s.closed {
		s.armed = true
		s.expect = now.Add(stallTick)
		if s.timer == nil {
			s.timer = time.AfterFunc(stallTick, s.look)
		} else {
			s.timer.Reset(stallTick)
		}
	}
	return stallMark(s.total + s.lateLocked(now))
}

// leave is called when a probe has ended; it returns how long the process was stalled meanwhile.
func (s *stallMeter) leave(mark stallMark) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	return max(0, s.total+s.lateLocked(time.Now())-time.Duration(mark))
}

// lateLocked is how late the next look is already: the goroutine that asks may have got the CPU
// back before the timer's.
func (s *stallMeter) lateLocked(now time.Time) time.Duration {
	if !s.armed {
		return 0
	}
	return max(0, now.Sub(s.expect))
}

// look is run by the timer.
func (s *stallMeter) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	// Some lateness is the timer's own; below half a tick nothing is added up.
	if late := now.Sub(s.expect); late > stallTick/2 {
		s.total += late
	}
	s.armed = s.users > 0 && !s.closed
	if s.armed {
		s.expect = now.Add(stallTick)
		s.timer.Reset(stallTick)
	}
}

func (s *stallMeter) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
