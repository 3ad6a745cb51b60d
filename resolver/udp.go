package resolver

import (
	"bytes"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/answer"
	"hard/internal/bug"
	"hard/internal/mmsg"
	"hard/internal/wire"
)

const (
	// udpBatch is the most datagrams handled together.
	udpBatch = 32
	// udpSize is the largest query taken: what one Ethernet frame holds, and
	// more than the 1232 that we ask for. An odd multiple of 64; see NewReceiver.
	udpSize = 1472
	// yieldAfter is the number of batches after which other goroutines have
	// their turn, if there is no end of queries.
	yieldAfter = 16
	// sampleEvery is how many batches go by for one whose time is taken: reading
	// the clock twice costs as much as finding the name.
	sampleEvery = 64
)

// udpListener is one UDP socket. Its goroutine waits for datagrams (udp_wait.go)
// and, once woken, drains the socket by system calls that do not block.
type udpListener struct {
	// Immutable.
	r     *Resolver
	end   *endpoint
	given bool // somebody else had bound the socket for us
	fd    int  // the socket, not in Go's poller; valid until closed
	door  *door
	out   int // what replies leave by: fd, or an outlet (udp_out.go); valid until closed

	// Owned by the goroutine of run.
	rx       *mmsg.Receiver
	tx       *mmsg.Sender
	drainFn  func(fd uintptr) bool // l.drain, made once
	n, next  int                   // datagrams in rx, and the first not handled
	pace     pace
	batches  int
	asked    bool                 // some queries of the batch went to the forwarder
	missed   bool                 // a panic has left the poller, which on the way back forgets what came meanwhile
	handling bool                 // a datagram: next-1
	owed     bool                 // it has got no reply, and is nobody else's to answer
	head     [wire.HeaderLen]byte // its own, as it is answered in place
	logging  bool                 // the batch goes to the query log
	at       int64                // when the batch came; 0 = not read from the clock yet
	query    wire.Query
	rotor    *answer.Rotor
	counts   *counts // written by run alone, but for lost

	stopping atomic.Bool

	mu     sync.RWMutex // guards closed; held while others send
	closed bool
}

// newUDPListener takes c over and closes it: its socket stays, under another
// descriptor. On an error it is gone.
func newUDPListener(r *Resolver, e *endpoint, c *net.UDPConn) (*udpListener, error) {
	fd, err := takeFD(c)
	if err != nil {
		return nil, err
	}
	d, err := newDoor(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	l := &udpListener{r: r, end: e, given: e.given[c], fd: fd, door: d, out: fd,
		rx: mmsg.NewReceiver(udpBatch, udpSize), tx: mmsg.NewSender(udpBatch),
		rotor: r.answers.NewRotor(), counts: r.newCounts(0)}
	l.drainFn = l.drain
	return l, nil
}

// run serves until stopReading.
func (l *udpListener) run() {
	defer l.end.wg.Done()
	defer l.stand()
	l.serveOutlet()
	for !l.stopping.Load() {
		if err := l.read(); err != nil && !l.stopping.Load() {
			l.r.log.Error("listener ends", "address", l.end.addr.String(), "error", err)
			return
		}
	}
}

// read drains the socket whenever there is something, until stopReading or a
// panic. What was being done when the panic came is given up, and nothing else.
func (l *udpListener) read() error {
	defer l.recovered()
	return l.door.raw.Read(l.drainFn)
}

// recovered logs a panic and answers the query that it came in, with SERVFAIL.
func (l *udpListener) recovered() {
	x := recover()
	if x == nil {
		return
	}
	l.missed = true
	i := l.next - 1
	if !l.handling || i < 0 || i >= l.n {
		notePanic(l.r.log, x, "a listener", nil)
		return
	}
	l.handling = false
	buf, n := l.rx.Buf(i), l.rx.Len(i)
	msg := bytes.Clone(buf[:n]) // buf may hold the reply by now, and wait to be sent
	copy(msg, l.head[:])
	notePanic(l.r.log, x, "a query's handling", msg)
	if !l.owed || echoes(l.rx.From(i).Port()) {
		return
	}
	copy(buf, msg)
	l.owed = false
	if size := afterPanic(buf, n, wire.Transport{}); size > 0 {
		l.r.shared[0].noteReply(sourceError, buf[:size], 0)
		l.tx.Add(buf[:size], l.rx.From(i))
	}
}

// drain handles all that waits on the socket and, in a busy period, all that
// comes. It returns false if the poller is to wait for more, true to leave the
// poller.
//
// The poller is told of every arrival after the last look (epoll is
// edge-triggered, and each datagram is an edge), so that a batch that was not
// full needs no further look to see that the socket is empty: at low load that
// is one system call less of five. After more than one datagram, though, more
// have probably come in the meantime, and a look is cheaper than to park.
func (l *udpListener) drain(uintptr) bool {
	for round := 1; ; round++ {
		if !l.unfinished() {
			if l.stopping.Load() {
				return true
			}
			n, errno := l.receive()
			l.missed = false
			if errno == syscall.EAGAIN {
				if l.wait() {
					continue
				}
				return false
			}
			if errno != 0 && errno != syscall.EINTR { // no memory: nothing that haste could mend
				time.Sleep(time.Millisecond)
			}
			l.n, l.next = n, 0
			if l.pace.seat {
				l.crowded()
			}
		}
		l.serve()
		if l.n == 1 && !l.missed && !l.wait() {
			return false
		}
		if round%yieldAfter == 0 && !l.pace.seat { // else there are processors for the others
			runtime.Gosched()
		}
	}
}

// unfinished reports whether a panic has left some of the batch.
func (l *udpListener) unfinished() bool { return l.next < l.n || l.tx.Len() > 0 || l.asked }

// serve handles the batch in rx from next on, and sends the replies.
func (l *udpListener) serve() {
	r := l.r
	table := r.table.Load()
	l.at = 0
	l.batches++
	sampled := l.batches%sampleEvery == 0
	l.logging = r.logQuery.Load()
	if sampled || l.logging {
		l.at = int64(r.sinceStart())
	}
	for l.next < l.n {
		i := l.next
		l.next++
		l.handle(table, i)
	}
	l.handling = false
	if l.tx.Len() > 0 {
		if lost, err := l.tx.Flush(l.out); lost > 0 {
			l.lost(lost, err)
		}
		if sampled {
			l.counts.duration[sourceLocal].observe(r.sinceStart() - time.Duration(l.at))
		}
	}
	if l.n > 0 {
		l.pace.passes(l.asked)
	}
	if l.asked {
		l.asked = false
		r.fwd.flush()
	}
}

// handle answers datagram i or passes it on.
func (l *udpListener) handle(table *answer.Table, i int) {
	from := l.rx.From(i)
	buf, n := l.rx.Buf(i), l.rx.Len(i)
	l.handling, l.owed = true, true
	copy(l.head[:], buf)
	bug.Here("udp")
	port := from.Port()
	if port == 0 { // a reply could not be sent (requirement 19)
		l.owed = false
		inc(&l.counts.dropped)
		return
	}
	if table == nil {
		l.hold(table, i)
		return
	}
	res := table.Serve(&l.query, buf, n, wire.Transport{}, l.rotor)
	switch res.Action {
	case answer.Answer:
		if res.Source == answer.SourceError && echoes(port) {
			inc(&l.counts.dropped)
			return
		}
		l.counts.note(&l.query, sourceOf(res.Source), buf)
		l.tx.Add(buf[:res.N], from)
		l.owed = false
		bug.Here("udp-answered")
		if l.logging {
			l.logReply(i, sourceOf(res.Source), buf[:res.N])
		}
	case answer.Ask:
		l.asked, l.owed = true, false
		r := request{msg: buf[:n], q: &l.query, entry: res.Entry, from: l.asker(i)}
		l.r.fwd.query(&r)
	case answer.Wait:
		l.hold(table, i)
	default:
		inc(&l.counts.dropped)
	}
	if res.Entry != nil && res.Entry.Idle && l.r.asked != nil {
		l.r.asked(res.Slot)
	}
}

func (l *udpListener) logReply(i int, s source, msg []byte) {
	from := l.asker(i)
	l.r.logReply(&from, s, msg)
}

// echoes reports whether a port belongs to a service that sends something back
// for anything it gets. An error to a query from there could go to and fro for
// ever (requirement 19).
func echoes(port uint16) bool {
	switch port {
	case 7, 13, 17, 19, 37, 53, 123: // echo, daytime, quotd, chargen, time, DNS, NTP
		return true
	}
	return false
}

// asker makes the asker of datagram i.
func (l *udpListener) asker(i int) asker {
	if l.at == 0 {
		l.at = int64(l.r.sinceStart())
	}
	return asker{to: l, addr: *l.rx.From(i), at: l.at}
}

// hold keeps datagram i for the next table, or answers it now if too many are
// kept.
func (l *udpListener) hold(table *answer.Table, i int) {
	buf, n := l.rx.Buf(i), l.rx.Len(i)
	if l.r.held.add(buf[:n], l.asker(i)) {
		l.owed = false
		return
	}
	size, src := answerHeld(table, &l.query, buf, n, wire.Transport{}, l.rotor)
	if size == 0 {
		l.owed = false
		return
	}
	l.counts.note(&l.query, src, buf)
	l.tx.Add(buf[:size], l.rx.From(i))
	l.owed = false
	if l.logging {
		l.logReply(i, src, buf[:size])
	}
}

// lost counts replies that could not be sent. They are not the server's fault,
// mostly: the client has given an address that nothing can be sent to.
func (l *udpListener) lost(n int, err error) {
	l.counts.lost.Add(uint64(n))
	l.r.log.Debug("replies could not be sent", "address", l.end.addr.String(), "number", n, "error", err)
}

func (l *udpListener) transport() wire.Transport { return wire.Transport{} }

func (l *udpListener) later(int32) {}

// sendsFor reports whether a reply by to may as well leave from l's socket: it
// has the same address.
func (l *udpListener) sendsFor(to replier) bool {
	o, ok := to.(*udpListener)
	return ok && o.end == l.end
}

func (l *udpListener) writeReply(from asker, s source, msg []byte) {
	one := [1]outMessage{{from: from, msg: msg, source: s}}
	l.writeReplies(one[:])
}

// senders are for the goroutines that are no listeners.
var senders = sync.Pool{New: func() any { return &replySender{tx: mmsg.NewSender(udpBatch)} }}

// replySender keeps what a Sender points to.
type replySender struct {
	tx   *mmsg.Sender
	addr [udpBatch]mmsg.Addr
}

// writeReplies sends up to udpBatch replies whose askers are l or, by sendsFor,
// as good as l.
func (l *udpListener) writeReplies(out []outMessage) {
	s := senders.Get().(*replySender)
	defer senders.Put(s)
	logging := l.r.logQuery.Load()
	for i := range out {
		o := &out[i]
		if len(o.msg) == 0 {
			continue
		}
		l.r.shared[0].noteReply(o.source, o.msg, l.r.took(&o.from))
		if logging {
			l.r.logReply(&o.from, o.source, o.msg)
		}
		s.addr[i] = o.from.addr
		s.tx.Add(o.msg, &s.addr[i])
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		s.tx.Drop()
		return
	}
	if lost, err := s.tx.Flush(l.out); lost > 0 {
		l.lost(lost, err)
	}
}

// stopReading ends run, which the caller joins. Replies can still be sent.
func (l *udpListener) stopReading() {
	l.stopping.Store(true)
	_ = l.door.file.SetReadDeadline(time.Unix(1, 0)) // wakes the reader, unless it has a seat; see seatWait
}

func (l *udpListener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.door.file.Close()
		unix.Close(l.fd)
		if l.out != l.fd {
			unix.Close(l.out)
		}
	}
}
