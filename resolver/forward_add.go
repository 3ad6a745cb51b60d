package resolver

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"

	"hard/internal/bug"
	"hard/internal/wire"
)

// query takes one query of a client that is not answered here. It copies what
// it keeps, never blocks, and sees to it that exactly one reply is given,
// within total_timeout. What it stages is sent by flush.
func (f *forwarder) query(r *request) {
	defer f.failed(r)
	bug.Here("forward")
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

// failed, itself deferred, ends a query that panics with SERVFAIL.
func (f *forwarder) failed(r *request) {
	v := recover()
	if v == nil {
		return
	}
	notePanic(f.log, v, "the forwarder", r.msg)
	defer f.recovered()
	l := f.laneOf(r.q.Hash)
	l.mu.Lock()
	defer l.mu.Unlock()
	fl := l.flightOf(func(c *client) bool { return c.lookup == nil && c.from == r.from && c.asked == r.q.Asked })
	if fl != nil {
		l.fail(fl, wire.EDEOther)
		return
	}
	l.replyError(&client{asked: r.q.Asked, from: r.from}, r.msg[wire.HeaderLen:r.q.QEnd], wire.EDEOther)
}

// flightOf finds the newest flight of a client, the slow way; nil if there is none.
func (l *lane) flightOf(is func(*client) bool) *flight {
	for fl := l.newest; fl != nil; fl = fl.prev {
		for c := range fl.each {
			if is(c) {
				return fl
			}
		}
	}
	return nil
}

// askOwn sends a question of our own, whose reply goes to reply. A panic is a reply that can't be read.
func (l *lane) askOwn(c *upConf, r *request, tcp bool, reply chan<- []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		notePanic(l.f.log, v, "the forwarder", r.msg)
		defer l.f.recovered()
		if fl := l.flightOf(func(c *client) bool { return c.lookup == reply }); fl != nil {
			l.fail(fl, wire.EDEOther)
			return
		}
		(&client{lookup: reply}).give(nil, sourceError)
	}()
	l.add(c, r, tcp, reply)
	l.send(l.f.now())
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
		bucket = bucketOf(r.from.peer())
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
	set := c.setFor(q.Name())
	if !l.makeRoom(c, bucket, lookup != nil) {
		l.replyRcode(&client{asked: q.Asked, from: r.from}, r.msg[wire.HeaderLen:q.QEnd], wire.ServFail, busyOption)
		return
	}
	fl := l.newFlight()
	fl.msg = append(fl.buf[:0], r.msg[:min(len(r.msg), int(q.End))]...)
	fl.qend = int(q.QEnd)
	fl.conf, fl.set, fl.entry = c, set, r.entry
	fl.stream, fl.deadline = tcp, 0
	fl.hash, fl.key = hash, key // 0: not to be cached
	fl.client = client{asked: q.Asked, from: r.from, lookup: lookup, bucket: bucket}
	l.waits(bucket)
	if q.EDNS {
		n := q.ForwardOPT(fl.msg)
		if n == 0 {
			l.replyRcode(&fl.client, fl.question(), wire.FormErr, behindOption)
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

// bucketOf is a client's place in lane.clients. Two may share one, so a client counts as heavy only by a margin.
func bucketOf(client netip.AddrPort) uint16 {
	return uint16(maphash.Comparable(hashSeed, client) % clientBuckets)
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
	room := l.makeRoom(fl.conf, bucket, false)
	if room && fl.conf == nil { // it was fl that went
		l.f.waiting.Add(-1)
		room = false
	}
	if !room {
		l.replyRcode(&client{asked: r.q.Asked, from: r.from}, r.msg[wire.HeaderLen:r.q.QEnd], wire.ServFail, busyOption)
		return
	}
	c := &client{asked: r.q.Asked, from: r.from, bucket: bucket, next: fl.more}
	if q := r.msg[wire.HeaderLen:r.q.QEnd]; string(q) != string(fl.question()) {
		c.question = append([]byte(nil), q...)
	}
	fl.more = c
	l.waits(bucket)
}

// waits counts one more client of bucket that waits, for which makeRoom has made room; freeFlight takes it away.
func (l *lane) waits(bucket uint16) {
	l.inflight++
	l.clients[bucket]++
}

// busyOption is the extended error of who gets SERVFAIL because too many wait.
var busyOption = wire.EDEOption(wire.EDENoReachable, "too many queries wait for upstreams")

// behindOption is the extended error of a query whose OPT can't be built anew without breaking names behind it.
var behindOption = wire.EDEOption(wire.EDEOther, "the records behind the OPT can't be passed on")

// makeRoom reports whether one more query, of a client of bucket, may wait, and if so counts it in the forwarder's
// waiting. Beyond max_inflight somebody gets SERVFAIL at once: the newcomer, unless there is one who should rather go.
// With must the newcomer stays in any case: it is our own.
func (l *lane) makeRoom(c *upConf, bucket uint16, must bool) bool {
	for n := l.f.waiting.Load(); n < int64(c.inflight); n = l.f.waiting.Load() {
		if l.f.waiting.CompareAndSwap(n, n+1) { // other lanes take places, too
			return true
		}
	}
	l.f.jostled.Add(1)
	victim := l.victim(bucket, uint32(min(c.inflight/8, 8)))
	if victim == nil && must {
		victim = l.oldest
	}
	if victim == nil && !must {
		return false
	}
	l.f.waiting.Add(1)
	if victim != nil {
		l.failWith(victim, busyOption)
	}
	return true
}

// victim is the flight that goes in place of a newcomer of bucket; nil: none should. It is the oldest one, but for those
// of clients that have few: who floods pushes out its own (requirement 73). It goes if its client has far more waiting
// than the newcomer's (more than twice as many and margin: a stub asks for A and AAAA from one socket), or if it hangs: it
// has waited for a whole attempt_timeout, and others shall not be refused because of it.
func (l *lane) victim(bucket uint16, margin uint32) *flight {
	most := slices.Max(l.clients[:])
	now := l.f.now()
	heavier := most > 2*(l.clients[bucket]+1)+margin
	if !heavier && (l.oldest == nil || !l.oldest.hangs(now)) {
		return nil // as those after the oldest don't hang either: a flood is refused without a look at all who wait
	}
	for fl := l.oldest; fl != nil; fl = fl.nextAge {
		if 2*l.weight(fl) < most {
			continue
		}
		if heavier || fl.hangs(now) {
			return fl
		}
		return nil
	}
	return nil
}

// weight is the number of queries waiting of that client of fl which has the most.
func (l *lane) weight(fl *flight) (most uint32) {
	for c := range fl.each {
		most = max(most, l.clients[c.bucket])
	}
	return most
}

// hangs reports whether fl, which may not have been sent yet, has waited for longer than one attempt may take.
func (fl *flight) hangs(now int64) bool {
	return fl.deadline != 0 && now-(fl.deadline-fl.conf.total) > fl.conf.attempt
}
