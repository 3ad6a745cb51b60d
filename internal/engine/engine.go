// Package engine turns probe results into the answer table. One goroutine owns all ranking state:
// the health of every endpoint, what each name last decided, which addresses candidates have, and
// the local-fault guard. Everything reaches it by channel and leaves it through the small
// interfaces below.
//
// It decides nothing itself (package rank does) and does no I/O: it is not for probing, serving
// or storing.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
)

// Publisher takes each new answer table. It is called by the engine's goroutine alone.
type Publisher interface{ Publish(*answer.Table) }

// Prober runs the checks the engine wants run. No call may wait for a probe.
type Prober interface {
	// SetName replaces all checks of one name; nil removes them.
	SetName(name string, checks []Check)
	// SetHosts replaces the candidate host names to be looked up.
	SetHosts(hosts []Host)
	// SetInterval changes the pace of one endpoint's probes.
	SetInterval(key rank.Key, every time.Duration)
	// ProbeNow starts the probes of these endpoints at once, where none runs.
	ProbeNow(keys []rank.Key)
}

// Recorder keeps history. No call may wait for a disk.
type Recorder interface {
	Record(rank.Sample)
	Event(Event)
	Answer(AnswerChange)
	Current([]EndpointState)
	Forget([]rank.Key)
	Memory(name string, m rank.Memory)
	Addresses(host HostKey, addrs []netip.Addr)
	// Input and Checkpoint are what, with the samples, the past is rebuilt from: see Player. What
	// they are given is never changed afterwards.
	Input(Input)
	Checkpoint(*Checkpoint)
}

// Check is one endpoint to be probed.
type Check struct {
	Key   rank.Key
	Check *config.Check
	Pace  *rank.Pace
	Watch bool
}

// HostKey names the addresses of one candidate.
type HostKey struct{ Name, Candidate string }

// Host is a candidate whose host names must be looked up. Known are addresses from an earlier
// run, good until the first look-up has an answer.
type Host struct {
	HostKey
	Hosts []string
	Known []netip.Addr
}

// Options are what New needs; all immutable.
type Options struct {
	Config    *config.Config
	Saved     Saved
	Publisher Publisher
	Prober    Prober
	Recorder  Recorder
	OwnAddrs  func() []netip.Addr // this host's addresses; may be nil
	LastReply func() time.Time    // last reply from an upstream that is not on loopback
	Log       *slog.Logger
	Now       func() time.Time
}

// coalesce is how long changes that nobody waits for may be gathered before the table is
// published: a burst of first verdicts then costs one table, not thousands. What went down is
// published at once.
const coalesce = 5 * time.Millisecond

// Engine owns the ranking state. Make it with New, then Start; Stop ends it.
type Engine struct {
	// immutable
	o       Options
	log     *slog.Logger
	samples chan rank.Sample
	calls   chan func()
	asked   chan int
	done    chan struct{} // closed when run has returned
	quit    chan struct{}
	stop    sync.Once

	// owned by run's goroutine once Start was called, by the caller of New before
	names     []*name // by slot
	addrs     map[HostKey]found
	overrides map[overrideKey]Override
	index     *answer.Index
	table     *answer.Table
	changes   []answer.Change
	scratch   []rank.Endpoint // for view
	room      rank.Room       // for decide
	spec      answer.Spec     // for specOf
	hosts     []HostKey       // by number: see number
	published time.Time       // by Options.Now, with its monotonic part
	urgent    bool
	wake      wakeQueue
	guard     guard
	current   currentRows
	started   bool
	ended     bool // quit was seen
	succeeds  bool // its state is a running instance's
	clock     clock
	expires   time.Time // when the next override ends; zero when none does
	reply     reply
	hash      string    // of the configuration in force
	noted     time.Time // the last checkpoint
}

// New builds the state of a configuration and publishes its first table.
func New(o Options) (*Engine, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &Engine{
		o:       o,
		log:     o.Log,
		samples: make(chan rank.Sample, 1024),
		calls:   make(chan func()),
		asked:   make(chan int, 256),
		done:    make(chan struct{}),
		quit:    make(chan struct{}),
		addrs:   make(map[HostKey]found),
	}
	now := e.begin()
	e.restoreAddresses()
	e.restoreOverrides(now)
	if err := e.apply(o.Config, now); err != nil {
		return nil, err
	}
	e.forgetStrangers()
	e.succeeds = o.Saved.Live
	e.o.Saved, e.o.Config = Saved{}, nil // all taken over; a reload shall not keep the first configuration alive
	if !e.succeeds {
		e.checkpoint("start", now)
	}
	return e, nil
}

// Start hands the checks to the prober and begins to take samples. Where we replace an instance
// that has decided until now, the history of ours begins here.
func (e *Engine) Start() {
	if e.succeeds {
		e.checkpoint("start", e.begin())
	}
	go e.run()
}

// Stop ends the engine's goroutine after the samples that already wait. Sample and Addresses
// return at once from then on.
func (e *Engine) Stop() {
	e.stop.Do(func() { close(e.quit) })
	<-e.done
}

// Sample takes one probe result. Safe from any goroutine.
func (e *Engine) Sample(s rank.Sample) {
	select {
	case e.samples <- s:
	case <-e.quit:
	}
}

// Addresses takes what a candidate's host names resolve to now; gone are addresses that have
// left DNS and are kept for their grace. ok is false when the look-up failed and addrs are
// what was known before.
func (e *Engine) Addresses(host HostKey, addrs, gone []netip.Addr, ok bool) {
	e.send(func() { e.setAddresses(host, found{addrs: addrs, gone: gone, resolved: ok}, e.begin()) })
}

// Asked says that somebody asked for the name in this slot of the table. It never blocks.
func (e *Engine) Asked(slot int) {
	select {
	case e.asked <- slot:
	default: // a full queue means that the engine is about to look anyway
	}
}

// Apply swaps the configuration: names and endpoints that stay keep their health, memory and
// schedule. An error leaves everything as it was.
func (e *Engine) Apply(ctx context.Context, c *config.Config) error {
	var err error
	if cerr := e.lend(ctx, func() { err = e.reload(c, e.begin()) }); cerr != nil {
		return cerr
	}
	return err
}

// lend is call, but f runs on the caller's goroutine while the engine's stands still: for long
// work, which the caller may want to do at a priority of its own.
func (e *Engine) lend(ctx context.Context, f func()) error {
	granted, given := make(chan struct{}), make(chan struct{})
	select {
	case e.calls <- func() { close(granted); <-given }:
	case <-e.quit:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	<-granted
	defer close(given)
	f()
	return nil
}

// send hands f to the engine's goroutine without waiting for its end.
func (e *Engine) send(f func()) {
	select {
	case e.calls <- f:
	case <-e.quit:
	}
}

// call runs f on the engine's goroutine and waits for its end.
func (e *Engine) call(ctx context.Context, f func()) error {
	var err error // of a panic; written before ran is closed
	ran := make(chan struct{})
	select {
	case e.calls <- func() { defer close(ran); err = errBug; f(); err = nil }:
	case <-e.quit:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
	<-ran
	return err
}

// errBug is what a caller gets whose call ended in a panic.
var errBug = errors.New("a bug of hard's, see its log")
