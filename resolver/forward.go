package resolver

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/procs"
)

// The forwarder passes queries on to upstreams and replies back, and touches
// as little of them as it may (contract section 4). Its work is spread over
// lanes by the question's name; each lane is a small machine behind one lock,
// with its own sockets, timers and tables (forward_lane.go). What all lanes
// share is immutable (upConf) or a few atomics for each upstream (health).
//
// Lock order: forwarder.mu, then lane.mu, then the locks of streams and cache.
type forwarder struct {
	// Immutable.
	log       *slog.Logger
	lanes     []*lane
	base      time.Time
	roots     *x509.CertPool // nil = the host's; tests have their own
	confPaths []string       // of "resolv.conf"
	done      chan struct{}  // closed by stop
	probeKick chan struct{}
	drained   chan struct{} // a lane has become empty while stopping
	canary    *canaries

	// Any goroutine.
	conf      atomic.Pointer[upConf]
	lastReply atomic.Int64 // of a non-loopback upstream; this clock's nanoseconds, 0 = never
	lastQuery atomic.Int64
	stopping  atomic.Bool
	loops     atomic.Uint64
	jostled   atomic.Uint64
	waiting   atomic.Int64 // clients that wait, of all lanes

	wg sync.WaitGroup // prober, network watch, lanes

	mu       sync.Mutex // guards the configuration's change and what follows
	opts     UpstreamOptions
	watchers map[string]*confWatcher // by Server.Path
	lists    map[string][]netip.AddrPort
	started  bool
	stopped  bool
}

const (
	maxLanes        = 8
	maxSetSize      = 32 // upstreams of one set: the width of flight.tried
	defaultAttempt  = 1500 * time.Millisecond
	defaultTotal    = 4 * time.Second
	defaultInflight = 4096
)

// newForwarder makes the forwarder of r, without upstreams.
func newForwarder(r *Resolver) *forwarder {
	return makeForwarder(r.log, min(procs.Own(), maxLanes))
}

func makeForwarder(log *slog.Logger, lanes int) *forwarder {
	f := &forwarder{
		log: log, base: time.Now(), confPaths: resolvConfPaths,
		done: make(chan struct{}), probeKick: make(chan struct{}, 1), drained: make(chan struct{}, 1),
		canary:   newCanaries(),
		watchers: make(map[string]*confWatcher), lists: make(map[string][]netip.AddrPort),
	}
	for i := range lanes {
		f.lanes = append(f.lanes, newLane(f, i))
	}
	return f
}

// now is nanoseconds of a monotonic clock that began, above 0, with f.
func (f *forwarder) now() int64 { return int64(time.Since(f.base)) + 1 }

func (f *forwarder) wallTime(at int64) time.Time { return f.base.Add(time.Duration(at)) }

// start begins to forward. It fails only for want of file descriptors.
func (f *forwarder) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lanes {
		if err := l.start(); err != nil {
			for _, m := range f.lanes {
				m.stop()
			}
			return fmt.Errorf("forwarder: %w", err)
		}
	}
	f.started = true
	for path, w := range f.watchers {
		w.start(func(s []netip.AddrPort) { f.listChanged(path, s) })
	}
	f.wg.Add(2)
	go f.runProber()
	go f.watchNetwork()
	return nil
}

// stop waits for the queries on their way until ctx ends, then answers the
// rest with SERVFAIL, and joins everything that start began.
func (f *forwarder) stop(ctx context.Context) {
	f.stopping.Store(true)
	f.drain(ctx)
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return
	}
	f.stopped = true
	watchers := f.watchers
	f.watchers = nil
	started := f.started
	f.mu.Unlock()

	for _, w := range watchers {
		w.stop()
	}
	close(f.done)
	if started {
		f.wg.Wait()
	}
	for _, l := range f.lanes {
		l.stop()
	}
	if c := f.conf.Load(); c != nil {
		for _, u := range c.all {
			u.stream.close()
		}
	}
}

func (f *forwarder) drain(ctx context.Context) {
	for {
		n := 0
		for _, l := range f.lanes {
			l.mu.Lock()
			n += l.inflight
			l.mu.Unlock()
		}
		if n == 0 {
			return
		}
		select {
		case <-f.drained:
		case <-ctx.Done():
			return
		}
	}
}

// LastReply is when a non-loopback upstream last replied; zero = never.
func (f *forwarder) LastReply() time.Time {
	if at := f.lastReply.Load(); at > 0 {
		return f.wallTime(at)
	}
	return time.Time{}
}

// guard runs fn and turns a panic into a count and a log line: a bug in the
// handling of one event must not end the process (fault 20).
func (f *forwarder) guard(fn func() int64) (next int64) {
	next = int64(time.Second)
	defer f.recovered()
	return fn()
}

// recovered is deferred around the handling of one event.
func (f *forwarder) recovered() {
	if v := recover(); v != nil {
		notePanic(f.log, v, "the forwarder", nil)
	}
}
