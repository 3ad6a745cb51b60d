// Package admin is the operator's eyes and hands: the control API on a unix socket (control.go),
// and the read-only HTTP server on loopback with the status page, the metrics and the health
// checks (web.go).
//
// It owns its two listeners and the requests on them, and counts what the history alone knows
// (Meter). It decides nothing: what it shows is the engine's Snapshot, what it changes goes
// through Backend. No request here can hold up an answer.
package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// Backend is the daemon as this package needs it. All methods may be called from any goroutine.
type Backend interface {
	// Info are facts about the process.
	Info() Info
	// Config is the configuration in force.
	Config() *config.Config
	// Snapshot is the engine's state: of one configured name, or of all with "".
	Snapshot(ctx context.Context, name string) (engine.Snapshot, error)
	// Past is what was decided at a time for the first of some names that there was then. What can't
	// be known any more is an *Incomplete, a name that there was not engine.ErrNotFound.
	Past(ctx context.Context, names []string, at time.Time) (Past, error)
	// Force puts an override in force and stores it. stored tells why it is not safe on the
	// disk; it is in force all the same.
	Force(ctx context.Context, o engine.Override, force bool) (forced []engine.Override, stored, err error)
	// Probe runs one probe of an endpoint, outside its schedule and without consequences. ok is
	// false for an endpoint that does not exist.
	Probe(ctx context.Context, key rank.Key, trace bool) (s rank.Sample, lines []prober.TraceLine, ok bool)
	// Reload reads the configuration again. An error means that the one in force stays; where
	// the file was the reason, the report has the details.
	Reload(who string) (config.Report, error)
	// SetLevel changes the log level until the next reload or start.
	SetLevel(l slog.Level, who string)

	ResolverStats() resolver.Stats
	UpstreamStats() []resolver.UpstreamStat
	ProberStats() prober.Stats
	StoreStats() store.Stats
	// Counters of parts that have no other way to the metrics.
	Extra() Extra
}

// Info are facts about the running process.
type Info struct {
	Version    string
	PID        int
	Started    time.Time
	DNS        []netip.AddrPort // where DNS is served
	Level      slog.Level       // of the log
	Ready      bool             // the first table is published, and we are not stopping
	Reloaded   time.Time        // last good load of the configuration
	ReloadFail string           // why the last reload failed; "" = it didn't
}

// Extra are counters of small parts.
type Extra struct {
	Panics      uint64 // caught, of this process
	LogDropped  uint64 // log lines lost because nobody took them
	HookSent    uint64
	HookFailed  uint64
	HookDropped uint64
}

// Options are what New needs; all immutable.
type Options struct {
	Backend Backend
	Meter   *Meter // may be nil
	Log     *slog.Logger
}

// Server is both servers. Make it with New; Apply starts and changes its listeners, Stop ends it.
type Server struct {
	// immutable
	o       Options
	log     *slog.Logger
	metrics http.Handler
	probes  chan struct{} // one element for each probe that runs
	pasts   chan struct{} // one element while the past is rebuilt
	health  healthCheck

	mu      sync.Mutex // guards the rest
	control *keeper    // nil: off
	web     *keeper
	leaving sync.WaitGroup // keepers that Apply has replaced
	stopped bool
}

// New makes a Server that does not listen yet.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = NewMeter()
	}
	s := &Server{o: o, log: o.Log, probes: make(chan struct{}, maxProbes), pasts: make(chan struct{}, 1)}
	s.metrics = s.newMetrics()
	return s
}

// Apply listens where l says, and no longer where an earlier call said something else. It waits for each
// first attempt, but not for long (firstWait), and it can't fail: what can't be listened on is logged and tried again.
func (s *Server) Apply(l config.Listen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.control = s.replaceLocked(s.control, l.Control, func() *keeper { return newControl(s, l.Control) })
	s.web = s.replaceLocked(s.web, l.HTTP, func() *keeper { return newWeb(s, l.HTTP) })
}

// replaceLocked ends a keeper whose address is another one now and starts its successor. The old
// one leaves in the background: the request that asked for the reload may be one of its own.
func (s *Server) replaceLocked(old *keeper, address string, make func() *keeper) *keeper {
	if old != nil && old.address == address {
		return old
	}
	if old != nil {
		s.leaving.Go(func() { old.stop(context.Background()) })
	}
	if address == "" {
		return nil
	}
	k := make()
	k.start()
	return k
}

// Stop ends both servers. Running requests have a moment to end, until ctx does at the most.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	keepers := []*keeper{s.control, s.web}
	s.control, s.web = nil, nil
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range keepers {
		if k != nil {
			wg.Go(func() { k.stop(ctx) })
		}
	}
	wg.Wait()
	s.leaving.Wait()
}

// HTTPAddr is where the loopback server listens now; invalid while it does not.
func (s *Server) HTTPAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.web == nil {
		return netip.AddrPort{}
	}
	return s.web.addr()
}
