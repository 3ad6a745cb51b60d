package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"hard/internal/admin"
	"hard/internal/bug"
	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/hook"
	"hard/internal/past"
	"hard/internal/rank"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// sight is the part of a Daemon that operators see and act through.
type sight struct {
	// immutable once Start has returned
	admin   *admin.Server
	meter   *admin.Meter
	hook    *hook.Hook
	started time.Time

	// any goroutine
	inForce  atomic.Pointer[config.Config]
	loaded   atomic.Int64          // Unix nanoseconds of the last good load
	failed   atomic.Pointer[error] // of the last reload; nil = it was good
	stopping atomic.Bool
}

// openSight makes the parts, which neither listen nor send before showSight.
func (d *Daemon) openSight(c *config.Config) {
	s := &d.sight
	s.started = time.Now()
	s.meter = admin.NewMeter()
	s.hook = hook.New(d.log)
	s.admin = admin.New(admin.Options{Backend: backend{d}, Meter: s.meter, Log: d.log})
	s.took(c)
}

// showSight applies what a configuration says of them.
func (d *Daemon) showSight(c *config.Config) {
	d.waitForSuccessor(c)
	d.sight.hook.Set(c.Hooks.OnChange, c.Hooks.Webhook)
	d.sight.admin.Apply(c.Listen)
	d.resolver.SetLogQueries(c.Log.Queries)
}

func (s *sight) took(c *config.Config) {
	s.inForce.Store(c)
	s.loaded.Store(time.Now().UnixNano())
	s.failed.Store(nil)
}

// reloadBy is Reload, asked for by somebody: "" is a signal.
func (d *Daemon) reloadBy(who string) (config.Report, error) {
	report, err := d.reload(who)
	if err == nil {
		return report, nil
	}
	d.sight.failed.Store(&err)
	d.store.Event(store.Event{At: time.Now(), Kind: "config", Old: d.sight.inForce.Load().File, New: "refused", Reason: by(who, firstLine(err)), Who: who})
	return report, err
}

// firstLine is the first of what may be a list of errors.
func firstLine(err error) string {
	var list interface{ Unwrap() []error }
	if errors.As(err, &list) && len(list.Unwrap()) > 0 {
		return list.Unwrap()[0].Error()
	}
	return err.Error()
}

// HTTPAddr is where the status page is served now, for those who let the system pick a port;
// empty while it is not.
func (d *Daemon) HTTPAddr() string {
	if a := d.sight.admin.HTTPAddr(); a.IsValid() {
		return a.String()
	}
	return ""
}

// witness is the history, with those who watch it being made: all that an engine records is
// counted, and its changes go to the hooks.
type witness struct {
	history
	meter *admin.Meter
	hook  *hook.Hook
}

// Record is engine.Recorder's.
func (w witness) Record(s rank.Sample) {
	w.meter.Sample(&s)
	w.history.Record(s)
}

// Event is engine.Recorder's.
func (w witness) Event(e engine.Event) {
	w.meter.Event(&e)
	e.Reason = by(e.Who, e.Reason)
	w.history.Event(e)
	if e.Kind == "state" {
		addr := e.Key.Addr
		w.hook.Send(&hook.Change{
			Time: e.At, Kind: "state", Name: e.Key.Name, Candidate: e.Key.Candidate, Address: &addr,
			Old: e.Old, New: e.New, Reason: e.Reason,
		})
	}
}

// by puts who asked for something before why: the view events has no column for it.
func by(who, why string) string {
	switch {
	case who == "":
		return why
	case why == "":
		return "by " + who
	}
	return "by " + who + ": " + why
}

// Answer is engine.Recorder's.
func (w witness) Answer(a engine.AnswerChange) {
	w.meter.Answer(&a)
	w.history.Answer(a)
	if a.Same {
		return // nobody gets another address
	}
	w.hook.Send(&hook.Change{
		Time: a.At, Kind: "answer", Name: a.Name, Type: a.Family.String(), Addresses: a.Addresses, Reason: a.Reason,
	})
}

// Forget is engine.Recorder's.
func (w witness) Forget(keys []rank.Key) {
	w.meter.Forget(keys)
	w.history.Forget(keys)
}

// backend is the daemon as package admin wants it.
type backend struct{ d *Daemon }

// Info is admin.Backend's.
func (b backend) Info() admin.Info {
	s := &b.d.sight
	info := admin.Info{
		Version: b.d.o.Version, PID: os.Getpid(), Started: s.started, DNS: b.d.resolver.Addrs(),
		Level: b.d.o.Level.Level(), Ready: !s.stopping.Load(), Reloaded: time.Unix(0, s.loaded.Load()),
	}
	if err := s.failed.Load(); err != nil {
		info.ReloadFail = (*err).Error()
	}
	return info
}

// Config is admin.Backend's.
func (b backend) Config() *config.Config { return b.d.sight.inForce.Load() }

// Snapshot is admin.Backend's.
func (b backend) Snapshot(ctx context.Context, name string) (engine.Snapshot, error) {
	return b.d.engine.Snapshot(ctx, name)
}

// Past is admin.Backend's.
func (b backend) Past(ctx context.Context, names []string, at time.Time) (admin.Past, error) {
	r, err := store.OpenReader(b.Config().Store.Path)
	if err != nil {
		return admin.Past{}, fmt.Errorf("the history cannot be read: %w", err)
	}
	defer r.Close()
	h, err := past.Open(ctx, r)
	if err != nil {
		return admin.Past{}, fmt.Errorf("the history cannot be read: %w", err)
	}
	x, err := h.ExplainFirst(ctx, names, at)
	if gap := (*past.Gap)(nil); errors.As(err, &gap) {
		err = &admin.Incomplete{From: gap.From, To: gap.To, Text: gap.Error()}
	}
	if err != nil {
		return admin.Past{}, err
	}
	return admin.Past{Snapshot: x.Snapshot, Policy: x.Policy}, nil
}

// Force is admin.Backend's.
func (b backend) Force(ctx context.Context, o engine.Override, force bool) (forced []engine.Override, stored, err error) {
	if b.d.succ.offered.Load() {
		return nil, nil, errOffered
	}
	forced, err = b.d.engine.Force(ctx, o, force)
	if err != nil {
		return nil, nil, err
	}
	for i := range forced {
		if err := b.d.store.PutOverride(ctx, storedOverride(&forced[i])); err != nil {
			return forced, err, nil
		}
	}
	return forced, nil, nil
}

// Probe is admin.Backend's.
func (b backend) Probe(ctx context.Context, key rank.Key, trace bool) (rank.Sample, []prober.TraceLine, bool) {
	c := b.Config()
	for i := range c.Names {
		n := &c.Names[i]
		if n.Name != key.Name {
			continue
		}
		for j := range n.Candidates {
			if cand := &n.Candidates[j]; cand.Label == key.Candidate {
				s, lines := b.d.prober.Probe(ctx, prober.Target{Key: key, Check: cand.Check, Pace: n.Pace}, trace)
				return s, lines, true
			}
		}
	}
	return rank.Sample{}, nil, false
}

// Reload is admin.Backend's.
func (b backend) Reload(who string) (config.Report, error) { return b.d.reloadBy(who) }

// SetLevel is admin.Backend's.
func (b backend) SetLevel(l slog.Level, who string) {
	was := b.d.o.Level.Level()
	b.d.o.Level.Set(l)
	from, to := config.LevelText(was), config.LevelText(l)
	b.d.log.Info("log level", "from", from, "to", to, "who", who)
	b.d.store.Event(store.Event{At: time.Now(), Kind: "log", Old: from, New: to, Reason: by(who, ""), Who: who})
}

// ResolverStats is admin.Backend's.
func (b backend) ResolverStats() resolver.Stats { return b.d.resolver.Stats() }

// UpstreamStats is admin.Backend's.
func (b backend) UpstreamStats() []resolver.UpstreamStat { return b.d.resolver.UpstreamStats() }

// ProberStats is admin.Backend's.
func (b backend) ProberStats() prober.Stats { return b.d.prober.Stats() }

// StoreStats is admin.Backend's.
func (b backend) StoreStats() store.Stats { return b.d.store.Stats() }

// Extra is admin.Backend's.
func (b backend) Extra() admin.Extra {
	h := b.d.sight.hook.Stats()
	return admin.Extra{Panics: bug.Count(), LogDropped: LogDropped(b.d.log), HookSent: h.Sent, HookFailed: h.Failed, HookDropped: h.Dropped}
}
