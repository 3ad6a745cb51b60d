package resolver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// streamAsker asks one upstream over TCP or TLS (RFC 7766, RFC 7858):
// connections are kept, queries pipelined, replies taken in any order.
type streamAsker struct {
	// Immutable.
	addr string
	tls  *tls.Config // nil = TCP
	log  *slog.Logger

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

// streamQuery is one query. It belongs to one connection at a time.
type streamQuery struct {
	msg     []byte
	id      uint16 // the caller's
	done    func([]byte, error)
	since   time.Time
	retried bool
}

func newStreamAsker(s Server, roots *x509.CertPool, log *slog.Logger) *streamAsker {
	a := &streamAsker{addr: s.Addr.String(), log: log}
	if s.Kind == TLS {
		a.tls = &tls.Config{
			ServerName: s.ServerName, RootCAs: roots, MinVersion: tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(4), NextProtos: []string{"dot"},
		}
	}
	return a
}

func (a *streamAsker) ask(msg []byte, done func([]byte, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.askLocked(&streamQuery{msg: msg, id: binary.BigEndian.Uint16(msg), done: done, since: time.Now()})
}

// askLocked gives q to a connection, new if need be.
func (a *streamAsker) askLocked(q *streamQuery) error {
	if a.closed {
		return errStreamClosed
	}
	c := a.pickLocked(q.retried)
	if c == nil {
		return errStreamFull
	}
	id := uint16(mrand.Uint32())
	for c.pending[id] != nil {
		id = uint16(mrand.Uint32())
	}
	binary.BigEndian.PutUint16(q.msg, id)
	c.pending[id] = q
	c.queue = append(c.queue, q)
	c.wakeUp()
	return nil
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
