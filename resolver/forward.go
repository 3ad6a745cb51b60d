package resolver

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/wire"
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
	panics    atomic.Uint64
	loops     atomic.Uint64
	jostled   atomic.Uint64

	wg sync.WaitGroup // prober, network watch, lanes

	mu       sync.Mutex // guards the configuration's change and what follows
	opts     UpstreamOptions
	watchers map[string]*confWatcher // by Server.Path
	lists    map[string][]netip.AddrPort
	started  bool
	stopped  bool
}

// upConf is one configuration of the forwarder. Immutable.
type upConf struct {
	all     []*upstream // each once
	main    *upSet
	routes  []route // longest suffix first
	fastest bool
	attempt int64 // nanoseconds
	total   int64
	perLane int // queries waiting in each lane
	cache   *cache
}

// upSet is an ordered list of upstreams that stand for one another.
type upSet struct{ ups []*upstream }

// route sends the names at and below suffix, a lower-case wire name, to set.
type route struct {
	suffix []byte
	set    *upSet
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
	return makeForwarder(r.log, min(runtime.GOMAXPROCS(0), maxLanes))
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

// SetUpstreams replaces the whole configuration of upstreams. Queries on their
// way end as they began; upstreams that stay keep their health and connections.
func (f *forwarder) SetUpstreams(o UpstreamOptions) error {
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		return context.Canceled
	}
	old := f.watchers
	f.opts = o
	f.watchers = make(map[string]*confWatcher)
	f.lists = make(map[string][]netip.AddrPort)
	for _, list := range serverLists(&o) {
		for _, s := range list {
			if s.Kind != ResolvConf || f.watchers[s.Path] != nil {
				continue
			}
			paths := f.confPaths
			if s.Path != "" {
				paths = []string{s.Path}
			}
			w := newConfWatcher(f.log, paths, o.Self, o.SavedServers)
			f.watchers[s.Path], f.lists[s.Path] = w, w.servers
			if f.started {
				w.start(func(list []netip.AddrPort) { f.listChanged(s.Path, list) })
			}
			if w.source != "" && w.source != lastGoodList && o.SaveServers != nil {
				o.SaveServers(slices.Clone(w.servers))
			}
		}
	}
	dropped, err := f.rebuildLocked()
	f.mu.Unlock()
	for _, w := range old { // not under mu: it may be waiting for it in onList
		w.stop()
	}
	f.dropUpstreams(dropped)
	f.kickProber()
	return err
}

// listChanged takes a new list of a resolv.conf file into use.
func (f *forwarder) listChanged(path string, servers []netip.AddrPort) {
	f.mu.Lock()
	if f.stopped || f.watchers[path] == nil {
		f.mu.Unlock()
		return
	}
	f.lists[path] = slices.Clone(servers)
	save := f.opts.SaveServers
	dropped, err := f.rebuildLocked()
	f.mu.Unlock()
	if err != nil {
		f.log.Error("upstreams", "err", err)
	}
	f.dropUpstreams(dropped)
	f.kickProber()
	if save != nil {
		save(slices.Clone(servers))
	}
}

// rebuildLocked publishes the configuration made of f.opts and f.lists, and
// returns the upstreams that are no longer in it.
func (f *forwarder) rebuildLocked() (dropped []*upstream, err error) {
	o := &f.opts
	before := f.conf.Load()
	c := &upConf{
		fastest: o.Fastest,
		attempt: int64(orDefault(o.AttemptTimeout, defaultAttempt)),
		total:   int64(orDefault(o.TotalTimeout, defaultTotal)),
	}
	inflight := o.MaxInflight
	if inflight <= 0 {
		inflight = defaultInflight
	}
	c.perLane = max(1, (inflight+len(f.lanes)-1)/len(f.lanes))
	known := make(map[string]*upstream)
	if before != nil {
		for _, u := range before.all {
			known[u.dests] = u
		}
		c.cache = before.cache.forOptions(o.Cache)
	} else {
		c.cache = (*cache)(nil).forOptions(o.Cache)
	}
	used := make(map[string]*upstream)
	c.main = f.makeSet(c, o.Servers, known, used)
	for _, r := range o.Routes {
		suffix, err := wire.AppendName(nil, r.Suffix)
		if err != nil {
			return nil, fmt.Errorf("route %q: %w", r.Suffix, err)
		}
		c.routes = append(c.routes, route{suffix, f.makeSet(c, r.Servers, known, used)})
	}
	slices.SortStableFunc(c.routes, func(a, b route) int { return len(b.suffix) - len(a.suffix) })
	for key, u := range known {
		if used[key] != u {
			dropped = append(dropped, u)
		}
	}
	f.conf.Store(c)
	return dropped, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

func serverLists(o *UpstreamOptions) [][]Server {
	lists := [][]Server{o.Servers}
	for _, r := range o.Routes {
		lists = append(lists, r.Servers)
	}
	return lists
}

// makeSet finds or makes the upstreams of one list.
func (f *forwarder) makeSet(c *upConf, list []Server, known, used map[string]*upstream) *upSet {
	set := &upSet{}
	add := func(s Server) {
		key := serverKey(s)
		u := used[key]
		if u == nil {
			self := s.Kind != HTTPS && isSelf(s.Addr, f.opts.Self)
			if u = known[key]; u == nil || u.self != self {
				u = f.newUpstream(s, self)
				if self {
					f.log.Warn("upstream is ourselves; not used", "upstream", u.text)
				}
			}
			used[key] = u
			c.all = append(c.all, u)
		}
		if len(set.ups) < maxSetSize && !slices.Contains(set.ups, u) {
			set.ups = append(set.ups, u)
		}
	}
	for _, s := range list {
		if s.Kind != ResolvConf {
			add(s)
			continue
		}
		for _, ap := range f.lists[s.Path] {
			add(plainServer(ap))
		}
	}
	return set
}

// dropUpstreams lets go of what upstreams outside the configuration hold, as
// soon as the queries that are on their way by the old one have ended.
func (f *forwarder) dropUpstreams(dropped []*upstream) {
	for _, u := range dropped {
		for _, l := range f.lanes {
			l.mu.Lock()
			l.dropPool(u)
			l.mu.Unlock()
		}
		u.stream.reset()
	}
	if len(dropped) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	patience := orDefault(f.opts.TotalTimeout, defaultTotal) + time.Second
	if f.stopped || !f.started {
		patience = 0
	} else {
		f.wg.Add(1)
	}
	closeAll := func() {
		for _, u := range dropped {
			u.stream.close()
			for _, l := range f.lanes { // retries may have opened more
				l.mu.Lock()
				l.dropPool(u)
				l.mu.Unlock()
			}
		}
	}
	if patience == 0 {
		closeAll()
		return
	}
	go func() {
		defer f.wg.Done()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-f.done:
		}
		closeAll()
	}()
}

// setFor returns the upstreams for a lower-case wire name.
func (c *upConf) setFor(name []byte) *upSet {
	for i := range c.routes {
		if wire.Below(name, c.routes[i].suffix) {
			return c.routes[i].set
		}
	}
	return c.main
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
		f.panics.Add(1)
		f.log.Error("panic in the forwarder", "panic", v, "stack", string(debug.Stack()))
	}
}
