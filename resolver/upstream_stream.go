package resolver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"hard/internal/wire"
)

// streamAsker asks one upstream over TCP or TLS (RFC 7766, RFC 7858):
// connections are kept, queries pipelined, replies taken in any order.
type streamAsker struct {
	// Immutable.
	addr string
	tls  *tls.Config // nil = TCP

	mu     sync.Mutex // guards all below, and the conns' guarded fields
	conns  []*streamConn
	closed bool
	wg     sync.WaitGroup // of all connections' goroutines
}

const (
	streamConns   = 8   // connections to one upstream
	streamPending = 512 // queries on one connection
	streamIdle    = 10 * time.Second
	streamConnect = 3 * time.Second
	streamWrite   = 3 * time.Second
	streamStall   = 500 * time.Millisecond // with the oldest query waiting this long, new ones go elsewhere
	streamLife    = 5 * time.Second        // the oldest waits this long: the connection is given up
)

var (
	errStreamFull   = errors.New("too many queries on the upstream's connections")
	errStreamClosed = errors.New("upstream's connection closed")
	errBadFrame     = errors.New("bad frame from upstream")
)

// streamConn is one connection: one goroutine dials and then reads, another
// writes.
type streamConn struct {
	s      *streamAsker
	cancel context.CancelFunc
	wake   chan struct{} // something to write, or the end
	ctx    context.Context

	// Guarded by s.mu.
	queue   []*streamQuery          // to be written
	pending map[uint16]*streamQuery // written or about to be, by ID
	conn    net.Conn                // nil while dialling
	served  bool                    // a reply came: the connection worked once
	retired bool                    // no new queries
	heard   time.Time               // last reply
}

// streamQuery is one query. It belongs to one connection at a time.
type streamQuery struct {
	msg     []byte
	id      uint16 // the caller's
	done    func([]byte, error)
	since   time.Time
	retried bool
}

func newStreamAsker(s Server, roots *x509.CertPool) *streamAsker {
	a := &streamAsker{addr: s.Addr.String()}
	if s.Kind == TLS {
		a.tls = &tls.Config{
			ServerName: s.ServerName, RootCAs: roots, MinVersion: tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(4), NextProtos: []string{"dot"},
		}
	}
	return a
}

func (a *streamAsker) ask(msg []byte, done func([]byte, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.askLocked(&streamQuery{msg: msg, id: binary.BigEndian.Uint16(msg), done: done, since: time.Now()})
}

// askLocked gives q to a connection, new if need be.
func (a *streamAsker) askLocked(q *streamQuery) {
	if a.closed {
		go q.done(nil, errStreamClosed)
		return
	}
	c := a.pickLocked(q.retried)
	if c == nil {
		go q.done(nil, errStreamFull)
		return
	}
	id := uint16(mrand.Uint32())
	for c.pending[id] != nil {
		id = uint16(mrand.Uint32())
	}
	binary.BigEndian.PutUint16(q.msg, id)
	c.pending[id] = q
	c.queue = append(c.queue, q)
	c.wakeUp()
}

// pickLocked returns a connection for one more query: one that does not hang
// (requirement 72), else a new one.
func (a *streamAsker) pickLocked(fresh bool) *streamConn {
	var best *streamConn
	live := 0
	for _, c := range a.conns {
		if c.retired {
			continue
		}
		live++
		if len(c.pending) >= streamPending {
			c.purgeLocked()
		}
		if fresh && c.served || len(c.pending) >= streamPending || c.stalledLocked(streamStall) {
			continue
		}
		if best == nil || len(c.pending) < len(best.pending) {
			best = c
		}
	}
	if best != nil || live >= streamConns {
		return best
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &streamConn{s: a, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1),
		pending: make(map[uint16]*streamQuery), heard: time.Now()}
	a.conns = append(a.conns, c)
	a.wg.Add(1)
	go c.run()
	return c
}

// stalledLocked reports whether a query has waited for d, without any reply since.
func (c *streamConn) stalledLocked(d time.Duration) bool {
	if len(c.pending) == 0 || time.Since(c.heard) < d {
		return false
	}
	for _, q := range c.pending {
		if time.Since(q.since) >= d {
			return true
		}
	}
	return false
}

func (c *streamConn) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run is the connection's life: dial, write beside it, read until the end,
// and see to the queries that are left.
func (c *streamConn) run() {
	defer c.s.wg.Done()
	conn, err := c.dial()
	if err == nil {
		var writer sync.WaitGroup
		writer.Add(1)
		go func() {
			defer writer.Done()
			c.write(conn)
		}()
		err = c.read(conn)
		c.cancel()
		conn.Close()
		writer.Wait()
	}
	c.cancel()
	c.end(err)
}

func (c *streamConn) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, streamConnect)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.s.addr)
	if err != nil {
		return nil, err
	}
	if c.s.tls != nil {
		t := tls.Client(conn, c.s.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, &tlsError{err}
		}
		conn = t
	}
	c.s.mu.Lock()
	c.conn = conn
	c.s.mu.Unlock()
	return conn, nil
}

// tlsError is a failed handshake.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// write writes queued queries, as many as there are with one call, until the
// connection's context ends; then it closes conn.
func (c *streamConn) write(conn net.Conn) {
	defer conn.Close()
	var buf []byte
	for {
		c.s.mu.Lock()
		buf = buf[:0]
		for _, q := range c.queue {
			buf = binary.BigEndian.AppendUint16(buf, uint16(len(q.msg)))
			buf = append(buf, q.msg...)
		}
		clear(c.queue)
		c.queue = c.queue[:0]
		c.s.mu.Unlock()
		if len(buf) > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(streamWrite))
			if _, err := conn.Write(buf); err != nil {
				return
			}
			continue
		}
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		}
	}
}

// read reads replies until the connection ends, is idle for long, or hangs.
func (c *streamConn) read(conn net.Conn) error {
	var size [2]byte
	for {
		_ = conn.SetReadDeadline(c.deadline())
		got, err := io.ReadFull(conn, size[:])
		if got == 0 && isTimeout(err) && !c.expired() {
			continue // a query came in the meantime
		}
		if err != nil {
			return c.readError(err)
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < wire.HeaderLen {
			return errBadFrame
		}
		m := make([]byte, n)
		_ = conn.SetReadDeadline(time.Now().Add(streamLife))
		if _, err := io.ReadFull(conn, m); err != nil {
			return c.readError(err)
		}
		c.took(m)
	}
}

// deadline is when the connection has been idle, or without a reply that it
// owes, for too long.
func (c *streamConn) deadline() time.Time {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.deadlineLocked()
}

func (c *streamConn) deadlineLocked() time.Time {
	if len(c.pending) == 0 {
		return c.heard.Add(streamIdle)
	}
	oldest := time.Now()
	for _, q := range c.pending {
		if q.since.Before(oldest) {
			oldest = q.since
		}
	}
	if c.heard.After(oldest) {
		oldest = c.heard
	}
	return oldest.Add(streamLife)
}

// expired reports whether the deadline is over; if so, no query comes any more.
func (c *streamConn) expired() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if time.Now().Before(c.deadlineLocked()) {
		return false
	}
	c.retired = true
	return true
}

// purgeLocked forgets the queries whose flights have long ended.
func (c *streamConn) purgeLocked() {
	for id, q := range c.pending {
		if time.Since(q.since) > 2*streamLife {
			delete(c.pending, id)
			go q.done(nil, errStreamClosed)
		}
	}
}

// readError gives a closed connection its proper reason.
func (c *streamConn) readError(err error) error {
	if c.ctx.Err() != nil {
		return errStreamClosed
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errStreamClosed
	}
	return err
}

// took gives a reply to its query; one that nobody waits for is dropped. A
// reply to another question is dropped too (requirement 60).
func (c *streamConn) took(m []byte) {
	id := binary.BigEndian.Uint16(m)
	c.s.mu.Lock()
	q := c.pending[id]
	if q != nil && !answersQuery(m, q.msg) {
		q = nil
	}
	if q != nil {
		delete(c.pending, id)
		c.served = true
		c.heard = time.Now()
	}
	retire := c.retired && len(c.pending) == 0
	c.s.mu.Unlock()
	if q != nil {
		binary.BigEndian.PutUint16(m, q.id)
		q.done(m, nil)
	}
	if retire {
		c.cancel()
	}
	c.wakeUp()
}

// answersQuery reports whether m is a response to the question of query.
func answersQuery(m, query []byte) bool {
	end, ok := wire.SkipName(query, wire.HeaderLen)
	if !ok || end+4 > len(query) {
		return false
	}
	return wire.MatchReply(m, query[wire.HeaderLen:end], binary.BigEndian.Uint16(query[end:]),
		binary.BigEndian.Uint16(query[end+2:])) == wire.MatchYes
}

// end takes the connection out of use. Queries on a connection that had worked
// are asked once more over a fresh one: the upstream closed an idle connection
// just as they came (requirement 72). The rest fail.
func (c *streamConn) end(err error) {
	if err == nil {
		err = errStreamClosed
	}
	a := c.s
	a.mu.Lock()
	for i, x := range a.conns {
		if x == c {
			a.conns = append(a.conns[:i], a.conns[i+1:]...)
			break
		}
	}
	var lost []*streamQuery
	for _, q := range c.pending {
		if c.served && !q.retried && !a.closed && !isTimeout(err) {
			q.retried = true
			q.since = time.Now()
			a.askLocked(q)
		} else {
			lost = append(lost, q)
		}
	}
	c.pending, c.queue = nil, nil
	a.mu.Unlock()
	for _, q := range lost {
		q.done(nil, err)
	}
}

// reset retires all connections: they end with their last query.
func (a *streamAsker) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.retired = true
		if len(c.pending) == 0 {
			c.cancel()
			c.closeLocked()
		}
	}
}

func (c *streamConn) closeLocked() {
	if c.conn != nil {
		c.conn.Close()
	}
}

func (a *streamAsker) close() {
	a.mu.Lock()
	a.closed = true
	for _, c := range a.conns {
		c.cancel()
		c.closeLocked()
	}
	a.mu.Unlock()
	a.wg.Wait()
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// streamFailure says what kind of failure an error of a stream is.
func streamFailure(err error) failure {
	var te *tlsError
	switch {
	case errors.As(err, &te):
		return failTLS
	case isTimeout(err):
		return failTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, errStreamClosed):
		return failRefused
	case errors.Is(err, errBadFrame):
		return failInvalid
	}
	return failNetwork
}
