package resolver

import (
	"crypto/rand"
	mrand "math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/answer"
	"hard/internal/mmsg"
	"hard/internal/wire"
)

// lane is one share of the forwarder: the flights whose names fall to it,
// their attempts, sockets and timers, behind one lock. Nothing done under the
// lock blocks: sockets are non-blocking and streams have queues.
type lane struct {
	f     *forwarder
	index int

	epoll *os.File // holds every socket; itself watched by Go's poller
	epfd  int      // epoll's descriptor
	timer *time.Timer
	wg    sync.WaitGroup // reader, ticker
	done  chan struct{}

	staged atomic.Int32 // len(stage), read by flush without the lock

	mu        sync.Mutex
	rng       *mrand.ChaCha8 // IDs and sockets: unpredictable, seeded by the kernel
	stage     []*attempt     // to be sent at the next flush
	table     []*attempt     // attempts by socket and ID, chained; len is a power of two
	equal     []*flight      // flights by question, chained; len is a power of two
	oldest    *flight        // all flights, by age
	newest    *flight
	inflight  int                   // clients waiting, so at least the number of flights
	clients   [clientBuckets]uint32 // of those, by bucketOf
	hedges    float64               // budget for hedging upstreams that do answer
	freeF     *flight               // chained by hnext
	freeA     *attempt              // chained by hnext
	wheel     wheel                 // of attempts
	socks     []*sock               // by index; nil = free
	freeSocks []int                 // free indexes of socks
	open      int                   // sockets
	stopped   bool                  // no more sockets
	nextSweep int64
	tx        *mmsg.Sender
	batch     [sendBatch]*attempt // scratch of send
	rep       wire.Reply          // scratch of deliver
	ede       [32][]byte          // options by code, made when first needed
	rx        *rxBatch            // owned by the reader, which uses it under mu
	out       []outMessage        // owned by the reader
}

// client is one who waits for a flight: a client of ours, or a lookup.
type client struct {
	asked    wire.Asked
	from     asker
	lookup   chan<- []byte // instead of from; has room for one
	question []byte        // bytes 12 to QEnd where they differ from the flight's in case; nil = the flight's
	bucket   uint16        // in lane.clients
	given    bool          // it has its reply: whatever goes wrong now, it gets no second one
	next     *client
}

// flight is one question on its way upstream, for one client or more.
// Guarded by the lane's lock.
type flight struct {
	client   client // the first
	more     *client
	lane     *lane
	conf     *upConf
	set      *upSet
	entry    *answer.Entry // the name is configured: rewrite the reply; nil = pass it on
	msg      []byte        // what is sent, but for the ID
	qend     int
	hash     uint64
	key      uint64 // shareKey
	stream   bool   // asked over TCP
	share    bool   // equal questions may join
	sent     uint8  // upstream packets
	live     uint8  // attempts whose reply is awaited
	tried    uint32 // upstreams asked this round, by index in set
	deadline int64
	why      failure // of the last attempt
	bad      []byte  // the first reply that was an error, to be passed on if nothing better comes; nil = none
	badFrom  *upstream
	attempts *attempt // chained by fnext
	prev     *flight  // by age
	nextAge  *flight
	hnext    *flight
	buf      [256]byte // msg, unless it is longer
}

// attempt is one packet to one upstream whose reply is awaited. It may outlive
// its flight, to learn what the upstream does.
type attempt struct {
	fl     *flight // nil: the flight is over, or this is a probe
	up     *upstream
	sock   *sock // nil: over a stream
	probe  []byte
	gen    uint64 // changes when the attempt is used again
	sent   int64
	expire int64
	id     uint16
	staged bool
	hedged bool // the hedge delay has passed
	noQ    bool // a reply without question came: perhaps not EDNS's friend
	hnext  *attempt
	fnext  *attempt
	snext  *attempt // of sock
	sprev  *attempt
	due    int64
	wprev  *attempt
	wnext  *attempt
	slot   int // of the wheel; -1 = not in it
}

const (
	maxPackets    = 20 // upstream packets for one flight (requirement 71)
	hedgeShare    = 0.1
	hedgeBurst    = 16
	tableSize     = 4096
	clientBuckets = 2048
)

func newLane(f *forwarder, index int) *lane {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	l := &lane{
		f: f, index: index, rng: mrand.NewChaCha8(seed), done: make(chan struct{}),
		table: make([]*attempt, tableSize), equal: make([]*flight, tableSize), hedges: hedgeBurst,
		tx: mmsg.NewSender(sendBatch),
	}
	l.wheel.init()
	l.timer = time.NewTimer(time.Hour)
	return l
}

func (l *lane) start() error {
	var err error
	if l.epoll, l.epfd, err = newEpoll(); err != nil {
		return err
	}
	l.rx = newRxBatch()
	l.wg.Add(2)
	go l.runReader()
	go l.runTicker()
	return nil
}

// stop ends the flights that are left, closes all sockets and joins the
// lane's goroutines.
func (l *lane) stop() {
	l.mu.Lock()
	for l.oldest != nil {
		l.fail(l.oldest, wire.EDENoReachable)
	}
	l.stopped = true
	for _, s := range l.socks {
		if s != nil {
			l.closeSock(s)
		}
	}
	l.mu.Unlock()
	close(l.done)
	if l.epoll != nil {
		l.epoll.Close()
	}
	l.wg.Wait()
	l.timer.Stop()
}

func (l *lane) rand16() uint16 { return uint16(l.rng.Uint64()) }

// newFlight takes a flight from the free list, or makes one.
func (l *lane) newFlight() *flight {
	fl := l.freeF
	if fl == nil {
		fl = new(flight)
	} else {
		l.freeF = fl.hnext
	}
	fl.lane = l
	fl.hnext = nil
	fl.prev = l.newest
	if l.newest != nil {
		l.newest.nextAge = fl
	} else {
		l.oldest = fl
	}
	l.newest = fl
	return fl
}

// freeFlight takes fl out of all tables. Its attempts go on as orphans, so
// that a late reply still tells something of its upstream's health.
func (l *lane) freeFlight(fl *flight) {
	for at := fl.attempts; at != nil; {
		next := at.fnext
		at.fl, at.fnext = nil, nil
		if at.sock == nil && !at.staged { // nobody listens to a stream any more
			l.endAttempt(at)
		}
		at = next
	}
	if fl.share {
		p := &l.equal[fl.hash%tableSize]
		for *p != fl {
			p = &(*p).hnext
		}
		*p = fl.hnext
	}
	if fl.prev != nil {
		fl.prev.nextAge = fl.nextAge
	} else {
		l.oldest = fl.nextAge
	}
	if fl.nextAge != nil {
		fl.nextAge.prev = fl.prev
	} else {
		l.newest = fl.prev
	}
	for c := range fl.each {
		l.clients[c.bucket]--
		l.inflight--
		l.f.waiting.Add(-1)
	}
	if l.inflight == 0 && l.f.stopping.Load() {
		select {
		case l.f.drained <- struct{}{}:
		default:
		}
	}
	fl.client = client{}
	fl.more, fl.conf, fl.set, fl.entry, fl.msg = nil, nil, nil, nil, nil
	fl.bad, fl.badFrom, fl.attempts, fl.prev, fl.nextAge = nil, nil, nil, nil, nil
	fl.stream, fl.share, fl.sent, fl.live, fl.tried, fl.why = false, false, 0, 0, 0, failNone
	fl.hnext = l.freeF
	l.freeF = fl
}

// newAttempt takes an attempt from the free list, or makes one, for u.
func (l *lane) newAttempt(fl *flight, u *upstream) *attempt {
	at := l.freeA
	if at == nil {
		at = new(attempt)
	} else {
		l.freeA = at.hnext
	}
	at.hnext = nil
	at.gen++
	at.fl, at.up, at.slot = fl, u, -1
	at.hedged, at.noQ, at.staged, at.probe, at.sock = false, false, false, nil, nil
	u.lanes[l.index].inflight++
	if fl != nil {
		at.fnext = fl.attempts
		fl.attempts = at
		fl.live++
	}
	return at
}

// endAttempt takes at out of all tables and gives it back. Its socket is
// closed if it was the last one that a retired socket waited for.
func (l *lane) endAttempt(at *attempt) {
	if fl := at.fl; fl != nil {
		p := &fl.attempts
		for *p != at {
			p = &(*p).fnext
		}
		*p = at.fnext
		fl.live--
	}
	at.up.lanes[l.index].inflight--
	l.unassign(at)
	at.fl, at.up, at.sock, at.probe, at.fnext = nil, nil, nil, nil, nil
	at.gen++
	at.hnext = l.freeA
	l.freeA = at
}

// unassign takes at out of the wheel and from its socket, which is closed if it
// is retired and at was the last one that it waited for.
func (l *lane) unassign(at *attempt) {
	l.wheel.remove(at)
	s := at.sock
	if s == nil {
		return
	}
	p := l.bucket(s, at.id)
	for *p != at {
		p = &(*p).hnext
	}
	*p = at.hnext
	s.remove(at)
	at.sock, at.hnext = nil, nil
	if s.retired && s.waiting == 0 {
		l.closeSock(s)
	}
}

func (l *lane) bucket(s *sock, id uint16) **attempt {
	return &l.table[(uint32(id)^s.mix)%tableSize]
}

// find returns the attempt that waits on s for id, or nil.
func (l *lane) find(s *sock, id uint16) *attempt {
	at := *l.bucket(s, id)
	for at != nil && (at.id != id || at.sock != s) {
		at = at.hnext
	}
	return at
}
