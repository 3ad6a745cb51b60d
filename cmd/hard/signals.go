package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"hard/internal/daemon"
)

// signals are those that a running daemon heeds. Each kind has a channel of its own: Go drops a
// signal whose channel is full, and in one for all a storm of HUPs would swallow the TERM behind it.
type signals struct {
	reload, dump, end chan os.Signal
	pipe              chan os.Signal // never read
}

// heedSignals has to come before anything that takes long: until then a HUP ends the process.
//
// HUPs that come while one waits are one: its reload begins later than they were sent, so it reads
// what they were sent for. PIPE is caught and not ignored, as programs that we run would inherit
// that.
func heedSignals() *signals {
	s := &signals{
		reload: make(chan os.Signal, 1), dump: make(chan os.Signal, 1), end: make(chan os.Signal, 2),
		pipe: make(chan os.Signal, 1),
	}
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.dump, syscall.SIGUSR1)
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(s.pipe, syscall.SIGPIPE)
	return s
}

func (s *signals) stop() {
	for _, c := range []chan os.Signal{s.reload, s.dump, s.end, s.pipe} {
		signal.Stop(c)
	}
}

// heed does what signals ask for until one ends the daemon, and returns the exit code.
func (s *signals) heed(d *daemon.Daemon, log *slog.Logger) int {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // beside this loop, so that no reload, however long, holds up a TERM
		defer close(done)
		for {
			select {
			case <-s.reload:
				_ = d.Reload() // logged by the daemon
			case <-quit:
				return
			}
		}
	}()
	for {
		select {
		case <-s.dump:
			d.Dump()
		case <-d.Left():
			log.Info("left to the successor")
			close(quit)
			return exitOK
		case sig := <-s.end:
			log.Info("stopping", "signal", sig.String())
			close(quit)
			return s.finish(d, done, log)
		}
	}
}

// finish stops the daemon, after the reload that may still run; one more signal cuts it short.
func (s *signals) finish(d *daemon.Daemon, reloads <-chan struct{}, log *slog.Logger) int {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	stopped := make(chan error, 1)
	go func() {
		select {
		case <-reloads:
		case <-time.After(stopGrace / 2): // the rest is for the stop
		}
		stopped <- d.Stop(ctx)
	}()
	select {
	case err := <-stopped:
		if err != nil {
			log.Warn("stopped, not all of it in order", "error", err)
		}
		return exitOK
	case sig := <-s.end:
		log.Warn("stopped at once", "signal", sig.String())
		return exitFailed
	}
}
