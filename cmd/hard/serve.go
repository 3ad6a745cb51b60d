package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/config"
	"hard/internal/daemon"
	"hard/internal/handover"
	"hard/internal/privilege"
)

// stopGrace bounds how long a stop may take: queries in flight get an answer, history is
// flushed. A second signal ends the process at once.
const stopGrace = 5 * time.Second

// steadyGC is the garbage collector's setting after the start, in percent of the live heap; the daemon
// tunes it once it knows how much lives (internal/daemon/memory.go).
const steadyGC = 50

// startHeap is the size in bytes up to which the heap grows without a collection during the start. What
// a start makes mostly stays, so that collecting costs a quarter of its time and brings little; the first
// trim is a second later. 10,000 names need a tenth of this.
const startHeap = 512 << 20

// uncollected puts the garbage collector off until the function it returns is called. After that $GOGC wins.
func uncollected() (end func()) {
	limit := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(limit, startHeap))
	percent := debug.SetGCPercent(-1)
	if os.Getenv("GOGC") == "" {
		percent = steadyGC
	}
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// check is hard -check.
func check(o *options, stdout io.Writer) int {
	return daemon.Check(o.file(), o.strict, o.json, stdout)
}

// serve runs the daemon until a signal ends it.
func serve(o *options, stderr io.Writer) int {
	signals := heedSignals()
	defer signals.stop()
	load := o.loader(func() (*config.Config, config.Report) { return config.Load(o.file()) }, stderr)
	limit := daemon.LimitMemory()
	started := uncollected()
	c, report := load()
	if c == nil {
		report.WriteText(stderr)
		if hint := o.noVerb(); hint != "" {
			fmt.Fprintln(stderr, hint)
		}
		return exitFailed
	}
	level := new(slog.LevelVar)
	l, ignored := daemon.Level(o.level, c)
	level.Set(l)
	log := daemon.NewLogger(stderr, c.Log.Format, level)
	if ignored != "" {
		log.Warn("LOG_LEVEL is not a level, ignored", "value", ignored)
	}
	daemon.LogReport(log, report)
	if limit > 0 {
		log.Debug("memory is limited", "heap", limit)
	}

	var err error
	manager := handover.FromEnvironment()
	if err := privilege.KeepFromChildren(); err != nil {
		log.Warn("checks and hooks inherit CAP_NET_BIND_SERVICE", "error", err)
	}
	options := daemon.Options{
		Load: load, Log: log, Level: level, LevelFlag: o.level, Version: Version(), Cold: o.cold, Manager: manager,
	}
	if options.TakeOver, err = takeOver(o, c); err == nil {
		options.Bound, err = lower(o, c, log)
	}
	if err != nil {
		log.Error("cannot start", "error", err)
		return exitFailed
	}
	d, err := daemon.Start(c, options)
	started()
	if err != nil {
		log.Error("cannot start", "error", err)
		return exitFailed
	}
	return signals.heed(d, log)
}

// loader reads a configuration, at the start and at each reload, and puts what the command line says above it.
func (o *options) loader(read func() (*config.Config, config.Report), stderr io.Writer) func() (*config.Config, config.Report) {
	return func() (*config.Config, config.Report) {
		c, report := read()
		if c != nil {
			if err := o.override(c); err != nil {
				fmt.Fprintln(stderr, "hard:", err) // parse has checked the flags
			}
		}
		return c, report
	}
}

// override applies -b, -p and -s to what the file says.
func (o *options) override(c *config.Config) error {
	if o.bind != "" {
		addrs, err := bindAddrs(o.bind, c.Listen.DNS)
		if err != nil {
			return err
		}
		c.Listen.DNS = addrs
	}
	if o.port != -1 {
		out := make([]netip.AddrPort, 0, len(c.Listen.DNS))
		for _, a := range c.Listen.DNS {
			if a = netip.AddrPortFrom(a.Addr(), uint16(o.port)); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
		c.Listen.DNS = out
	}
	if o.socket != "" {
		c.Listen.Control = o.socket
	}
	return nil
}

// bindAddrs reads -b: addresses, comma-separated, each with or without a port. One without a
// port keeps the ports of the file.
func bindAddrs(text string, file []netip.AddrPort) ([]netip.AddrPort, error) {
	var ports []uint16
	for _, a := range file {
		if !slices.Contains(ports, a.Port()) {
			ports = append(ports, a.Port())
		}
	}
	if len(ports) == 0 {
		ports = []uint16{53}
	}
	var out []netip.AddrPort
	for t := range strings.SplitSeq(text, ",") {
		t = strings.TrimSpace(t)
		if ap, err := netip.ParseAddrPort(t); err == nil {
			out = append(out, ap)
			continue
		}
		a, err := netip.ParseAddr(strings.Trim(t, "[]"))
		if err != nil {
			return nil, fmt.Errorf("-b: %s is not an IP address", strconv.Quote(t))
		}
		for _, p := range ports {
			out = append(out, netip.AddrPortFrom(a, p))
		}
	}
	return out, nil
}

// takeOver is where the instance that we are to replace waits for us; empty: we replace none.
func takeOver(o *options, c *config.Config) (string, error) {
	if !o.takeover {
		return "", nil
	}
	if c.Listen.Control == "" {
		return "", fmt.Errorf("-takeover: %w", errOff)
	}
	return handover.Path(c.Listen.Control), nil
}
