package prober

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/bug"
	"hard/internal/rank"
)

// Times of watched connections. A peer that vanished without a word is found after keepIdle and
// some unanswered keepInterval, about 4 s: later than by its probes, but the probes may be slow.
const (
	keepIdle     = 2 // seconds without traffic before the first keepalive
	keepInterval = 1 // seconds between unanswered ones
	userTimeout  = 4 * time.Second

	// A broken connection is made anew after firstReconnect, doubling up to lastReconnect
	// while connections don't live for longLife: a server that closes idle connections costs a
	// probe for each, one that closes all at once hardly more.
	firstReconnect = 100 * time.Millisecond
	lastReconnect  = 30 * time.Second
	longLife       = 2 * time.Second
)

// watcher holds one idle connection to a job's endpoint. Its break starts a probe at once; a
// probe that then finds a refusal is followed by as many more as the threshold fall wants, back to
// back, so that break plus refusal is down at once and still every miss was seen, none presumed.
//
// It costs a descriptor and no goroutine. Everything is guarded by Prober.mu.
type watcher struct {
	p       *Prober
	j       *job
	conn    *watchConn // nil: none now
	up      bool       // conn is connected
	failed  bool       // the last attempt to connect failed
	since   moment     // conn is up since
	backoff time.Duration
	retry   *time.Timer
	closed  bool
}

// watchConn is one connection of a watcher; the reactor's handle on it.
type watchConn struct {
	w  *watcher
	r  *reactor
	fd int
}

// watchLocked makes a job watched or not, as its members want.
func (p *Prober) watchLocked(j *job) {
	want := !p.stopped && usesTCP(j.check) && slices.ContainsFunc(j.members, func(m *member) bool { return m.watch })
	switch {
	case want && j.watch == nil:
		j.watch = &watcher{p: p, j: j, backoff: firstReconnect}
		j.watch.connectLocked()
	case !want:
		p.unwatchLocked(j)
	}
}

// unwatchLocked ends the watch of a job.
func (p *Prober) unwatchLocked(j *job) {
	w := j.watch
	if w == nil {
		return
	}
	j.watch = nil
	w.closed = true
	w.dropLocked()
	if w.retry != nil {
		w.retry.Stop()
	}
}

// reconnectLocked makes the connection anew when a probe succeeds after attempts have failed.
func (p *Prober) reconnectLocked(j *job, outcome rank.Outcome) {
	if w := j.watch; w != nil && w.conn == nil && w.failed && outcome == rank.OK {
		w.backoff = firstReconnect
		w.connectLocked()
	}
}

// connectLocked starts to connect; the reactor tells how it went.
func (w *watcher) connectLocked() {
	if w.closed || w.conn != nil {
		return
	}
	c, err := w.open()
	if err != nil {
		w.failed = true
		w.retryLocked()
		return
	}
	w.conn = c
	if err := c.r.add(c.fd, unix.EPOLLOUT|unix.EPOLLRDHUP, c); err != nil {
		w.lostLocked()
	}
}

func (w *watcher) open() (*watchConn, error) {
	r, err := w.p.net.get()
	if err != nil {
		return nil, err
	}
	addr, check := w.j.id.addr, w.j.check
	fd, err := openSocket(addr, check.Source, false)
	if err != nil {
		return nil, err
	}
	// A watched connection is closed in an orderly way; there are few.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	if err := startConnect(fd, addr, port(check)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &watchConn{w, r, fd}, nil
}

// event is the reactor's call: connected, or broken. It may not wait for Prober.mu.
func (c *watchConn) event(events uint32) {
	c.w.p.wg.Add(1) // Stop takes the connection out of the reactor before it waits
	go func() {
		defer c.w.p.wg.Done()
		defer bug.Caught(c.w.p.log, "a watched connection")
		c.w.p.mu.Lock()
		defer c.w.p.mu.Unlock()
		if c.w.conn == c {
			c.w.eventLocked(events)
		}
	}()
}

func (w *watcher) eventLocked(events uint32) {
	broken := events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0
	switch {
	case !broken && !w.up:
		w.up, w.failed, w.since = true, false, w.p.now()
		// Only the end is of interest; a banner stays unread.
		if err := w.conn.r.rearm(w.conn.fd, unix.EPOLLRDHUP); err != nil {
			w.lostLocked()
		}
	case w.up:
		w.lostLocked()
		w.suspectLocked()
	default:
		w.failed = true
		w.lostLocked()
	}
}

// suspectLocked probes at once because the connection broke.
func (w *watcher) suspectLocked() {
	p, j := w.p, w.j
	for _, m := range j.members {
		j.burst = max(j.burst, m.pace.Fall-1)
	}
	if j.running || j.waiting {
		j.again = true // that one may have seen the time before the break
		return
	}
	p.heap.set(j, p.now())
	p.armLocked()
}

// lostLocked gives the connection up and plans the next one.
func (w *watcher) lostLocked() {
	if w.up && w.p.now().sub(w.since) >= longLife {
		w.backoff = firstReconnect
	}
	w.dropLocked()
	w.retryLocked()
}

func (w *watcher) dropLocked() {
	if c := w.conn; c != nil {
		c.r.forget(c.fd)
		unix.Close(c.fd)
	}
	w.conn, w.up = nil, false
}

func (w *watcher) retryLocked() {
	if w.closed {
		return
	}
	d := w.backoff
	w.backoff = min(2*w.backoff, lastReconnect)
	if w.retry != nil {
		w.retry.Reset(d)
		return
	}
	w.retry = time.AfterFunc(d, func() {
		defer bug.Caught(w.p.log, "a watched connection")
		w.p.mu.Lock()
		defer w.p.mu.Unlock()
		w.connectLocked()
	})
}
