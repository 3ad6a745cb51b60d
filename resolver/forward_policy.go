package resolver

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"hard/internal/wire"
)

// streamHedge is the shortest time before a query over a stream, which may
// need a connection first, is hedged.
const streamHedge = 150 * time.Millisecond

// query takes one query of a client that is not answered here. It copies what
// it keeps, never blocks, and sees to it that exactly one reply is given,
// within total_timeout. What it stages is sent by flush.
func (f *forwarder) query(r *request) {
	defer f.recovered()
	c := f.conf.Load()
	if c == nil || f.canary.isOurs(r.q.Name()) {
		f.refuseQuery(c, r)
		return
	}
	if c.cache != nil && f.fromCache(c, r) {
		return
	}
	tcp := r.from.tcp()
	l := f.laneOf(r.q.Hash)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(c, r, tcp, nil)
	if tcp {
		l.send(f.now()) // no batch to wait for
	}
}

func (f *forwarder) laneOf(hash uint64) *lane {
	return f.lanes[(hash>>32)%uint64(len(f.lanes))]
}

// refuseQuery answers what cannot be forwarded: there are no upstreams yet, or
// our own canary has come back.
func (f *forwarder) refuseQuery(c *upConf, r *request) {
	if c != nil {
		f.canaryCame(r.q.Name())
	}
	l := f.lanes[0]
	l.mu.Lock()
	defer l.mu.Unlock()
	cl := client{asked: r.q.Asked, from: r.from}
	l.replyError(&cl, r.msg[wire.HeaderLen:r.q.QEnd], wire.EDENoReachable)
}

// shareKey is what besides the name must be equal for two queries to share a
// reply: the flags and EDNS parts that a server may heed.
func shareKey(msg []byte, q *wire.Query, tcp bool) (key uint64, ok bool) {
	if q.Extra || q.Signed || hasOtherOptions(msg, q) {
		return 0, false
	}
	key = 1<<32 | uint64(q.Type)<<16 | uint64(q.Class)
	key = key<<16 | uint64(q.Flags&(wire.FlagRD|wire.FlagAD|wire.FlagCD))
	for _, b := range []bool{q.EDNS, q.DO, tcp} {
		key <<= 1
		if b {
			key |= 1
		}
	}
	return key, true
}

// add starts a flight for r, or lets r join an equal one. With lookup the
// reply goes there and r.from is not used.
func (l *lane) add(c *upConf, r *request, tcp bool, lookup chan<- []byte) {
	q := r.q
	bucket := uint16(0)
	if lookup == nil {
		bucket = uint16(maphash.Comparable(hashSeed, r.from.peer()) % uint64(len(l.clients)))
	}
	key, share := shareKey(r.msg, q, tcp)
	share = share && lookup == nil
	hash := q.Hash ^ key*0x9e3779b97f4a7c15
	if share {
		if fl := l.findEqual(hash, key, r); fl != nil {
			l.join(fl, r, bucket)
			return
		}
	}
	if l.inflight >= c.perLane {
		l.jostle(bucket)
	}
	fl := l.newFlight()
	fl.msg = append(fl.buf[:0], r.msg[:min(len(r.msg), int(q.End))]...)
	fl.qend = int(q.QEnd)
	fl.conf, fl.set, fl.entry = c, c.setFor(q.Name()), r.entry
	fl.stream, fl.deadline = tcp, 0
	fl.hash, fl.key = hash, key // 0: not to be cached
	fl.client = client{asked: q.Asked, from: r.from, lookup: lookup, bucket: bucket}
	l.inflight++
	l.clients[bucket]++
	if q.EDNS {
		n := q.ForwardOPT(fl.msg)
		if n == 0 {
			l.replyRcode(&fl.client, fl.question(), wire.FormErr, nil)
			l.freeFlight(fl)
			return
		}
		fl.msg = fl.msg[:n]
	}
	if share {
		fl.share = true
		p := &l.equal[hash%tableSize]
		fl.hnext = *p
		*p = fl
	}
	l.hedges = min(hedgeBurst, l.hedges+hedgeShare)
	if !l.launch(fl, nil) {
		l.fail(fl, wire.EDENoReachable)
	}
}

var hashSeed = maphash.MakeSeed()

// hasOtherOptions reports whether q carries options that go upstream, which
// make its reply its own.
func hasOtherOptions(msg []byte, q *wire.Query) bool {
	if q.OPTLen <= 11 {
		return false
	}
	opts := msg[q.OPT+11 : q.OPT+q.OPTLen]
	for len(opts) >= 4 {
		if code := binary.BigEndian.Uint16(opts); code < 10 || code > 12 {
			return true
		}
		n := 4 + int(binary.BigEndian.Uint16(opts[2:]))
		if n > len(opts) {
			break
		}
		opts = opts[n:]
	}
	return false
}

func (fl *flight) question() []byte { return fl.msg[wire.HeaderLen:fl.qend] }

// questionOf is the question as c asked it.
func (fl *flight) questionOf(c *client) []byte {
	if c.question != nil {
		return c.question
	}
	return fl.question()
}

// each ranges over fl's clients.
func (fl *flight) each(yield func(*client) bool) {
	if !yield(&fl.client) {
		return
	}
	for c := fl.more; c != nil; c = c.next {
		if !yield(c) {
			return
		}
	}
}

// findEqual returns the flight that r may join, or nil.
func (l *lane) findEqual(hash, key uint64, r *request) *flight {
	for fl := l.equal[hash%tableSize]; fl != nil; fl = fl.hnext {
		if fl.hash == hash && fl.key == key && fl.entry == r.entry && fl.qend == int(r.q.QEnd) &&
			wire.EqualFold(fl.msg[wire.HeaderLen:fl.qend-4], r.q.Name()) {
			return fl
		}
	}
	return nil
}

// join adds r's client to fl (requirement 56).
func (l *lane) join(fl *flight, r *request, bucket uint16) {
	if l.inflight >= fl.conf.perLane {
		l.jostle(bucket)
		if fl.conf == nil { // it was fl that went
			cl := client{asked: r.q.Asked, from: r.from}
			l.replyError(&cl, r.msg[wire.HeaderLen:r.q.QEnd], wire.EDENoReachable)
			return
		}
	}
	c := &client{asked: r.q.Asked, from: r.from, bucket: bucket, next: fl.more}
	if q := r.msg[wire.HeaderLen:r.q.QEnd]; string(q) != string(fl.question()) {
		c.question = append([]byte(nil), q...)
	}
	fl.more = c
	l.inflight++
	l.clients[bucket]++
}

// jostle makes room for a query of the client in bucket: the oldest flight
// goes, with SERVFAIL (requirement 73); but of the oldest ones rather one
// whose client has more waiting than the newcomer and than is its share.
func (l *lane) jostle(bucket uint16) {
	victim := l.oldest
	if victim == nil {
		return
	}
	most := l.clients[bucket]
	for fl, n := l.oldest, 0; fl != nil && n < jostleLook; fl, n = fl.nextAge, n+1 {
		if c := l.clients[fl.client.bucket]; c > most {
			victim, most = fl, c
		}
	}
	l.f.jostled.Add(1)
	l.fail(victim, wire.EDENoReachable)
}

const jostleLook = 64 // flights that jostle looks at

// launch asks the next upstream for fl and reports whether there was one.
// With a hedge it is the attempt that has kept us waiting.
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

// askStream sends at's question over its upstream's streams.
func (l *lane) askStream(at *attempt) {
	now := l.f.now()
	at.sent = now
	l.schedule(at, now)
	at.up.lanes[l.index].counts.sent++
	gen := at.gen
	at.up.stream.ask(append([]byte(nil), at.message()...), func(reply []byte, err error) {
		l.streamDone(at, gen, reply, err)
	})
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
		l.endAttempt(at)
		return
	}
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
	l.endAttempt(at)
	if fl != nil {
		fl.why = why
		l.moveOn(fl, now)
	}
}

// moveOn goes on with fl after an attempt has ended without a good reply.
func (l *lane) moveOn(fl *flight, now int64) {
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
	case failRefused, failNetwork, failTLS:
		ede = wire.EDENetworkError
	case failInvalid:
		ede = wire.EDEInvalidData
	}
	l.fail(fl, ede)
}
