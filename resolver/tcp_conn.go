package resolver

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hard/internal/mmsg"
	"hard/internal/wire"
)

// tcpConn is one connection of a client. Its goroutine reads and writes local
// answers; replies that come later are written by whoever brings them.
type tcpConn struct {
	// Immutable.
	s        *tcpServer
	conn     *net.TCPConn
	raw      syscall.RawConn
	host     netip.Addr
	addr     mmsg.Addr
	accepted int64         // Unix nanoseconds
	wake     chan struct{} // has room for one: something that run may wait for has happened

	// Owned by the goroutine of run.
	rest   []byte // read but not served: an unfinished frame, or more than may be in flight
	asking []byte // the query being handled, for the log of a panic
	reads  int
	ended  bool // the client sends no more
	broken bool

	// Owned by the sweeper.
	looked bool // the reader was told to look, and nothing has moved since

	// Any goroutine.
	active   atomic.Int64 // Unix nanoseconds of the sweeper's look that saw the last query or reply
	moved    atomic.Bool  // a query or reply since the sweeper's last look
	since    atomic.Int64 // Unix nanoseconds when the sweeper first saw the unfinished frame; 0 = none, -1 = not seen yet
	inflight atomic.Int32 // queries whose reply comes later
	unsent   atomic.Int32 // bytes that the socket had no room for

	mu      sync.Mutex // guards the rest
	out     []byte     // of unsent, what the writer has not taken
	writing bool       // the writer runs: all that is sent goes through out
	closed  bool
}

// eagerReads is how many times a new connection is read until there is
// nothing. Clients that ask once send the end of their stream with or just
// after their query, and wait for ours. Later a read that brought less than
// there was room for is taken for the last, which saves a system call for each
// query; the end, if it came with it, is found by the sweeper's look.
const eagerReads = 4

func (c *tcpConn) run() {
	defer c.s.wg.Done()
	defer c.s.remove(c)
	defer c.conn.Close()
	defer c.close()
	for !c.broken && !c.isClosed() {
		if !c.ended && !c.full() {
			c.read()
		}
		switch {
		case c.ended && c.inflight.Load() == 0 && c.unsent.Load() == 0:
			return // everything asked for was answered
		case c.ended || c.full():
			<-c.wake
		}
	}
}

// full reports whether the client has to take replies before it may ask more.
func (c *tcpConn) full() bool {
	l := &c.s.limits
	return int(c.inflight.Load()) >= l.inflight || int(c.unsent.Load()) > l.backlog
}

// read serves until there is something that it cannot wait for.
func (c *tcpConn) read() {
	defer c.recovered()
	err := c.raw.Read(c.drain)
	if err == nil {
		return
	}
	if c.s.isStopping() {
		c.ended = true
		return
	}
	// look has woken us, to see whether the stream has ended.
	if c.conn.SetReadDeadline(time.Time{}) != nil {
		c.broken = true
	}
	c.reads = 0
}

// recovered ends the connection whose state a panic has left unknown. One in the
// handling of a query is the worker's.
func (c *tcpConn) recovered() {
	if x := recover(); x != nil {
		c.broken = true
		notePanic(c.s.r.log, x, "a connection", c.asking)
	}
}

// drain serves all that the socket has, and returns false if the poller is to
// wait for more, true to leave the poller.
func (c *tcpConn) drain(fd uintptr) bool {
	w := c.s.getWorker()
	leave := c.serve(w, int(fd))
	c.s.putWorker(w) // not after a panic: w is lost then, with its query in an unknown state
	return leave
}

func (c *tcpConn) serve(w *tcpWorker, fd int) (leave bool) {
	n := copy(w.in, c.rest)
	drained := false
	for {
		used := c.frames(w, w.in[:n], fd)
		n = copy(w.in, w.in[used:n])
		if used > 0 && n > 0 || n > 0 && c.since.Load() == 0 {
			c.since.Store(-1) // another unfinished frame
		}
		if c.broken || c.full() {
			c.keep(w.in[:n])
			return true
		}
		if drained {
			c.keep(w.in[:n])
			return false
		}
		got, errno := mmsg.Read(fd, w.in[n:])
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN:
			c.keep(w.in[:n])
			return false
		case errno != 0:
			c.broken = true
			return true
		case got == 0:
			c.ended = true
			c.since.Store(0)
			return true
		}
		c.reads++
		drained = got < len(w.in)-n && c.reads > eagerReads
		n += got
	}
}

// keep keeps what could not be served yet.
func (c *tcpConn) keep(b []byte) {
	if len(b) == 0 {
		c.rest = nil
		if c.since.Load() != 0 {
			c.since.Store(0)
		}
		return
	}
	c.rest = append(c.rest[:0], b...)
}

// frames answers the whole frames in b, as long as the client takes the
// replies, and returns how many bytes they were.
func (c *tcpConn) frames(w *tcpWorker, b []byte, fd int) (used int) {
	for !c.full() && !c.broken {
		f := b[used:]
		if len(f) < 2 {
			break
		}
		size := 2 + int(binary.BigEndian.Uint16(f))
		if len(f) < size {
			break
		}
		used += size
		c.asking = f[2:size]
		w.answer(c.asking, asker{to: c, addr: c.addr}, c.transport())
		c.asking = nil
		if len(w.out) >= tcpOut {
			c.write(w, fd)
		}
	}
	if used > 0 {
		c.stir() // before the client can have its reply, and open another connection
	}
	c.write(w, fd)
	return used
}

// transport tells the idle timeout to clients that ask for it (RFC 7828).
func (c *tcpConn) transport() wire.Transport {
	return wire.Transport{TCP: true, Keepalive: uint16(c.s.told.Load())}
}

// stir notes that the client is alive. The sweeper reads the clock for it.
func (c *tcpConn) stir() {
	if !c.moved.Load() {
		c.moved.Store(true)
	}
}

// signal has run look at its connection again.
func (c *tcpConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// busy reports whether somebody waits for replies on c.
func (c *tcpConn) busy() bool { return c.inflight.Load() > 0 || c.unsent.Load() > 0 }

// yields reports whether c makes room for a new connection rather than o: idle
// ones before busy ones, then those that have been idle for longer, as far as
// the sweeper's looks can tell.
func (c *tcpConn) yields(o *tcpConn) bool {
	if a, b := c.busy(), o.busy(); a != b {
		return b
	}
	if a, b := c.moved.Load(), o.moved.Load(); a != b {
		return b
	}
	if a, b := c.active.Load(), o.active.Load(); a != b {
		return a < b
	}
	return c.accepted < o.accepted
}

// check closes c if its time is over.
func (c *tcpConn) check(now int64, idle time.Duration) {
	moved := c.moved.Swap(false)
	if moved {
		c.active.Store(now)
		c.looked = false
	}
	switch since := c.since.Load(); {
	case since == -1:
		c.since.CompareAndSwap(-1, now)
	case since > 0 && now-since > int64(c.s.limits.frame) && !c.busy():
		c.close()
		return
	}
	switch {
	case time.Duration(now-c.active.Load()) > idle && !c.busy():
		c.close()
	case !moved && !c.looked:
		c.looked = true
		c.look() // it has just become idle: see whether the stream has ended
	}
}

// look has the reader look at the socket, for an end of the stream that came
// unnoticed (see eagerReads).
func (c *tcpConn) look() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) }

func (c *tcpConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *tcpConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

// closeLocked has run end the connection, and the writer. Close itself would wait here until the reader has left the
// socket, and the reader perhaps for c.mu.
func (c *tcpConn) closeLocked() {
	if c.closed {
		return
	}
	c.closed = true
	_ = c.conn.SetDeadline(time.Unix(1, 0))
	c.signal()
}
