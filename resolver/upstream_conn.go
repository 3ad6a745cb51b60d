package resolver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"hard/internal/bug"
	"hard/internal/wire"
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
			defer bug.Caught(c.s.log, "the queries to an upstream over a stream")
			c.write(conn)
		}()
		err = c.readAll(conn)
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

// readAll is read; a panic in it ends the connection.
func (c *streamConn) readAll(conn net.Conn) (err error) {
	err = errStreamClosed
	defer bug.Caught(c.s.log, "the replies of an upstream over a stream")
	bug.Here("stream")
	return c.read(conn)
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
		if c.served && !q.retried && !isTimeout(err) {
			q.retried = true
			q.since = time.Now()
			if a.askLocked(q) == nil {
				continue
			}
		}
		lost = append(lost, q)
	}
	c.pending, c.queue = nil, nil
	a.mu.Unlock()
	for _, q := range lost {
		q.done(nil, err)
	}
}

// purgeLocked forgets the queries whose flights have long ended.
func (c *streamConn) purgeLocked() {
	for id, q := range c.pending {
		if time.Since(q.since) > 2*streamLife {
			delete(c.pending, id)
		}
	}
}
