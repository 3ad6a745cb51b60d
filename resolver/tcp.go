package resolver

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/bug"
	"hard/internal/mmsg"
)

// tcpLimits bound what TCP clients may cost (RFC 7766, sections 6.2.2 and
// 6.2.3; requirements 45 and 46).
type tcpLimits struct {
	conns    int           // connections in all; at the limit the oldest idle one makes room
	perHost  int           // connections from one address that is not loopback: all of this host is one address
	inflight int           // forwarded or held queries of one connection; beyond, it is not read from
	backlog  int           // bytes that a client has not taken; beyond, it is not read from
	maximum  int           // bytes that a client has not taken; beyond, it is closed
	idle     time.Duration // without queries; less when there are many connections
	idleMin  time.Duration
	frame    time.Duration // for the rest of an unfinished query
	write    time.Duration // in which a client must take something
	tick     time.Duration // how often the first two are looked at
}

var defaultTCPLimits = tcpLimits{
	conns: 1000, perHost: 250, inflight: 128, backlog: 64 << 10, maximum: 16 << 20,
	idle: 30 * time.Second, idleMin: 2 * time.Second, frame: 10 * time.Second, write: 10 * time.Second,
	tick: 500 * time.Millisecond,
}

// tcpServer owns all TCP connections.
type tcpServer struct {
	r      *Resolver
	limits tcpLimits // immutable once serving
	done   chan struct{}
	wg     sync.WaitGroup // connections and the sweeper
	told   atomic.Int32   // the idle timeout as clients are told it, in units of 100 ms

	mu       sync.Mutex // guards the rest; taken before a connection's
	conns    map[*tcpConn]struct{}
	workers  []*tcpWorker // free
	sweeping bool         // the sweeper runs, which it does while there are connections
	leaving  bool         // nothing new is accepted: connections are closed once they are idle
	stopped  bool
	accepted uint64
	evicted  uint64
}

func newTCPServer(r *Resolver) *tcpServer {
	s := &tcpServer{r: r, limits: defaultTCPLimits, done: make(chan struct{}), conns: make(map[*tcpConn]struct{})}
	var rl unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &rl) == nil && rl.Cur < uint64(4*s.limits.conns) {
		s.limits.conns = max(16, int(rl.Cur/4)) // the rest is for upstreams and probes
	}
	return s
}

// tcpListener accepts connections for one address.
type tcpListener struct {
	s   *tcpServer
	end *endpoint
	ln  *net.TCPListener

	accepting sync.WaitGroup // run
}

// stopAccepting leaves connections that wait to whoever else has the socket.
// Those that were accepted are among s.conns when it returns.
func (l *tcpListener) stopAccepting() {
	l.ln.Close()
	l.accepting.Wait()
}

// Accept is tried again after errors such as EMFILE with growing pauses.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

func (l *tcpListener) run() {
	defer l.end.wg.Done()
	defer l.accepting.Done()
	pause := time.Duration(0)
	for {
		c, err := l.ln.AcceptTCP()
		if err == nil {
			pause = 0
			l.take(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if pause == 0 { // once for each row of errors
			l.s.r.log.Error("a TCP connection can't be accepted; idle ones are closed to make room", "address", l.end.addr.String(), "error", err)
		}
		pause = min(max(2*pause, acceptPauseMin), acceptPauseMax)
		l.s.evictOldest(nil)
		select {
		case <-time.After(pause):
		case <-l.s.done:
			return
		}
	}
}

// take is add; a panic in it ends that connection alone.
func (l *tcpListener) take(c *net.TCPConn) {
	defer func() {
		if v := recover(); v != nil {
			notePanic(l.s.r.log, v, "a new connection", nil)
			c.Close()
		}
	}()
	bug.Here("accept")
	l.s.add(c)
}

// add takes a new connection, and closes an old one if there are too many.
func (s *tcpServer) add(nc *net.TCPConn) {
	raw, err := nc.SyscallConn()
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	if err != nil || !ok {
		nc.Close()
		return
	}
	c := &tcpConn{s: s, accepted: time.Now().UnixNano(), conn: nc, raw: raw, host: remote.AddrPort().Addr().Unmap(),
		addr: mmsg.AddrFrom(remote.AddrPort()), wake: make(chan struct{}, 1)}
	c.active.Store(c.accepted)
	c.moved.Store(true) // it has not asked yet: those that were answered before it came make room first
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		nc.Close()
		return
	}
	victim := s.evictLocked(c)
	s.accepted++
	s.conns[c] = struct{}{}
	s.told.Store(int32(s.idleLocked() / (100 * time.Millisecond)))
	s.wg.Add(1)
	go c.run()
	if !s.sweeping {
		s.sweeping = true
		s.wg.Add(1)
		go s.sweep()
	}
	s.mu.Unlock()
	if victim != nil {
		victim.close()
	}
}

// evictLocked takes the connection that has to make room for c out of the count
// at once, so that the next one to come does not find it again; nil if there is
// room. The caller closes it.
func (s *tcpServer) evictLocked(c *tcpConn) *tcpConn {
	victim := s.victimLocked(c)
	if victim != nil {
		delete(s.conns, victim)
		s.evicted++
	}
	return victim
}

// victimLocked picks the connection that has to make room for c; nil if there
// is room. With c nil there is no room, and the host does not matter.
func (s *tcpServer) victimLocked(c *tcpConn) *tcpConn {
	sameHost := false
	if c != nil && len(s.conns) < s.limits.conns {
		if c.host.IsLoopback() || len(s.conns) < s.limits.perHost {
			return nil
		}
		n := 0
		for o := range s.conns {
			if o.host == c.host {
				n++
			}
		}
		if n < s.limits.perHost {
			return nil
		}
		sameHost = true
	}
	var oldest *tcpConn
	for o := range s.conns {
		if (!sameHost || o.host == c.host) && (oldest == nil || o.yields(oldest)) {
			oldest = o
		}
	}
	return oldest
}

// evictOldest closes the oldest idle connection, for want of descriptors.
func (s *tcpServer) evictOldest(c *tcpConn) {
	s.mu.Lock()
	victim := s.evictLocked(c)
	s.mu.Unlock()
	if victim != nil {
		victim.close()
	}
}

func (s *tcpServer) remove(c *tcpConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// idleLocked is the idle timeout in force: it shrinks in proportion when more
// than half of the connections are taken.
func (s *tcpServer) idleLocked() time.Duration {
	n, l := len(s.conns), &s.limits
	if s.leaving {
		return l.idleMin
	}
	if 2*n <= l.conns {
		return l.idle
	}
	return max(l.idleMin, l.idle*time.Duration(2*max(0, l.conns-n))/time.Duration(l.conns))
}

// sweep closes connections whose time is over. One timer for all is cheaper
// than deadlines, which would have to be moved with every query.
func (s *tcpServer) sweep() {
	defer s.wg.Done()
	ticker := time.NewTicker(s.limits.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		if !s.sweepOnce() {
			return
		}
	}
}

// sweepOnce looks at all connections once and reports whether there are any.
// After a panic there may be.
func (s *tcpServer) sweepOnce() (more bool) {
	more = true
	defer bug.Caught(s.r.log, "the look at TCP connections")
	bug.Here("sweep")
	conns, idle := s.toSweep()
	now := time.Now().UnixNano()
	for _, c := range conns {
		c.check(now, idle)
	}
	return len(conns) > 0
}

// toSweep returns all connections and their idle timeout. If there are none the
// sweeper ends.
func (s *tcpServer) toSweep() ([]*tcpConn, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeping = len(s.conns) > 0
	idle := s.idleLocked()
	s.told.Store(int32(idle / (100 * time.Millisecond)))
	return s.allLocked(), idle
}

// leave has connections closed as soon as they are idle for the shortest time.
func (s *tcpServer) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = true
	s.told.Store(int32(s.idleLocked() / (100 * time.Millisecond)))
}

func (s *tcpServer) allLocked() []*tcpConn { return slices.Collect(maps.Keys(s.conns)) }

func (s *tcpServer) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// awaitFirst waits for clients that have connected and not asked yet: their
// query is probably on its way, and none of theirs was answered so far.
func (s *tcpServer) awaitFirst(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	t := time.NewTicker(firstLook)
	defer t.Stop()
	for s.awaitsFirst() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// firstWait is how long a stop waits for the first query of a connection. All
// other queries are answered meanwhile.
const (
	firstWait = 300 * time.Millisecond
	firstLook = 5 * time.Millisecond
)

func (s *tcpServer) awaitsFirst() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if !c.moved.Load() && c.active.Load() == c.accepted && !c.isClosed() {
			return true
		}
	}
	return false
}

// stopReading takes no more queries. Replies to those taken can still be sent.
func (s *tcpServer) stopReading() {
	s.mu.Lock()
	s.stopped = true
	conns := s.allLocked()
	s.mu.Unlock()
	for _, c := range conns {
		c.look()
	}
}

// stop closes all connections and joins their goroutines.
func (s *tcpServer) stop() {
	close(s.done)
	s.mu.Lock()
	conns := s.allLocked()
	s.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
	s.wg.Wait()
}

func (s *tcpServer) stats() (conns int, accepted, evicted uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.accepted, s.evicted
}
