// Package resolver is the DNS front end and the forwarder: everything between
// a client's query and its reply.
//
// The front end (this file, listen.go, udp.go, tcp.go, hold.go, counters.go)
// owns the sockets towards clients. Each UDP socket has one goroutine, which
// alone touches its buffers, query, rotation and counters; a TCP connection
// borrows one while there is something to do. They read the answer table through one atomic pointer,
// which Publish sets, and answer in place by answer.Table.Serve. What is not
// answered here goes to the forwarder (forward.go), which keeps a copy of the
// query and its asker, and replies from goroutines of its own.
//
// What is answered is not decided here: tables come from the engine. The bytes
// of replies are package wire's and package answer's.
package resolver

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/answer"
	"hard/internal/procs"
)

// Options are what New needs. All of it is immutable.
type Options struct {
	Listen    []netip.AddrPort // UDP and TCP on each; port 0 picks one (the same for both)
	Log       *slog.Logger
	Asked     func(slot int) // somebody asked for a name whose entry is marked Idle; must not block; may be nil
	LogQuery  bool           // one record per query, at level info
	Listeners int            // UDP sockets (SO_REUSEPORT) per address; 0 = GOMAXPROCS

	// Inherited are sockets that somebody else has bound. New takes them over, whether it fails or
	// not: those whose address is in Listen are used in place of new ones, the rest is closed.
	Inherited []*os.File
	// Unclaimed is told the addresses of those that are closed; may be nil.
	Unclaimed func(addrs []netip.AddrPort)
}

// UpstreamOptions is the forwarder's configuration; it can be swapped as a whole while serving.
type UpstreamOptions struct {
	Servers        []Server
	Routes         []Route
	AttemptTimeout time.Duration
	TotalTimeout   time.Duration
	Fastest        bool
	MaxInflight    int
	Cache          CacheOptions
	Self           []netip.AddrPort               // never forward to these
	SavedServers   []netip.AddrPort               // last good resolv.conf list, from the store
	SaveServers    func(servers []netip.AddrPort) // a new good resolv.conf list was read; may be nil
}

// CacheOptions is [cache].
type CacheOptions struct {
	Enabled    bool
	MaxEntries int
	ServeStale time.Duration
}

// ServerKind is how an upstream is spoken to.
type ServerKind uint8

// The kinds of upstreams.
const (
	Plain ServerKind = iota
	TCP
	TLS
	HTTPS
	ResolvConf
)

// Server is one upstream. See config.Server, which the daemon translates.
type Server struct {
	Text       string
	Kind       ServerKind
	Addr       netip.AddrPort
	ServerName string
	URL        string
	Path       string
}

// Route sends queries at and below Suffix (canonical text) to Servers; the longest match wins.
type Route struct {
	Suffix  string
	Servers []Server
}

// Resolver serves DNS on a set of addresses.
type Resolver struct {
	// Immutable.
	log       *slog.Logger
	asked     func(slot int)
	listeners int
	base      time.Time
	fwd       *forwarder
	held      *holds
	tcp       *tcpServer
	answers   *answer.Counters
	seats     *seats
	inherited *inheritance // empty once New has returned
	shared    [2]*counts   // UDP and TCP, of replies given by other goroutines than listeners': the forwarder's above all

	// Any goroutine.
	table    atomic.Pointer[answer.Table] // nil until the first Publish
	logQuery atomic.Bool
	stopping atomic.Bool

	countersMu sync.Mutex   // guards counters; taken after mu
	counters   [2][]*counts // UDP, TCP

	mu        sync.Mutex  // guards the rest
	endpoints []*endpoint // in the configuration's order
	retired   []*endpoint // given up, open for the last replies
	started   bool
	left      bool
	stopped   bool
}

// errStopped is what a stopped Resolver says.
var errStopped = errors.New("resolver is stopped")

// New binds every socket but does not read from them before Start. Errors name
// the address and, where it can be found, the program that holds it.
func New(o Options) (*Resolver, error) {
	r := &Resolver{
		log: o.Log, asked: o.Asked, listeners: o.Listeners, base: time.Now(),
		answers: new(answer.Counters), seats: newSeats(),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.listeners <= 0 {
		r.listeners = procs.Own()
	}
	r.shared = [2]*counts{r.newCounts(0), r.newCounts(1)}
	r.logQuery.Store(o.LogQuery)
	r.held = newHolds(r)
	r.tcp = newTCPServer(r)
	r.inherited = inherit(o.Inherited, r.log)
	eps, err := r.bindAll(o.Listen)
	if left := r.inherited.close(r.log); len(left) > 0 && o.Unclaimed != nil {
		o.Unclaimed(left)
	}
	if err != nil {
		return nil, err
	}
	r.endpoints = eps
	r.fwd = newForwarder(r)
	return r, nil
}

// Addrs are the addresses served, in the configuration's order.
func (r *Resolver) Addrs() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	addrs := make([]netip.AddrPort, 0, len(r.endpoints))
	for _, e := range r.endpoints {
		addrs = append(addrs, e.addr)
	}
	return addrs
}

// Publish puts t into force, from each listener's next batch on. Any goroutine
// may call it, before Start too.
func (r *Resolver) Publish(t *answer.Table) {
	r.table.Store(t)
	r.held.wake()
}

// SetLogQueries switches the logging of queries.
func (r *Resolver) SetLogQueries(on bool) { r.logQuery.Store(on) }

// Start begins to serve. Until the first Publish, queries are held as those of
// a name without any result are.
func (r *Resolver) Start() {
	if err := r.fwd.start(); err != nil {
		r.log.Error("no queries can be forwarded", "error", err)
	}
	r.held.start()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.stopped {
		return
	}
	r.started = true
	r.seats.start()
	for _, e := range r.endpoints {
		e.start()
	}
}

// Leave begins a stop for the case that somebody else has the same sockets: no
// more queries are read and no more connections accepted, which leaves those
// that wait to the others. Queries that were read get their replies, and clients
// that are connected are served until they are idle. Stop ends it.
func (r *Resolver) Leave() {
	r.mu.Lock()
	if r.stopped || r.left {
		r.mu.Unlock()
		return
	}
	r.left = true
	eps := slices.Concat(r.endpoints, r.retired)
	r.mu.Unlock()
	for _, e := range eps {
		e.stopReading()
	}
	r.tcp.leave()
}

// lingerLook is how often Linger looks whether anybody is left.
const lingerLook = 10 * time.Millisecond

// Linger waits, after Leave, until no client is connected and no query is held
// for its first verdict, or until ctx ends. What is forwarded, Stop waits for.
func (r *Resolver) Linger(ctx context.Context) {
	t := time.NewTicker(lingerLook)
	defer t.Stop()
	for {
		if conns, _, _ := r.tcp.stats(); conns == 0 && r.held.len() == 0 {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Stop takes no more connections, waits a moment for the first query of those
// that were just made, takes no more queries, answers those that are on their
// way, until ctx ends the wait for upstreams, and joins every goroutine.
func (r *Resolver) Stop(ctx context.Context) error {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return nil
	}
	r.stopped = true
	eps := slices.Concat(r.endpoints, r.retired)
	r.mu.Unlock()

	for _, e := range eps {
		e.tcp.stopAccepting()
	}
	r.tcp.awaitFirst(ctx)
	r.stopping.Store(true)
	for _, e := range eps {
		e.stopReading()
	}
	r.seats.stop()
	r.tcp.stopReading()
	r.held.stop()
	r.fwd.stop(ctx)
	r.tcp.stop()
	for _, e := range eps {
		e.close()
	}
	return nil
}

// sinceStart is a monotonic clock, above 0.
func (r *Resolver) sinceStart() time.Duration { return time.Since(r.base) + 1 }

// Ask answers one query as if it had come over TCP from this host. The error
// is ctx's or errStopped; a query that gets no answer ends with ctx.
func (r *Resolver) Ask(ctx context.Context, msg []byte) ([]byte, error) {
	if r.stopping.Load() {
		return nil, errStopped
	}
	c := &inProcess{r: r, replies: make(chan []byte, 1)}
	w := r.tcp.getWorker()
	if reply := w.answer(msg, asker{to: c, at: int64(r.sinceStart())}, c.transport()); reply > 0 {
		c.replies <- append([]byte(nil), w.out[2:2+reply]...)
	}
	r.tcp.putWorker(w)
	select {
	case m := <-c.replies:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
