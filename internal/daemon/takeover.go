package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/handover"
	"hard/internal/rank"
	"hard/store"
)

var (
	errEnding  = errors.New("this instance is ending")
	errOffered = errors.New("a successor is taking over: try again")
)

const (
	// releaseTime bounds what an instance that leaves does before its successor has everything.
	releaseTime = 5 * time.Second
	// lingerTime is how long it then serves clients that are connected and never idle.
	lingerTime = 5 * time.Second
	// takeTime bounds the wait for the sockets: a reload that runs comes first.
	takeTime = 20 * time.Second
	// busyTime is how long an instance that takes over itself just now is waited for, with a look
	// every takePause.
	busyTime  = 5 * time.Second
	takePause = 50 * time.Millisecond
)

// legacy is what a running instance tells its successor. Plain data, for other versions to read:
// what they don't know they leave out, and begin colder.
type legacy struct {
	PID       int
	Version   string
	Endpoints []legacyEndpoint
	Memories  map[string]rank.Memory
	Addresses []legacyAddresses
	Overrides []engine.Override
	Resolvers []netip.AddrPort // the last good list of resolv.conf
}

type legacyEndpoint struct {
	Key rank.Key
	engine.SavedEndpoint
}

type legacyAddresses struct {
	Host  engine.HostKey
	Addrs []netip.Addr
}

// succession is a Daemon's part in handing over, on both sides.
type succession struct {
	offered atomic.Bool        // a successor prepares: what it has been told must stay true
	ctx     context.Context    // ends waiting for our predecessor, and lingering
	cancel  context.CancelFunc //
	wg      sync.WaitGroup     // the goroutine that waits for our predecessor's release
	left    chan struct{}      // closed when our successor has everything and we have nothing to do
	leaving bool               // owned by the goroutine that talks to our successor

	mu    sync.Mutex      // guards the rest
	giver *handover.Giver // waits for a successor
}

func (s *succession) init() {
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.left = make(chan struct{})
}

// hurry ends what an instance that has left still does for its clients, and waits for it.
func (s *succession) hurry(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.left:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Left is closed when a successor has taken over and nothing is left to do: the process should end.
func (d *Daemon) Left() <-chan struct{} { return d.succ.left }

// predecessor is the instance that we take over from; a nil one is none.
type predecessor struct {
	t    *handover.Takeover
	tale legacy
	held bool // by show, which closes it
}

// takeOver asks the running instance for its sockets and state, where that is wanted. One that
// isn't there is no error: then we start as usual.
func (d *Daemon) takeOver() (*predecessor, error) {
	if d.o.TakeOver == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), takeTime)
	defer cancel()
	t, err := handover.Take(ctx, d.o.TakeOver, d.o.Version)
	if errors.Is(err, handover.ErrNobody) {
		d.log.Debug("nobody to take over from: starting as usual", "socket", d.o.TakeOver)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &predecessor{t: t}
	if err := json.Unmarshal(t.State, &p.tale); err != nil {
		d.log.Warn("the state that was handed over is of another version, some of it is not used", "error", err)
	}
	d.log.Info("taking over", "from_pid", p.tale.PID, "from_version", p.tale.Version, "sockets", len(t.Files))
	return p, nil
}

func (p *predecessor) sockets() []*os.File {
	if p == nil {
		return nil
	}
	files := p.t.Files
	p.t.Files = nil
	return files
}

// saved is the state that was handed over, as the engine wants it.
func (p *predecessor) saved(cold bool) (engine.Saved, []netip.AddrPort) {
	s := engine.Saved{
		Live:      true,
		Endpoints: make(map[rank.Key]engine.SavedEndpoint, len(p.tale.Endpoints)),
		Memories:  p.tale.Memories,
		Addresses: make(map[engine.HostKey][]netip.Addr, len(p.tale.Addresses)),
		Overrides: p.tale.Overrides,
	}
	for _, e := range p.tale.Endpoints {
		s.Endpoints[e.Key] = e.SavedEndpoint
	}
	for _, a := range p.tale.Addresses {
		s.Addresses[a.Host] = a.Addrs
	}
	if cold {
		s = s.Cold()
	}
	return s, p.tale.Resolvers
}

// serving says that we answer, and waits until our predecessor doesn't.
func (p *predecessor) serving() error {
	if p == nil {
		return nil
	}
	return p.t.Serving()
}

func (p *predecessor) reason() string {
	if p == nil {
		return ""
	}
	return "took over from " + p.tale.Version
}

func (p *predecessor) close() {
	if p != nil && !p.held {
		p.t.Close()
	}
}

// show lets people see us and act, as soon as the sockets and the database for that are free.
func (d *Daemon) show(before *predecessor) {
	shown := func() {
		d.reloading.Lock()
		defer d.reloading.Unlock()
		d.showSight(d.config)
	}
	if before == nil {
		shown()
		return
	}
	before.held = true
	d.succ.wg.Go(func() {
		before.t.Released(d.succ.ctx)
		before.t.Close()
		d.store.Retry()
		if d.succ.ctx.Err() == nil {
			shown()
		}
	})
}

// waitForSuccessor waits for one where the configuration's control socket is.
func (d *Daemon) waitForSuccessor(c *config.Config) {
	path := handover.Path(c.Listen.Control)
	s := &d.succ
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.ending.Load() || path == s.giver.Path() {
		return
	}
	if s.giver != nil {
		go s.giver.Close() // one that talks to a successor waits for d.reloading
		s.giver = nil
	}
	if path != "" {
		s.giver = handover.Listen(path, instance{d}, d.log)
	}
}

// stopWaiting ends both kinds of waiting, when d.ending is set: for a successor and for our
// predecessor. A successor that has come too late goes on by itself.
func (d *Daemon) stopWaiting() {
	s := &d.succ
	s.cancel()
	s.wg.Wait()
	s.mu.Lock()
	g := s.giver
	s.giver = nil
	s.mu.Unlock()
	g.Close()
}

// instance is the daemon as package handover wants it.
type instance struct{ d *Daemon }

// Offer is handover.Instance's. Until the successor has made up its mind nothing is reloaded and
// nothing forced: it would not hear of it.
func (i instance) Offer(who string) (files []*os.File, state []byte, err error) {
	d := i.d
	if d.o.Manager.Present() {
		return nil, nil, errors.New("a service manager runs this instance and keeps its sockets: restart the service, nothing is lost")
	}
	d.reloading.Lock()
	d.succ.offered.Store(true)
	defer func() {
		if err != nil {
			i.Withdraw(err)
		}
	}()
	if d.ending.Load() {
		return nil, nil, errEnding
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	saved, err := d.engine.Saved(ctx)
	if err != nil {
		return nil, nil, err
	}
	if state, err = json.Marshal(d.tale(saved)); err != nil {
		return nil, nil, err
	}
	sockets, err := d.resolver.Sockets()
	for _, s := range sockets {
		files = append(files, s.File)
	}
	d.log.Info("a successor is about to take over", "by", who)
	return files, state, err
}

func (d *Daemon) tale(s engine.Saved) *legacy {
	t := &legacy{
		PID: os.Getpid(), Version: d.o.Version, Memories: s.Memories, Overrides: s.Overrides,
		Resolvers: *d.servers.Load(),
	}
	for k, e := range s.Endpoints {
		t.Endpoints = append(t.Endpoints, legacyEndpoint{k, e})
	}
	for h, a := range s.Addresses {
		t.Addresses = append(t.Addresses, legacyAddresses{h, a})
	}
	return t
}

// Withdraw is handover.Instance's.
func (i instance) Withdraw(error) {
	i.d.succ.offered.Store(false)
	i.d.reloading.Unlock()
}

// Leave is handover.Instance's: from here on this instance only finishes what it has begun. A
// client that is connected gets answers from the last table until it is idle.
func (i instance) Leave(who string) {
	d := i.d
	d.reloading.Unlock()
	if d.succ.leaving = d.ending.CompareAndSwap(false, true); !d.succ.leaving {
		return // stopping anyway: the sockets are the successor's all the same
	}
	d.log.Info("a successor has taken over", "by", who)
	d.sight.stopping.Store(true)
	d.resolver.Leave()
	d.trimmer.stop()
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	d.prober.Stop(ctx)
	d.engine.Stop()
	d.store.Event(store.Event{At: time.Now(), Kind: "stop", Old: d.o.Version, Reason: "taken over by " + who})
}

// Release is handover.Instance's.
func (i instance) Release() {
	d := i.d
	if !d.succ.leaving {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { d.sight.admin.Stop(ctx) })
	wg.Go(func() { d.sight.hook.Stop(ctx) })
	wg.Go(func() {
		if err := d.store.Close(ctx); err != nil {
			d.log.Warn("not all history could be written before the successor took over", "error", err)
		}
	})
	wg.Wait()
}

// Released is handover.Instance's.
func (i instance) Released() {
	d := i.d
	if !d.succ.leaving {
		return
	}
	d.succ.wg.Wait()
	ctx, cancel := context.WithTimeout(d.succ.ctx, lingerTime)
	defer cancel()
	d.resolver.Linger(ctx)
	ctx, cancel = context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	_ = d.resolver.Stop(ctx) // it has no error
	close(d.succ.left)
}
