package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"hard/internal/handover"
)

// tell logs what the service manager could not be told: it costs us nothing, and it may cost us
// our life when the manager takes us for dead.
func (d *Daemon) tell(err error) {
	if err != nil {
		d.log.Warn("the service manager was not told", "error", err)
	}
}

// bound tells whoever wants to know that all sockets are bound.
func (d *Daemon) bound() error {
	if d.o.Bound == nil {
		return nil
	}
	sockets, err := d.resolver.Sockets()
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range sockets {
			s.File.Close()
		}
	}()
	return d.o.Bound(sockets)
}

// reportStart tells the service manager that we serve, and begins to prove it.
func (d *Daemon) reportStart() {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	d.storeSockets()
	d.reportReady(nil)
	if every := d.o.Manager.Watchdog(); every > 0 {
		d.watchdog = newWatchdog(d, every)
	}
}

// reportReady tells that we serve; failed is why a reload was refused. d.reloading is held.
func (d *Daemon) reportReady(failed error) {
	status := fmt.Sprintf("serving %d names on %v", len(d.config.Names), d.resolver.Addrs())
	if failed != nil {
		status += "; the last reload failed: " + firstLine(failed)
	}
	d.tell(d.o.Manager.Ready(status))
}

// storeSockets gives the sockets that we have bound to the service manager, and takes those back
// whose address we no longer serve. What it has passed to us it has anyway. d.reloading is held.
func (d *Daemon) storeSockets() {
	if !d.o.Manager.Stores() {
		return
	}
	sockets, err := d.resolver.Sockets()
	if err != nil {
		d.tell(err)
		return
	}
	files := make(map[netip.AddrPort][]*os.File)
	for _, s := range sockets {
		if s.Given {
			s.File.Close()
			continue
		}
		files[s.Addr] = append(files[s.Addr], s.File)
	}
	for a, list := range files {
		d.tell(d.o.Manager.Store(handover.StoreName(a), list))
		handover.CloseAll(list)
	}
	now := d.resolver.Addrs()
	var gone []netip.AddrPort
	for _, a := range d.kept {
		if !slices.Contains(now, a) {
			gone = append(gone, a)
		}
	}
	d.unkept(gone)
	d.kept = now
}

// unkept has the service manager close the sockets of addresses that we don't serve: nobody would
// read what comes in there.
func (d *Daemon) unkept(addrs []netip.AddrPort) {
	for _, a := range addrs {
		d.tell(d.o.Manager.Forget(handover.StoreName(a)))
	}
}

// watchdog tells the service manager that we are alive as often as it wants to hear it, but only
// after a query to ourselves was answered.
type watchdog struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newWatchdog(d *Daemon, every time.Duration) *watchdog {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watchdog{cancel, make(chan struct{})}
	go w.run(ctx, d, every)
	return w
}

// perWatchdog is how many times we ask ourselves in the time that the manager waits: one query
// that gets lost is no death.
const perWatchdog = 4

func (w *watchdog) run(ctx context.Context, d *Daemon, every time.Duration) {
	defer close(w.done)
	t := time.NewTicker(every / perWatchdog)
	defer t.Stop()
	for {
		err := d.sight.admin.Healthy(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.log.Error("a query to ourselves got no answer; the service manager is not told that we are alive", "error", err)
		default:
			d.tell(d.o.Manager.Alive())
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// stop ends it; nil is none.
func (w *watchdog) stop() {
	if w == nil {
		return
	}
	w.cancel()
	<-w.done
}
