// Package daemon puts the parts together: ordered start, reload, ordered stop. Tests run a
// Daemon; cmd/hard only adds flags and signals.
//
// It owns the parts and nothing else: no policy, no packet and no row is made here.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hard/internal/bug"
	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/handover"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// loadWait bounds how long a start waits for the stored state. Beyond it the start is a cold one:
// the database must never keep a host without names.
const loadWait = 2 * time.Second

// Options are what Start needs besides the configuration.
type Options struct {
	Load      func() (*config.Config, config.Report) // reads the configuration anew, for Reload
	Log       *slog.Logger
	Level     *slog.LevelVar // the logger's, so that a reload can change it
	LevelFlag string         // -l, which wins over the file
	Version   string
	Cold      bool // ignore the stored state; what operators forced stays in force

	Manager  *handover.Manager // the service manager; may be nil
	TakeOver string            // take over from the instance that waits on this socket; empty: from nobody
	// Bound is called once, when the sockets are bound and nothing else is open yet: the time to
	// give up the rights to bind. An error ends the start; may be nil.
	Bound func(sockets []resolver.Socket) error
}

// Daemon is one running instance.
type Daemon struct {
	// immutable
	o        Options
	log      *slog.Logger
	resolver *resolver.Resolver
	store    *store.Store
	prober   *prober.Prober
	engine   *engine.Engine
	sight    sight // admin.go
	trimmer  *trimmer
	watchdog *watchdog // nil: nobody wants one
	succ     succession

	ending  atomic.Bool                      // Stop, or a successor, has begun to end this instance
	servers atomic.Pointer[[]netip.AddrPort] // the last good list of resolv.conf

	reloading sync.Mutex       // one reload at a time, and none while a successor prepares
	config    *config.Config   // the one in force; guarded by reloading
	kept      []netip.AddrPort // addresses whose sockets the service manager may have; guarded by reloading
}

// Start brings everything up in an order in which nothing waits for what may be broken: sockets
// first, so that a second instance fails before it has written anything; then the stored state;
// then the first table; then the listeners answer, and only now probes begin. The only fatal
// error is a DNS listener that can't be had.
//
// Where we take over from a running instance, the sockets and the state are its, and it answers
// until we do; it is the last that could fail us: from then on we are alone.
func Start(c *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{o: o, log: o.Log, config: c}
	began := time.Now()
	before, r, err := d.listen(c)
	if err != nil {
		return nil, err
	}
	defer before.close() // unless it is released by then
	d.resolver = r
	if err := d.bound(); err != nil {
		return nil, errors.Join(err, d.abandon())
	}
	_, err = os.Stat(c.Store.Path)
	fresh := errors.Is(err, fs.ErrNotExist)
	d.store = store.Open(store.Options{
		Path: c.Store.Path, RawFor: c.Store.RawFor, RollupFor: c.Store.RollupFor, MaxSize: c.Store.MaxSize,
		Log: o.Log, Successor: before != nil,
	})
	saved, servers := d.load(before, fresh)
	d.servers.Store(&servers)
	d.openSight(c)

	d.prober = prober.New(prober.Options{Sink: sink{d}, Lookup: r, Log: o.Log, Version: o.Version})
	d.engine, err = engine.New(engine.Options{
		Config: c, Saved: saved, Publisher: r, Prober: checks{d.prober}, Recorder: witness{history{d.store}, d.sight.meter, d.sight.hook},
		OwnAddrs: ownAddrs, LastReply: r.LastReply, Log: o.Log,
	})
	if err == nil {
		err = r.SetUpstreams(d.upstreams(c))
	}
	if err != nil {
		return nil, errors.Join(err, d.abandon())
	}
	r.Start()
	if err := before.serving(); err != nil {
		return nil, errors.Join(err, d.abandon())
	}
	d.prober.Start()
	d.engine.Start()
	d.keep(c) // now that we answer: it takes some time
	d.store.Event(store.Event{At: time.Now(), Kind: "start", New: o.Version, Reason: before.reason()})
	o.Log.Info("serving", "listen", r.Addrs(), "names", len(c.Names), "config", c.File,
		"version", o.Version, "after", time.Since(began).Round(time.Microsecond))
	d.warnBeside()
	d.trimmer = newTrimmer(o.Log)
	d.show(before)
	d.reportStart()
	return d, nil
}

// listen binds the sockets, or gets them from whoever has them.
func (d *Daemon) listen(c *config.Config) (*predecessor, *resolver.Resolver, error) {
	given := d.o.Manager.Sockets()
	d.succ.init()
	for until := time.Now().Add(busyTime); ; time.Sleep(takePause) {
		before, err := d.takeOver()
		if err != nil {
			handover.CloseAll(given)
			return nil, nil, err
		}
		r, err := resolver.New(resolver.Options{
			Listen: c.Listen.DNS, Log: d.log, LogQuery: c.Log.Queries,
			Asked:     func(slot int) { d.engine.Asked(slot) },
			Inherited: append(before.sockets(), given...), Unclaimed: d.unkept,
		})
		if err == nil {
			return before, r, nil
		}
		before.close()
		// Nobody gives the sockets, and yet somebody has them: an instance that takes over itself
		// just now, and will listen to us when it has.
		if d.o.TakeOver == "" || before != nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(until) {
			return nil, nil, err
		}
		given = nil
	}
}

// keep stores the text of a configuration, without which what was decided under it can't be
// explained later; not its secrets, which many more may read there. It is the last to need the text.
func (d *Daemon) keep(c *config.Config) {
	d.store.PutConfig(c.Hash, config.Redacted(c.Text))
	c.Text = ""
}

// abandon gives back what a failed start took.
func (d *Daemon) abandon() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := d.resolver.Stop(ctx)
	if d.store != nil {
		err = errors.Join(err, d.store.Close(ctx))
	}
	return err
}

// load reads what the last run stored, or what a running instance has handed over. fresh: there was no
// database, so that nobody need wait until there is one.
func (d *Daemon) load(before *predecessor, fresh bool) (engine.Saved, []netip.AddrPort) {
	if before != nil {
		return before.saved(d.o.Cold)
	}
	if fresh {
		return engine.Saved{}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), loadWait)
	defer cancel()
	s, err := d.store.Load(ctx)
	if err != nil {
		d.log.Info("no stored state, a cold start", "error", err)
		return engine.Saved{}, nil
	}
	saved := savedState(s)
	if d.o.Cold {
		saved = saved.Cold()
	}
	return saved, s.Resolvers
}

// answerTime is what a stop leaves for the answers on their way.
const answerTime = time.Second

// Stop ends everything, answering last: queries are answered until all the rest has ended, so that
// whoever comes after us finds few that wait. First go those who look on and interfere, then probes,
// the engine with what still waits for it, the hooks, and the history, flushed. ctx bounds it.
func (d *Daemon) Stop(ctx context.Context) error {
	if !d.ending.CompareAndSwap(false, true) {
		return d.succ.hurry(ctx) // a successor has our sockets
	}
	d.tell(d.o.Manager.Stopping("stopping"))
	d.sight.stopping.Store(true)
	d.stopWaiting()
	d.trimmer.stop()
	d.watchdog.stop()
	inner, cancel := ctx, context.CancelFunc(func() {})
	if until, ok := ctx.Deadline(); ok {
		inner, cancel = context.WithDeadline(ctx, until.Add(-min(answerTime, time.Until(until)/2)))
	}
	defer cancel()
	d.sight.admin.Stop(inner)
	d.prober.Stop(inner)
	d.engine.Stop()
	d.sight.hook.Stop(inner)
	d.store.Event(store.Event{At: time.Now(), Kind: "stop", Old: d.o.Version})
	err := d.store.Close(inner)
	return errors.Join(err, d.resolver.Stop(ctx))
}

// Reload reads the configuration again and swaps it in. Everything that can fail is tried
// first: an error leaves everything as it was.
func (d *Daemon) Reload() error {
	_, err := d.reloadBy("")
	return err
}

func (d *Daemon) reload(who string) (report config.Report, err error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	if d.ending.Load() {
		return config.Report{}, errEnding
	}
	d.tell(d.o.Manager.Reloading())
	defer func() { d.reportReady(err) }()
	spare.during(func() {
		d.trimmer.around(func() { report, err = d.reloadAside(who) })
	})
	return report, err
}

func (d *Daemon) reloadAside(who string) (report config.Report, err error) {
	defer func() {
		if v := recover(); v != nil {
			bug.Note(d.log, v, "a reload")
			err = fmt.Errorf("a bug: %v", v)
		}
	}()
	bug.Here("reload")
	c, report := d.o.Load()
	LogReport(d.log, report)
	if c == nil {
		d.log.Error("reload refused, the configuration in force stays", "file", report.File)
		return report, report.Err()
	}
	if err := d.swap(c); err != nil {
		d.log.Error("reload failed, the configuration in force stays", "file", c.File, "error", err)
		return report, err
	}
	d.config = c
	d.store.Event(store.Event{At: time.Now(), Kind: "config", New: c.File, Reason: by(who, "reload"), Who: who})
	d.sight.took(c)
	d.showSight(c)
	d.storeSockets()
	d.log.Info("reloaded", "file", c.File, "names", len(c.Names), "who", who)
	d.warnBeside()
	return report, nil
}

// swap commits a valid configuration.
func (d *Daemon) swap(c *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	listen, err := d.resolver.PrepareListen(c.Listen.DNS)
	if err != nil {
		return err
	}
	d.keep(c) // before its first decision: one that is not swapped in is never referred to
	applied := false
	defer func() {
		if !applied { // an error, or a panic
			listen.Abort()
		}
	}()
	if err := d.engine.Apply(ctx, c); err != nil {
		return err
	}
	applied = true
	listen.Commit()
	if err := d.resolver.SetUpstreams(d.upstreams(c)); err != nil {
		return err
	}
	if c.Store.Path != d.config.Store.Path {
		d.log.Warn("[store].path takes effect at the next start", "path", c.Store.Path)
	}
	l, _ := Level(d.o.LevelFlag, c)
	d.o.Level.Set(l)
	return nil
}

// Addrs are the DNS addresses served, in the configuration's order.
func (d *Daemon) Addrs() []netip.AddrPort { return d.resolver.Addrs() }

// Snapshot is the engine's state; name "" means all.
func (d *Daemon) Snapshot(ctx context.Context, name string) (engine.Snapshot, error) {
	return d.engine.Snapshot(ctx, name)
}

// warnBeside says so when other nameservers stand beside us: musl asks all of them at once and
// takes the first answer, glibc goes to them when we are slow, and neither knows our names.
func (d *Daemon) warnBeside() {
	self := d.resolver.Addrs()
	if !slices.ContainsFunc(self, func(a netip.AddrPort) bool { return a.Port() == 53 }) {
		return
	}
	if others := resolver.BesideUs(self); len(others) > 0 {
		d.log.Warn("/etc/resolv.conf names other servers beside us: programs that ask them bypass hard", "others", others)
	}
}
