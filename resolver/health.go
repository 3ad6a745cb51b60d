package resolver

import (
	"math"
	"sync/atomic"
	"time"
)

// upState is what is believed of an upstream.
type upState = uint32

const (
	stateUp      upState = iota
	stateSuspect         // silent for a moment: others are asked first, and it is probed
	stateDown            // silent for a whole attempt, or refused: the same, and logged
	stateLoop            // leads back to us: not asked at all until its canary stays away
)

var stateNames = [...]string{stateUp: "up", stateSuspect: "suspect", stateDown: "down", stateLoop: "loop"}

const (
	suspectAfter = 2 // silent attempts in a row, each as long as the hedge delay
	downRefused  = 2 // refusals in a row
	downBadRun   = 8 // queries in a row that it failed and another answered
	hedgeMin     = 50 * time.Millisecond
	hedgeFactor  = 3
	probeFirst   = time.Second // back-off of the background probe ...
	probeMax     = 30 * time.Second
	probeTimeout = time.Second
	loopRetry    = 30 * time.Second // a quarantined upstream's next canary
	logEvery     = 10 * time.Second // at most one line per upstream and state change
)

// health is what all lanes know of one upstream. Every field is written under
// some lane's lock, so by several at a time, and read without: each is an
// estimate of its own, and a lost update of one costs nothing.
type health struct {
	state                              atomic.Uint32
	silent                             atomic.Int32 // hedge delays in a row without any reply
	refused                            atomic.Int32
	badRun                             atomic.Int32
	srtt                               atomic.Int64 // nanoseconds; 0 = unknown
	lastReply                          atomic.Int64 // forwarder's clock
	lastAsked                          atomic.Int64
	lastLog                            atomic.Int64
	toldBad                            atomic.Bool            // the last line of the log said that it is gone
	why                                atomic.Pointer[string] // the last error of a stream
	nextProbe                          atomic.Int64           // owned by the prober goroutine but for resets
	backoff                            atomic.Int64
	canaryNext, canarySent, canaryCame atomic.Int64 // see loop.go
}

func (h *health) init() { h.lastLog.Store(math.MinInt64 / 2) }

// measured takes a reply that took rtt nanoseconds into account: an
// exponential average with weight 1/8 (RFC 6298 section 2).
func (h *health) measured(rtt int64) {
	rtt = max(rtt, 1)
	if old := h.srtt.Load(); old != 0 {
		rtt = old + (rtt-old)/8
	}
	h.srtt.Store(max(rtt, 1))
}

// hedgeDelay is how long a reply may take before another upstream is asked.
func (h *health) hedgeDelay() int64 {
	return max(int64(hedgeMin), hedgeFactor*h.srtt.Load())
}

// usable reports whether the upstream is asked before those that are not.
func (u *upstream) usable() bool { return !u.self && u.health.state.Load() == stateUp }

// barred reports whether the upstream is never asked.
func (u *upstream) barred() bool { return u.self || u.health.state.Load() == stateLoop }

// replied notes a reply at now; good: not an error.
func (f *forwarder) replied(u *upstream, now int64, good bool) {
	h := &u.health
	h.lastReply.Store(now)
	if h.silent.Load() != 0 {
		h.silent.Store(0)
	}
	if h.refused.Load() != 0 {
		h.refused.Store(0)
	}
	if !u.local {
		f.lastReply.Store(now)
	}
	if good && h.badRun.Load() != 0 {
		h.badRun.Store(0)
	}
	if s := h.state.Load(); good && s != stateUp && s != stateLoop {
		if h.state.CompareAndSwap(s, stateUp) {
			h.backoff.Store(0)
			if s == stateDown {
				f.logBack(u)
				// What answers there now may be another one, which leads back to us: two hosts that
				// have each other as upstream start one after the other.
				f.canarySoon(u, now)
				f.kickProber()
			}
		}
	}
}

// wasSilent notes that the hedge delay, or with whole the attempt_timeout, of
// a query sent at sent has passed without a reply to it.
func (f *forwarder) wasSilent(u *upstream, sent, now int64, whole bool) {
	h := &u.health
	if h.lastReply.Load() >= sent {
		return // it lives; this one query is slow
	}
	n := h.silent.Add(1)
	switch s := h.state.Load(); {
	case whole && s <= stateSuspect && n >= suspectAfter:
		f.worsen(u, s, stateDown, "upstream is silent", now)
	case s == stateUp && n >= suspectAfter:
		f.worsen(u, s, stateSuspect, "", now)
	}
}

// wasRefused notes a refusal by ICMP or RST, or a network error.
func (f *forwarder) wasRefused(u *upstream, now int64) {
	if s := u.health.state.Load(); u.health.refused.Add(1) >= downRefused && s <= stateSuspect {
		f.worsen(u, s, stateDown, "upstream refuses or cannot be reached", now)
	}
}

// wasBad notes that another upstream answered a query that u answered with an
// error.
func (f *forwarder) wasBad(u *upstream, now int64) {
	if s := u.health.state.Load(); u.health.badRun.Add(1) >= downBadRun && s <= stateSuspect {
		f.worsen(u, s, stateDown, "upstream answers with errors only", now)
	}
}

func (f *forwarder) worsen(u *upstream, from, to upState, msg string, now int64) {
	if !u.health.state.CompareAndSwap(from, to) {
		return
	}
	if from == stateUp {
		u.health.backoff.Store(int64(probeFirst))
		u.health.nextProbe.Store(now + int64(probeFirst))
		f.kickProber()
	}
	if msg != "" {
		f.logState(u, msg, now)
	}
}

// logState logs a change of state, but no more than once in logEvery for each
// upstream: one that flaps must not fill the log.
func (f *forwarder) logState(u *upstream, msg string, now int64) {
	last := u.health.lastLog.Load()
	if now-last < int64(logEvery) || !u.health.lastLog.CompareAndSwap(last, now) {
		return
	}
	u.health.toldBad.Store(true)
	args := []any{"upstream", u.text, "state", u.stateName()}
	if why := u.health.why.Load(); why != nil { // a certificate's fault can't be guessed
		args = append(args, "last_error", *why)
	}
	f.log.Warn(msg, args...)
}

// logBack logs that an upstream is back, whenever the last line about it said that it was gone:
// nobody is left to believe so.
func (f *forwarder) logBack(u *upstream) {
	if u.health.toldBad.CompareAndSwap(true, false) {
		f.log.Info("upstream answers again", "upstream", u.text, "state", u.stateName())
	}
}

func (f *forwarder) kickProber() {
	select {
	case f.probeKick <- struct{}{}:
	default:
	}
}

// runProber asks unhealthy upstreams now and then whether they are back, with
// a back-off from 1 s to 30 s, so that no client's query has to. Under
// policy "fastest" it also measures those that get no queries. It sends the
// loop canaries. It is one goroutine with one timer, idle while all is well.
func (f *forwarder) runProber() {
	defer f.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := f.guard(f.probeDue)
		timer.Reset(time.Duration(next))
		select {
		case <-f.done:
			return
		case <-f.probeKick:
		case <-timer.C:
		}
	}
}

// probeDue sends what is due and returns the time to the next, nanoseconds.
func (f *forwarder) probeDue() int64 {
	c := f.conf.Load()
	now := f.now()
	next := int64(canaryEvery)
	if c == nil {
		return next
	}
	for _, u := range c.all {
		if u.self {
			continue
		}
		h := &u.health
		switch h.state.Load() {
		case stateSuspect, stateDown:
			if now >= h.nextProbe.Load() {
				b := h.backoff.Load()
				f.probe(u, rootQuery())
				h.nextProbe.Store(now + b)
				h.backoff.Store(min(max(2*b, int64(probeFirst)), int64(probeMax)))
			}
			next = min(next, h.nextProbe.Load()-now)
		default:
			next = min(next, f.probeFastest(c, u, now))
		}
		next = min(next, f.canaryDue(u, now))
	}
	return max(next, int64(tick))
}

const fastestEvery = 10 * time.Second // measure an upstream that gets no queries

// probeFastest keeps the measured time of upstreams that lose by it fresh, as
// long as there are queries at all.
func (f *forwarder) probeFastest(c *upConf, u *upstream, now int64) int64 {
	if !c.fastest || len(c.all) < 2 {
		return int64(canaryEvery)
	}
	if now-u.health.lastAsked.Load() >= int64(fastestEvery) && now-f.lastQuery.Load() < int64(fastestEvery) {
		u.health.lastAsked.Store(now)
		f.probe(u, rootQuery())
	}
	return int64(fastestEvery)
}

// retryAll forgets what was learnt of the upstreams, because the network is
// another one: all are tried again at once, over new sockets.
func (f *forwarder) retryAll(why string) {
	c := f.conf.Load()
	if c == nil {
		return
	}
	f.log.Info("trying all upstreams again", "why", why)
	now := f.now()
	for _, u := range c.all {
		h := &u.health
		h.silent.Store(0)
		h.refused.Store(0)
		h.badRun.Store(0)
		h.srtt.Store(0)
		if s := h.state.Load(); s == stateSuspect || s == stateDown {
			// Stays behind the healthy until it answers, but is asked now.
			h.backoff.Store(int64(probeFirst) / 4)
			h.nextProbe.Store(now)
		}
		f.canarySoon(u, now)
		u.stream.reset()
	}
	for _, l := range f.lanes {
		l.dropPools()
	}
	f.kickProber()
}
