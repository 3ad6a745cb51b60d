package resolver

import (
	"time"

	"hard/internal/bug"
	"hard/internal/wire"
)

// streamHedge is the shortest time before a query over a stream, which may
// need a connection first, is hedged.
const streamHedge = 150 * time.Millisecond

// launch asks the next upstream for fl and reports whether there was one; fl may
// be over then. With a hedge it is the attempt that has kept us waiting.
func (l *lane) launch(fl *flight, hedge *attempt) bool {
	u := fl.pick(hedge != nil && hedge.up.health.lastReply.Load() >= hedge.sent)
	if u == nil || fl.sent >= maxPackets {
		return false
	}
	fl.sent++
	at := l.newAttempt(fl, u)
	if u.server.Kind == Plain && !fl.stream {
		l.addStage(at)
		return true
	}
	l.askStream(at)
	return true
}

// pick chooses the upstream to ask next and marks it as tried: the first that
// is well, or the fastest of those; then any that is not barred, unless
// onlyWell. Nil if there is none that was not asked in this round.
func (fl *flight) pick(onlyWell bool) *upstream {
	best := -1
	well := false
	for i, u := range fl.set.ups {
		if fl.tried&(1<<i) != 0 || u.barred() {
			continue
		}
		ok := u.usable()
		switch {
		case !ok && (onlyWell || best >= 0):
		case best < 0 || ok && !well:
			best, well = i, ok
		case fl.conf.fastest && ok && u.health.srtt.Load() < fl.set.ups[best].health.srtt.Load():
			best = i
		}
		if well && !fl.conf.fastest {
			break
		}
	}
	if best < 0 {
		return nil
	}
	fl.tried |= 1 << best
	return fl.set.ups[best]
}

// askStream sends at's question over its upstream's streams. If they take no
// more, at fails at once.
func (l *lane) askStream(at *attempt) {
	now := l.f.now()
	at.sent = now
	l.schedule(at, now)
	at.up.lanes[l.index].counts.sent++
	if at.fl != nil {
		l.f.lastQuery.Store(now)
		at.up.health.lastAsked.Store(now)
	}
	gen := at.gen
	err := at.up.stream.ask(append([]byte(nil), at.message()...), func(reply []byte, err error) {
		l.streamDone(at, gen, reply, err)
	})
	if err != nil {
		l.failed(at, failNetwork, now)
	}
}

// due acts on an attempt whose time has come.
func (l *lane) due(at *attempt, now int64) {
	fl, u := at.fl, at.up
	strike := at.sock != nil || u.server.Kind != Plain
	if fl == nil {
		if strike {
			l.f.wasSilent(u, at.sent, now, at.probe != nil || at.hedged)
		}
		u.lanes[l.index].counts.failures[failTimeout]++
		l.f.canaryLost(at, now)
		l.endAttempt(at)
		return
	}
	bug.Here("forward-due")
	if now >= fl.deadline {
		l.f.wasSilent(u, at.sent, now, strike)
		fl.why = failTimeout
		l.giveUp(fl)
		return
	}
	if now < at.expire {
		at.hedged = true
		if strike {
			l.f.wasSilent(u, at.sent, now, false)
		}
		l.hedge(fl, at)
		if at.fl == fl { // still waiting
			l.wheel.add(at, at.expire)
		}
		return
	}
	if strike {
		l.f.wasSilent(u, at.sent, now, true)
	}
	l.failed(at, failTimeout, now)
}

// hedge asks a second upstream, since at has been waiting for longer than
// usual. An upstream that has not said a word since is always hedged; for one
// that answers others there is a budget, so that slow questions do not double
// the load.
func (l *lane) hedge(fl *flight, at *attempt) {
	if at.up.health.lastReply.Load() >= at.sent && !at.noQ {
		if l.hedges < 1 {
			return
		}
		l.hedges--
	}
	l.launch(fl, at)
}

// failed ends an attempt that brought nothing, and asks the next upstream at
// once, if nobody else is being waited for and there is one.
func (l *lane) failed(at *attempt, why failure, now int64) {
	fl, u := at.fl, at.up
	datagram := u.server.Kind == Plain && at.sock == nil
	u.lanes[l.index].counts.failures[why]++
	if (why == failRefused || why == failNetwork || why == failTLS) && !datagram {
		l.f.wasRefused(u, now)
	}
	l.f.canaryLost(at, now)
	l.endAttempt(at)
	if fl != nil {
		fl.why = why
		l.moveOn(fl, now)
	}
}

// moveOn goes on with fl after an attempt has ended without a good reply.
func (l *lane) moveOn(fl *flight, now int64) {
	if c := fl.conf.cache; fl.why == failTimeout && c != nil && fl.client.lookup == nil && c.serveStale(l, fl) {
		return // after attempt_timeout the client has waited for long enough: RFC 8767 section 5, client response timer
	}
	if fl.why != failTimeout || fl.live == 0 {
		if l.launch(fl, nil) {
			return
		}
	}
	if fl.live > 0 {
		return
	}
	// All were asked. Silence may have been a lost packet: once more.
	if fl.bad == nil && fl.why == failTimeout && now < fl.deadline {
		fl.tried = 0
		if l.launch(fl, nil) {
			return
		}
	}
	l.giveUp(fl)
}

// giveUp ends fl with the first error that an upstream gave, or our own.
func (l *lane) giveUp(fl *flight) {
	if fl.bad != nil {
		l.passError(fl)
		return
	}
	ede := uint16(wire.EDENoReachable)
	switch fl.why {
	case failRefused, failNetwork, failTLS, failLocal:
		ede = wire.EDENetworkError
	case failInvalid:
		ede = wire.EDEInvalidData
	}
	l.fail(fl, ede)
}
