// Package prober finds out how the endpoints are. It runs their checks on a schedule, looks the
// candidates' host names up, holds the idle connections of watched endpoints, and hands all it
// finds to a Sink.
//
// Who owns what: Prober.mu guards the schedule (prober, target, schedule, watch), a running
// probe's goroutine owns that probe, the look-up goroutine owns the hosts, and one goroutine
// waits for the sockets of all (reactor). Stop joins every one of them.
//
// It is not for judging: what a sample means for an endpoint, and how often an endpoint is to be
// probed from now on, is the business of packages rank and engine. It never asks this host's own
// resolver. It runs on Linux only (epoll, TCP_INFO).
package prober

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// Sink takes what the prober finds. Its methods are called from many goroutines and must not
// block for long: a probe's slot is held meanwhile.
type Sink interface {
	Sample(rank.Sample)
	Addresses(Found)
}

// Target is one endpoint to be probed. Check and Pace are shared and never changed.
type Target struct {
	Key   rank.Key
	Check *config.Check
	Pace  *rank.Pace
	Watch bool // hold one idle connection; its break starts a probe at once
}

// Options are what New needs; all immutable.
type Options struct {
	Sink    Sink
	Lookup  Lookup // may be nil where no host names are ever set
	Log     *slog.Logger
	Version string // for the User-Agent, hard/VERSION

	// MaxInflight bounds the probes that run at one time; those beyond wait their turn, in
	// order, which shows as lag. Each costs a file descriptor and some 10 KiB. 0: half of what
	// the descriptor limit leaves, between 8 and 4096.
	MaxInflight int

	run     func(*probe) // what runs one probe; tests of the schedule set it
	virtual bool         // tests in a time of their own: no socket is waited for, the clock included
}

// Prober runs the checks. Make it with New, then Start; Stop ends it.
type Prober struct {
	// immutable
	o        Options
	log      *slog.Logger
	maxRuns  int
	seed     maphash.Seed // of the phase offsets: differs by process, so that hosts spread too
	base     time.Time    // zero of the schedule's clock
	net      *network
	http     *httpRunner
	trust    trust
	stalls   *stallMeter
	lookups  *lookups
	quit     chan struct{}
	clock    clock
	counters counters

	wg sync.WaitGroup // loop, running probes, watchers' events

	mu      sync.Mutex
	started bool
	stopped bool
	jobs    map[jobID]*job
	members map[rank.Key]*member
	names   map[string][]*member
	heap    queue[*job]
	ready   fifo // due, but the limit of running probes was reached
	running int
	idle    []*worker // the warmest last
	armed   moment    // what the timer waits for
	first   moment    // last planned first probe
}

// New makes a Prober that has nothing to do yet.
func New(o Options) *Prober {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Prober{
		o:       o,
		log:     o.Log,
		maxRuns: o.MaxInflight,
		seed:    maphash.MakeSeed(),
		base:    time.Now(),
		net:     &network{log: o.Log},
		stalls:  &stallMeter{},
		quit:    make(chan struct{}),
		jobs:    make(map[jobID]*job),
		members: make(map[rank.Key]*member),
		names:   make(map[string][]*member),
		armed:   moment(never),
	}
	if p.maxRuns <= 0 {
		p.maxRuns = defaultInflight()
	}
	p.http = newHTTPRunner(p.net)
	p.clock = newClock(p.net)
	if o.run != nil || o.virtual {
		p.clock = newClock(nil)
	}
	p.lookups = newLookups(o.Lookup, o.Sink.Addresses, p.log)
	if p.o.run == nil {
		p.o.run = p.check
	}
	return p
}

// defaultInflight leaves half of the descriptors to listeners, upstreams and the store.
func defaultInflight() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 256
	}
	return int(min(4096, max(8, (limit.Cur-min(limit.Cur, 32))/2)))
}

// Start begins to probe and to look up.
func (p *Prober) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started || p.stopped {
		return
	}
	p.started = true
	p.wg.Add(1)
	go p.loop()
	p.lookups.start()
	p.armLocked()
}

// Stop ends all probes and look-ups and joins their goroutines. Running probes end at once with
// the outcome Aborted, which still goes to the Sink. It returns ctx's error when that ends first.
func (p *Prober) Stop(ctx context.Context) error {
	p.mu.Lock()
	if !p.stopped {
		p.stopped = true
		p.clock.stop()
		close(p.quit)
		for _, j := range p.jobs {
			j.cancelLocked()
			p.unwatchLocked(j)
		}
	}
	p.mu.Unlock()
	joined := make(chan struct{})
	go func() {
		p.lookups.stop()
		p.wg.Wait()
		p.net.close()
		p.stalls.stop()
		close(joined)
	}()
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SetHosts replaces the whole set of candidate host names. Those that stay keep their schedule
// and what is known of them.
func (p *Prober) SetHosts(hosts []Host) { p.lookups.set(hosts) }

// Host is a candidate whose host names must be looked up.
type Host struct {
	Name, Candidate string
	Hosts           []string
	Known           []netip.Addr // from an earlier run: good until the first look-up has an answer
}

// Found is what the host names of one candidate resolve to. Addrs and Gone have no address in
// common.
type Found struct {
	Name, Candidate string
	Addrs           []netip.Addr // in DNS now, or as last known while Err is set
	Gone            []netip.Addr // have left DNS, but are still in their grace
	Err             error        // why the last look-up of one of the names failed; nil when all is well
	At              time.Time
}

// Lookup resolves one family of one host name, at the upstreams and never at this host's own
// resolver. No addresses and no error says that there are none (NODATA, NXDOMAIN). The slice is
// the caller's.
type Lookup interface {
	LookupAddrs(ctx context.Context, host string, v6 bool) (addrs []netip.Addr, ttl time.Duration, err error)
}
