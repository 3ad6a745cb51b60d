package prober

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"hard/internal/rank"
)

// The model of a wide-area network that the quality tests run on: sites in regions, and troubles
// that come and go by a script. A probe is walked through it packet by packet, with TCP's own
// retransmission times, so that loss looks to a check as it does in life.

// site is one server.
type site struct {
	addr   netip.Addr
	region string
	rtt    time.Duration // of the path, undisturbed
	server time.Duration // the server's own time for a reply
}

// effect is what a trouble does to a site.
type effect uint8

const (
	refuses     effect = iota // the process is gone, the host is there
	hangs                     // the process is stopped: the kernel still accepts
	silent                    // host or path is gone: no packet comes back
	slow                      // the path takes trouble.by times as long
	lossy                     // the share trouble.by of all packets is lost, each way
	cut                       // our own network: no packet leaves, nothing says so
	unreachable               // our own network: the kernel says so at once
)

func (e effect) deadly() bool { return e <= silent }
func (e effect) ours() bool   { return e >= cut }

// trouble is one line of the script; times are since the start of the hour.
type trouble struct {
	from, to time.Duration
	what     effect
	by       float64
	ramp     bool         // slow: by is reached half-way and left again evenly
	hits     []netip.Addr // nil: all
}

func (t *trouble) at(now time.Duration, a netip.Addr) bool {
	if now < t.from || now >= t.to {
		return false
	}
	for _, h := range t.hits {
		if h == a {
			return true
		}
	}
	return t.hits == nil
}

// factor is how many times as long the path takes.
func (t *trouble) factor(now time.Duration) float64 {
	if !t.ramp {
		return t.by
	}
	half := float64(t.to-t.from) / 2
	way := float64(now-t.from) / half
	if way > 1 {
		way = 2 - way
	}
	return 1 + (t.by-1)*way
}

// world is the network and its script. sites and script are immutable.
type world struct {
	sites  map[netip.Addr]*site
	script []trouble
	begin  time.Time

	mu  sync.Mutex
	rng *rand.Rand // guarded by mu
}

// weather is how a site is at one moment.
type weather struct {
	dead  bool
	how   effect // of dead
	ours  bool
	cut   effect // of ours
	loss  float64
	delay time.Duration // round trip, without jitter
	whole time.Duration // a request on a new connection: two round trips and the server's time
	true  time.Duration // the same in the mean, with what TCP waits before it sends again what is lost
}

func (w *world) at(now time.Duration, a netip.Addr) weather {
	s := w.sites[a]
	out := weather{delay: s.rtt}
	for i := range w.script {
		t := &w.script[i]
		if !t.at(now, a) {
			continue
		}
		switch {
		case t.what.deadly():
			out.dead, out.how = true, t.what
		case t.what.ours():
			out.ours, out.cut = true, t.what
		case t.what == lossy:
			out.loss = max(out.loss, t.by)
		case t.what == slow:
			out.delay = time.Duration(float64(out.delay) * t.factor(now))
		}
	}
	out.whole = 2*out.delay + s.server
	lost := 1 - (1-out.loss)*(1-out.loss)
	out.true = out.whole + resent(lost, synTimeout) + resent(lost, segmentTimeout)
	return out
}

// resent is what retransmissions add to an exchange in the mean: the share lost of its tries fails,
// each wait is twice the one before, and after three of them a client gives up.
func resent(lost float64, first time.Duration) time.Duration {
	return time.Duration(float64(first) * (lost + 2*lost*lost + 4*lost*lost*lost))
}

// dice are one packet exchange's fortunes: lost, or delayed by jitter, 4 % in the mean, with a
// spike now and then.
func (w *world) dice(x *weather) (lost bool, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delay = time.Duration(float64(x.delay) * (1 + 0.04*w.rng.ExpFloat64()))
	if w.rng.Float64() < 0.01 {
		delay += time.Duration(float64(x.delay+5*time.Millisecond) * w.rng.ExpFloat64())
	}
	return w.rng.Float64() > (1-x.loss)*(1-x.loss), delay
}

// Initial retransmission times of TCP on Linux: of a SYN, and the least of a segment.
const (
	synTimeout     = time.Second
	segmentTimeout = 200 * time.Millisecond
)

// run is one probe of an HTTP check over a new connection; it stands for Prober.check.
func (w *world) run(pr *probe) {
	if !w.exchange(pr, synTimeout, 0, func(x *weather) bool { return true }) {
		return
	}
	if w.now(pr.addr).how == refuses && w.now(pr.addr).dead {
		pr.end(rank.Refused, 0, "connection refused")
		return
	}
	pr.connected()
	server := w.sites[pr.addr].server
	// A stopped process never answers, but the connection stays.
	if !w.exchange(pr, segmentTimeout, server, func(x *weather) bool { return !x.dead || x.how != hangs }) {
		return
	}
	if x := w.now(pr.addr); x.dead && x.how == refuses {
		pr.end(rank.Reset, 0, "connection reset by peer")
		return
	}
	pr.firstByte()
	pr.end(rank.OK, 200, "")
}

// exchange sends something until it is answered; false says that the probe has ended.
func (w *world) exchange(pr *probe, again, server time.Duration, answers func(*weather) bool) bool {
	for {
		x := w.now(pr.addr)
		if x.ours && x.cut == unreachable {
			pr.end(rank.Unreachable, 0, "network is unreachable")
			return false
		}
		lost, delay := w.dice(&x)
		delay += server
		if x.ours || (x.dead && x.how == silent) || !answers(&x) {
			lost = true
		}
		if !lost && delay < again {
			return w.wait(pr, delay)
		}
		if !w.wait(pr, again) {
			return false
		}
		again *= 2
	}
}

// wait lets time pass in a probe; false says that it has ended, by its deadline or by an abort.
func (w *world) wait(pr *probe, d time.Duration) bool {
	left := time.Until(pr.deadline)
	timer := time.NewTimer(min(d, left))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-pr.done:
		pr.fail(context.Canceled)
		return false
	}
	if d >= left {
		pr.end(rank.Timeout, 0, "timeout")
		return false
	}
	return true
}

func (w *world) now(a netip.Addr) weather { return w.at(time.Since(w.begin), a) }
