package rank

import (
	"fmt"
	"math"
	"time"
)

// Health is the measured health of one endpoint. It is plain data, about 250 bytes, may be copied
// and stored (JSON included), and is changed by Step, Execute, Forget and Restored alone. The zero
// value is an endpoint that was never probed.
type Health struct {
	State   State
	Last    Outcome   // of the last counted probe; meaningful when Checked is set
	Warm    bool      // restored from an earlier run, no counted result of this run yet
	Held    bool      // misses enough for a down verdict, which the local-fault guard holds back
	Soft    bool      // the present failure streak has soft outcomes only
	Backoff uint16    // failures since the down verdict, or since the last success: the back-off's age
	Oks     uint16    // successes in a row
	Misses  uint16    // failures in a row
	Since   time.Time // when State began; zero while it never changed
	Checked time.Time // start of the last counted probe

	// FirstMiss is when the first miss of the present failure streak was known (the end of that
	// probe); zero outside one. A proof that our network works must be younger than this.
	FirstMiss time.Time

	Latencies Latencies
}

// Change is what one result did to an endpoint's health.
type Change struct {
	Old, New State
	Held     bool   // a down verdict was due and the guard holds it back from now on
	Reason   string // one line for a person; empty where nothing changed and nothing was held
}

// Changed tells whether the state is another one now.
func (c Change) Changed() bool { return c.Old != c.New }

// Latency is the smoothed estimate that ranks the endpoint; 0 means there is none.
func (h *Health) Latency(m LatencyMode) time.Duration {
	if h == nil || int(m) >= len(h.Latencies.Modes) {
		return 0
	}
	return h.Latencies.Modes[m].Value
}

// recent is the median of the last three successful probes; while there are fewer, the estimate.
func (h *Health) recent(m LatencyMode) time.Duration {
	if h == nil || int(m) >= len(h.Latencies.Modes) || h.Latencies.Probes < 3 {
		return h.Latency(m)
	}
	r := &h.Latencies.Modes[m].Recent
	return median(r[0], r[1], r[2])
}

// state is State for a Health that may be missing.
func (h *Health) state() State {
	if h == nil {
		return Unknown
	}
	return h.State
}

// Step takes one probe result into an endpoint's health.
//
// rise and fall count results in a row; the first result ever decides alone. A restored state is
// a known one, not a first result: it takes fall misses to lose it, like any other. (One lost
// packet just after an upgrade must not move the answer of every host; the price is one
// fast_interval.) What Sample.Counted leaves out changes nothing.
//
// guard is the local-fault guard for a guarded endpoint, and nil for one that is static or on
// loopback. Step tells it of proofs and of verdicts it may have to hold; Guard.Tick must follow
// before time passes.
func Step(h *Health, pace *Pace, s *Sample, guard *Guard) Change {
	guard.see(s)
	if !s.Counted() || guard.outdated(s) {
		return Change{Old: h.State, New: h.State}
	}
	h.Last, h.Checked, h.Warm = s.Outcome, s.At, false
	if s.Outcome == OK {
		return h.succeed(pace, s, guard)
	}
	return h.fail(pace, s, guard)
}

func (h *Health) succeed(pace *Pace, s *Sample, guard *Guard) Change {
	h.endMisses(s.Key, guard)
	h.Backoff = 0
	if h.State == Unhealthy && h.Oks == 0 {
		h.Latencies = Latencies{} // what it was before it broke says little about it now
	}
	h.Oks = increment(h.Oks)
	h.Latencies.add(s)
	switch {
	case h.State == Healthy, h.State == Unhealthy && int(h.Oks) < pace.Rise:
		return Change{Old: h.State, New: h.State}
	case h.State == Unknown:
		return h.become(Healthy, s.End(), "first result: ok")
	}
	return h.become(Healthy, s.End(), fmt.Sprintf("%d successes in a row", h.Oks))
}

func (h *Health) fail(pace *Pace, s *Sample, guard *Guard) Change {
	h.Oks = 0
	if h.Misses == 0 {
		h.FirstMiss, h.Soft = s.End(), true
		if s.Outcome.Soft() && h.State != Unhealthy {
			guard.miss(s.Key, h.FirstMiss)
		}
	}
	h.Misses = increment(h.Misses)
	if h.Soft && !s.Outcome.Soft() {
		h.Soft = false
		guard.release(s.Key)
	}
	none := Change{Old: h.State, New: h.State}
	switch {
	case h.State == Unhealthy:
		if h.Misses > 1 { // else a success was before it: the back-off begins anew, at interval
			h.Backoff = increment(h.Backoff)
		}
		return none
	case h.State == Healthy && int(h.Misses) < pace.Fall:
		return none
	}
	reason := h.missText(s)
	if h.Soft && guard.holds(s.Key, s.At, h.Misses == 1) {
		if !h.Held {
			h.Held = true
			none.Held, none.Reason = true, reason+"; held: nothing shows that our own network works"
		}
		return none
	}
	h.Held = false
	guard.release(s.Key)
	return h.become(Unhealthy, s.End(), reason)
}

// missText tells what a down verdict rests on.
func (h *Health) missText(s *Sample) string {
	text := s.Outcome.String()
	if s.Detail != "" {
		text += ": " + s.Detail
	}
	switch {
	case h.State == Unknown && h.Misses == 1:
		return "first result: " + text
	case h.Misses == 1:
		return text
	}
	return fmt.Sprintf("%d failures in a row, the last: %s", h.Misses, text)
}

// become changes the state.
func (h *Health) become(to State, at time.Time, reason string) Change {
	c := Change{Old: h.State, New: to, Reason: reason}
	h.State, h.Since, h.Backoff = to, at, 0
	return c
}

// endMisses ends the failure streak, if there is one.
func (h *Health) endMisses(key Key, guard *Guard) {
	if h.Soft {
		guard.release(key)
	}
	h.Misses, h.Soft, h.Held, h.FirstMiss = 0, false, false, time.Time{}
}

// Execute carries out the down verdict that the guard held (GuardActions.Execute). It does
// nothing when no verdict is held.
func (h *Health) Execute(now time.Time) Change {
	if !h.Held {
		return Change{Old: h.State, New: h.State}
	}
	h.Held = false
	return h.become(Unhealthy, now, fmt.Sprintf("%d failures in a row, the last: %s; our own network works",
		h.Misses, h.Last))
}

// Forget drops the misses that our own network may have caused (GuardActions.Forget): a streak
// of soft outcomes is as if it had never been, and back-off starts anew. The state stays.
func (h *Health) Forget() {
	h.Backoff = 0
	if h.Soft || h.Held {
		h.Misses, h.Soft, h.Held, h.FirstMiss = 0, false, false, time.Time{}
	}
}

// Restored makes stored health ready for use in a new run: its state and latency count until the
// first results of this run, its streaks do not.
func (h *Health) Restored() {
	h.Warm = h.State != Unknown
	h.Oks, h.Misses, h.Backoff = 0, 0, 0
	h.Soft, h.Held, h.FirstMiss = false, false, time.Time{}
}

// increment counts up and stays at the end.
func increment(n uint16) uint16 {
	if n == math.MaxUint16 {
		return n
	}
	return n + 1
}
