package resolver

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"

	"hard/internal/wire"
)

// A loop is found by a canary: a name nobody can guess, asked of one upstream.
// If it comes in at a listener, that upstream leads back to us. The suffix is
// one that resolvers on the way forward: .invalid, .test and single labels are
// answered by some (systemd-resolved, unbound) themselves. A fixed or guessable
// name would let any client switch upstreams off (CVE-2026-26018).
var canarySuffix = []byte("\x09hard-loop\x08internal\x00")

const (
	canaryRandom = 32 // hex digits
	canaryEvery  = 10 * time.Minute
	canaryWait   = 2 * time.Second // a canary that has not come back by then will not
	canaryKeep   = 64              // names remembered
)

// canaries are the names that are out. mu guards all.
type canaries struct {
	mu    sync.Mutex
	out   map[string]*upstream
	order []string
}

func newCanaries() *canaries { return &canaries{out: make(map[string]*upstream)} }

// query makes a new canary for u.
func (c *canaries) query(u *upstream) []byte {
	var random [canaryRandom / 2]byte
	_, _ = rand.Read(random[:]) // never fails
	name := hex.AppendEncode([]byte{canaryRandom}, random[:])
	name = append(name, canarySuffix...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out[string(name)] = u
	c.order = append(c.order, string(name))
	if len(c.order) > canaryKeep {
		delete(c.out, c.order[0])
		c.order = c.order[1:]
	}
	m := append([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name...)
	m = binary.BigEndian.AppendUint16(m, wire.TypeA)
	return binary.BigEndian.AppendUint16(m, wire.ClassIN)
}

// isOurs reports whether a lower-case wire name is a canary that is out. It is
// asked for every query, and mostly compares one length.
func (c *canaries) isOurs(name []byte) bool {
	if len(name) != 1+canaryRandom+len(canarySuffix) || !bytes.HasSuffix(name, canarySuffix) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out[string(name)] != nil
}

// canaryCame quarantines the upstream whose canary has come back.
func (f *forwarder) canaryCame(name []byte) {
	f.canary.mu.Lock()
	u := f.canary.out[string(name)]
	f.canary.mu.Unlock()
	if u == nil {
		return
	}
	h := &u.health
	h.canaryCame.Store(f.now())
	if old := h.state.Swap(stateLoop); old == stateLoop {
		return
	}
	f.loops.Add(1)
	f.log.Error("upstream leads back to us; not used until it no longer does", "upstream", u.text, "retry", loopRetry)
	h.canaryNext.Store(f.now() + int64(loopRetry))
	f.kickProber()
}

func (f *forwarder) canarySoon(u *upstream, now int64) { u.health.canaryNext.Store(now) }

// canaryLost has another canary sent soon where one, or another probe, got no reply: it may not have
// arrived, and what comes up there later may lead back to us.
func (f *forwarder) canaryLost(at *attempt, now int64) {
	if at.probe == nil {
		return
	}
	h, soon := &at.up.health, now+int64(loopRetry)
	if next := h.canaryNext.Load(); next > soon && h.canaryNext.CompareAndSwap(next, soon) {
		f.kickProber()
	}
}

// canaryDue sends u's canary if it is time, ends a quarantine if the last one
// has stayed away, and returns the time until it wants to be called again.
func (f *forwarder) canaryDue(u *upstream, now int64) int64 {
	h := &u.health
	sent := h.canarySent.Load()
	looping := h.state.Load() == stateLoop
	if looping && sent > h.canaryCame.Load() {
		if now-sent < int64(canaryWait) {
			return sent + int64(canaryWait) - now
		}
		if h.state.CompareAndSwap(stateLoop, stateUp) {
			looping = false
			f.log.Info("upstream no longer leads back to us", "upstream", u.text)
		}
	}
	if next := h.canaryNext.Load(); now < next {
		return next - now
	}
	h.canarySent.Store(now)
	every := canaryEvery
	if looping {
		every = loopRetry
	}
	h.canaryNext.Store(now + int64(every))
	f.probe(u, f.canary.query(u))
	if looping {
		return int64(canaryWait)
	}
	return int64(every)
}

// probe asks u something of our own and learns from whether it replies.
func (f *forwarder) probe(u *upstream, msg []byte) {
	l := f.lanes[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.newAttempt(nil, u)
	at.probe = msg
	if u.server.Kind != Plain {
		l.askStream(at)
		return
	}
	l.addStage(at)
	l.send(f.now())
}
