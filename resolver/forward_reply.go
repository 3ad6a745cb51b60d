package resolver

import (
	"bytes"
	"time"

	"hard/internal/bug"
	"hard/internal/wire"
)

// fitRoom is the room behind a reply for what FitOPT may add: an OPT and an
// extended error.
const fitRoom = 64

// guarded is reply; a panic in it ends at's flight with SERVFAIL.
func (l *lane) guarded(at *attempt, buf []byte, n int, cut bool, now int64, batch bool) {
	defer l.broken(at, at.fl, at.gen, buf[:n])
	l.reply(at, buf, n, cut, now, batch)
}

// broken, itself deferred while at, of this generation, was being moved on, perhaps by a
// packet, ends its flight (nil: none) if that has panicked, and at if no time is set for it.
func (l *lane) broken(at *attempt, fl *flight, gen uint64, packet []byte) {
	v := recover()
	if v == nil {
		return
	}
	notePanic(l.f.log, v, "the forwarder", packet)
	defer l.f.recovered()
	if fl != nil && fl.conf != nil { // else it had ended
		l.fail(fl, wire.EDEOther)
	}
	if at.gen == gen && at.slot < 0 && !at.staged {
		l.endAttempt(at)
	}
}

// reply handles buf[:n], which came for at. batch: the reply to the client may
// wait for the end of the reader's batch, and buf with it.
func (l *lane) reply(at *attempt, buf []byte, n int, cut bool, now int64, batch bool) {
	u, fl := at.up, at.fl
	if fl == nil {
		l.orphanReply(at, buf[:n], now)
		return
	}
	bug.Here("forward-reply")
	a := &fl.client.asked
	switch wire.MatchReply(buf[:n], fl.msg[wire.HeaderLen:fl.qend-4], a.Type, a.Class) {
	case wire.MatchNo:
		l.stray(u)
		return
	case wire.MatchNoQuestion:
		// Too easily forged to end the attempt; but do not wait idly.
		l.stray(u)
		if !at.noQ {
			at.noQ = true
			l.hedge(fl, at)
		}
		return
	}
	rep := &l.rep
	whole := !cut && rep.Parse(buf[:n])
	if !whole && buf[2]&byte(wire.FlagTC>>8) == 0 && !cut {
		l.failed(at, failInvalid, now)
		return
	}
	if !whole { // truncated in the middle of a record, or too long: the client asks over TCP
		n = cutReply(buf, fl.qend)
		if fl.stream || !rep.Parse(buf[:n]) {
			l.failed(at, failInvalid, now)
			return
		}
	}
	if fl.stream && rep.Flags&wire.FlagTC != 0 { // nothing is longer than TCP (requirement 41)
		l.failed(at, failInvalid, now)
		return
	}
	u.lanes[l.index].counts.reply(rep.Rcode)
	good := goodRcode(rep.Rcode)
	l.alive(at, now, good)
	l.endAttempt(at)
	if !good {
		l.keepError(fl, u, buf[:n])
		return
	}
	l.deliver(fl, buf, n, now, batch)
}

// goodRcode reports whether no other upstream needs to be asked.
func goodRcode(r wire.Rcode) bool {
	return r == wire.NoError || r == wire.NXDomain || r == rcodeYXDomain
}

const rcodeYXDomain wire.Rcode = 6 // of DNAME, RFC 6672 section 2.2

// cutReply leaves header and question of a reply, with TC.
func cutReply(buf []byte, qend int) int {
	buf[2] |= byte(wire.FlagTC >> 8)
	clear(buf[6:wire.HeaderLen])
	return qend
}

// alive notes a matching reply to at.
func (l *lane) alive(at *attempt, now int64, good bool) {
	if at.sock != nil || at.up.server.Kind != Plain {
		at.up.health.measured(now - at.sent)
		at.up.lanes[l.index].counts.took(time.Duration(now - at.sent))
		l.f.replied(at.up, now, good)
	}
}

// orphanReply handles the reply to a probe, or a late one.
func (l *lane) orphanReply(at *attempt, m []byte, now int64) {
	if len(m) < wire.HeaderLen || m[2]&byte(wire.FlagQR>>8) == 0 {
		l.stray(at.up)
		return
	}
	rcode := wire.Rcode(m[3] & 0x0f)
	l.alive(at, now, goodRcode(rcode))
	at.up.lanes[l.index].counts.reply(rcode)
	l.endAttempt(at)
}

// keepError keeps an upstream's error for the case that no other upstream
// does better, and asks the next one.
func (l *lane) keepError(fl *flight, u *upstream, m []byte) {
	if fl.bad == nil {
		fl.bad, fl.badFrom = bytes.Clone(m), u
	}
	if !l.launch(fl, nil) && fl.live == 0 {
		l.passError(fl)
	}
}

// passError answers fl with the first error that an upstream gave.
func (l *lane) passError(fl *flight) {
	if c := fl.conf.cache; c != nil && c.serveStale(l, fl) { // an error is no refresh: RFC 8767 section 5
		return
	}
	buf := append(fl.bad, make([]byte, fitRoom)...)
	n := len(fl.bad)
	fl.bad = nil
	if !l.rep.Parse(buf[:n]) {
		l.fail(fl, wire.EDEInvalidData)
		return
	}
	l.deliver(fl, buf, n, l.f.now(), false)
}

// deliver ends fl with the reply buf[:n], which l.rep describes: every client
// gets it with its own ID, letter case, OPT and size. buf has fitRoom bytes
// more, and is used up.
func (l *lane) deliver(fl *flight, buf []byte, n int, now int64, batch bool) {
	rep := &l.rep
	if fl.badFrom != nil && goodRcode(rep.Rcode) {
		l.f.wasBad(fl.badFrom, now)
	}
	zeroTopBitTTLs(buf[:n], rep)
	if fl.entry != nil {
		if buf, n = l.rewriteOwn(fl, buf, n); n == 0 {
			l.fail(fl, wire.EDEInvalidData)
			return
		}
	}
	if c := fl.conf.cache; c != nil {
		c.store(fl, buf[:n], rep, now)
	}
	first := &fl.client
	for c := fl.more; c != nil; c = c.next {
		own := make([]byte, max(n, wire.MinUDP)+fitRoom)
		copy(own, buf[:n])
		r := *rep
		c.give(fitReply(own, n, &r, c, fl.questionOf(c), nil), sourceForward)
	}
	m := fitReply(buf, n, rep, first, fl.question(), nil)
	if batch && first.lookup == nil {
		first.given = true
		l.out = append(l.out, outMessage{from: first.from, msg: m})
	} else {
		first.give(m, sourceForward)
	}
	l.freeFlight(fl)
}

// zeroTopBitTTLs sets TTLs with the top bit set to 0 (RFC 2181 section 8).
func zeroTopBitTTLs(m []byte, rep *wire.Reply) {
	if rep.MinTTL != 0 {
		return
	}
	w := wire.WalkRecords(m, rep.QEnd)
	var rec wire.Record
	for w.Next(&rec) {
		if rec.Type != wire.TypeOPT && m[rec.Fixed+4]&0x80 != 0 {
			clear(m[rec.Fixed+4 : rec.Fixed+8])
		}
	}
}

// fitReply makes the reply buf[:n], which rep describes, into one for c: whole
// or, where it is too long, without ede, or with TC and no records at all.
func fitReply(buf []byte, n int, rep *wire.Reply, c *client, question, ede []byte) []byte {
	a := &c.asked
	tr := c.transport()
	limit := a.Limit(tr)
	rcode := rep.Rcode
	if rep.End-rep.OPTLen+a.SizeOfOPT(ede, tr) > limit {
		ede = nil
	}
	if rep.End-rep.OPTLen+a.SizeOfOPT(nil, tr) > limit {
		copy(buf[wire.HeaderLen:], question)
		return buf[:a.Truncated(buf, rcode, tr)]
	}
	m := rep.FitOPT(buf, a, ede, tr)
	if m == 0 {
		if buf, m = repackOPT(buf[:n], a, tr); m == 0 || m > limit {
			buf = append(make([]byte, 0, maxTruncated), buf[:wire.HeaderLen]...)
			buf = append(buf, question...)[:maxTruncated]
			return buf[:a.Truncated(buf, rcode, tr)]
		}
	} else if m > limit {
		copy(buf[wire.HeaderLen:], question)
		return buf[:a.Truncated(buf, rcode, tr)]
	}
	a.Restore(buf[:m], question)
	return buf[:m]
}

const maxTruncated = 1024 // room for header, question and OPT

// give hands c its reply, once. It never blocks.
func (c *client) give(m []byte, s source) {
	if c.given {
		return
	}
	c.given = true
	if c.lookup != nil {
		select {
		case c.lookup <- bytes.Clone(m):
		default:
		}
		return
	}
	c.from.replyAs(s, m)
}

func (c *client) transport() wire.Transport {
	if c.lookup != nil {
		return wire.Transport{TCP: true}
	}
	return c.from.transport()
}

// fail ends fl with SERVFAIL and an extended error for every client.
func (l *lane) fail(fl *flight, ede uint16) { l.failWith(fl, l.edeOption(ede)) }

// failWith is fail with a ready-made option.
func (l *lane) failWith(fl *flight, ede []byte) {
	if c := fl.conf.cache; c != nil && c.serveStale(l, fl) {
		return
	}
	for c := range fl.each {
		l.replyRcode(c, fl.questionOf(c), wire.ServFail, ede)
	}
	l.freeFlight(fl)
}

// replyError answers c with SERVFAIL and an extended error (RFC 8914).
func (l *lane) replyError(c *client, question []byte, ede uint16) {
	l.replyRcode(c, question, wire.ServFail, l.edeOption(ede))
}

func (l *lane) edeOption(code uint16) []byte {
	if l.ede[code] == nil {
		l.ede[code] = wire.EDEOption(code, edeTexts[code])
	}
	return l.ede[code]
}

var edeTexts = map[uint16]string{
	wire.EDEOther:        "internal error",
	wire.EDEStaleAnswer:  "upstreams failed; cached data",
	wire.EDENoReachable:  "no upstream answered in time",
	wire.EDENetworkError: "upstreams refused or unreachable",
	wire.EDEInvalidData:  "invalid data from upstream",
}

func (l *lane) replyRcode(c *client, question []byte, rcode wire.Rcode, ede []byte) {
	buf := make([]byte, maxTruncated)
	copy(buf[wire.HeaderLen:], question)
	c.give(buf[:c.asked.Error(buf, rcode, ede, c.transport())], sourceError)
}

// streamDone takes the outcome of an attempt over a stream.
func (l *lane) streamDone(at *attempt, gen uint64, m []byte, err error) {
	defer l.f.recovered()
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.gen != gen {
		return // the flight ended without it
	}
	now := l.f.now()
	switch {
	case err != nil:
		why := err.Error()
		at.up.health.why.Store(&why)
		l.failed(at, streamFailure(err), now)
	case len(m) < wire.HeaderLen:
		l.failed(at, failInvalid, now)
	default:
		buf := make([]byte, max(len(m), wire.MinUDP)+fitRoom)
		n := copy(buf, m)
		stray := l.straysOf(at.up)
		l.guarded(at, buf, n, false, now, false)
		if at.gen == gen && l.straysOf(at.up) != stray { // the stream will bring no other
			l.failed(at, failInvalid, now)
		}
	}
	l.send(now)
}

func (l *lane) straysOf(u *upstream) uint64 { return u.lanes[l.index].counts.strays }
