package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"log/slog"

	"hard/internal/config"
	"hard/internal/daemon"
	"hard/internal/handover"
	"hard/internal/rank"
)

// demoName is the name that the demo's story is about.
const demoName = "api.demo.test"

// storyTimeout bounds each wait of the story: far above the worst detection time.
const storyTimeout = 30 * time.Second

// pageTimeout is how long the demo waits for its status page, which it could do without.
const pageTimeout = 2 * time.Second

// show is one run of the demo.
type show struct {
	out    io.Writer
	world  *world
	daemon *daemon.Daemon
	ask    asker
	live   bool // redraw in place
	once   bool
}

// demo is hard demo: a world of its own, the real daemon, and a story in three acts.
func demo(o *options, stdout, stderr io.Writer) int {
	if len(o.args) > 0 {
		fmt.Fprintf(stderr, "hard: demo takes no arguments, not %q\n", o.args)
		return exitUsage
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := runDemo(ctx, o, stdout, stderr); err != nil {
		if ctx.Err() != nil {
			return exitOK // Ctrl-C is how it ends
		}
		fmt.Fprintln(stderr, "hard: demo:", err)
		return exitFailed
	}
	return exitOK
}

func runDemo(ctx context.Context, o *options, stdout, stderr io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "hard-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.stop()

	text := demoConfig(w, dir)
	load := o.loader(func() (*config.Config, config.Report) { return config.Parse("demo.toml", []byte(text)) }, stderr)
	cfg, report := load()
	if cfg == nil {
		return report.Err()
	}
	level := new(slog.LevelVar)
	l, _ := daemon.Level(o.level, cfg)
	level.Set(l)
	d, err := daemon.Start(cfg, daemon.Options{
		Load: load, Log: daemon.NewLogger(stderr, "text", level), Level: level, LevelFlag: o.level, Version: Version(),
	})
	if err != nil {
		return err
	}
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		if serr := d.Stop(stopCtx); err == nil && ctx.Err() == nil {
			err = serr
		}
	}()
	s := &show{
		out: stdout, world: w, daemon: d, once: o.once,
		ask:  asker{server: d.Addrs()[0].String()},
		live: !o.once && isTerminal(stdout),
	}
	return s.run(ctx, text, cfg)
}

// demoConfig is a real configuration file. hold is shorter than its default, so that the return
// of the fastest candidate is worth waiting for.
func demoConfig(w *world, dir string) string {
	control := filepath.Join(dir, "control.sock")
	if len(handover.Path(control)) > config.MaxSocketPath {
		control = "" // or the one beside it, for a takeover, would not fit
	}
	var b strings.Builder
	fmt.Fprintf(&b, `[listen]
dns     = ["127.0.0.1:0"]
http    = "127.0.0.1:0"
control = %q
[upstream]
servers = [%q]
[store]
path = %q
[log]
level = "error"
[name.%q]
check = "http://:%d/healthz"
hold  = "2s"
`, control, w.upAddr, filepath.Join(dir, "hard.db"), demoName, w.port)
	for _, c := range w.candidates {
		tier := 0
		if strings.HasPrefix(c.label, "west") {
			tier = 1
		}
		fmt.Fprintf(&b, "[name.%q.candidate.%s]\naddress = %q\ntier    = %d\n", demoName, c.label, c.addr, tier)
	}
	return b.String()
}

func (s *show) intro(ctx context.Context, text string, c *config.Config) {
	host, port, _ := net.SplitHostPort(s.ask.server)
	fmt.Fprintf(s.out, `hard demo: four candidates of %s on loopback addresses, two near (tier 0) and
two far (tier 1), are probed every 2 s. Look at it from another terminal:

  dig @%s -p %s %s
  dig @%s -p %s anything.else.example TXT      # forwarded to the demo's upstream
  sqlite3 %s 'SELECT * FROM current'
  sqlite3 %s 'SELECT time, addresses, reason FROM answers'
  curl http://%s:%d/healthz
`, demoName, host, port, demoName, host, port, c.Store.Path, c.Store.Path, s.world.candidates[0].addr, s.world.port)
	if c.Listen.Control != "" {
		fmt.Fprintf(s.out, "  %s explain -s %s %s\n", ourself(), c.Listen.Control, demoName)
	}
	if page := s.page(ctx); page != "" {
		fmt.Fprintf(s.out, "\nor at the status page: http://%s/\n", page)
	}
	fmt.Fprint(s.out, "\nThe configuration it runs on:\n\n")
	for line := range strings.Lines(text) {
		fmt.Fprint(s.out, "    ", line)
	}
	fmt.Fprintln(s.out)
}

// ourself is how this program was called.
func ourself() string {
	if strings.Contains(os.Args[0], "go-build") { // by go run
		return "go run ./cmd/hard"
	}
	return os.Args[0]
}

// page is where the status page is; empty where there is none within a moment.
func (s *show) page(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.daemon.HTTPAddr() == "" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ""
		}
	}
	return s.daemon.HTTPAddr()
}

// run tells the story, once or till Ctrl-C.
func (s *show) run(ctx context.Context, text string, c *config.Config) error {
	first, took, err := s.wait(ctx, func(string) bool { return true })
	if err != nil {
		return fmt.Errorf("no first answer: %w", err)
	}
	s.intro(ctx, text, c)
	fmt.Fprintf(s.out, "first answer %s after %s\n", first, took.Round(time.Millisecond))
	near := s.world.candidates[0]
	if _, _, err := s.wait(ctx, func(a string) bool { return a == near.addr }); err != nil {
		return fmt.Errorf("the nearest candidate, %s, was not chosen: %w", near.addr, err)
	}
	if err := s.allKnown(ctx); err != nil {
		return err
	}
	breaks := []struct {
		how string
		do  func(c *candidate)
	}{
		{"kill (connections are refused)", (*candidate).kill},
		{"freeze (it accepts and says nothing)", (*candidate).hang},
	}
	rest := 3 // seconds to look at the table: short at first, so that a stranger soon sees what this is about
	for i := 0; ; i++ {
		b := breaks[i%len(breaks)]
		if err := s.pause(ctx, rest); err != nil {
			return err
		}
		if err := s.tell(ctx, near, b.how, b.do); err != nil {
			return err
		}
		rest = 6
		if s.once {
			fmt.Fprintln(s.out, "the story went as it should")
			return nil
		}
	}
}

// allKnown waits until every candidate has had its first probe, so that the story begins with a
// whole table.
func (s *show) allKnown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storyTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		snap, err := s.daemon.Snapshot(ctx, demoName)
		if err != nil {
			return fmt.Errorf("not every candidate was probed: %w", err)
		}
		known := 0
		for i := range snap.Names[0].Endpoints {
			if snap.Names[0].Endpoints[i].Health.State == rank.Healthy {
				known++
			}
		}
		if known == len(s.world.candidates) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d candidates are healthy: %w", known, len(s.world.candidates), ctx.Err())
		}
	}
}

// tell breaks the nearest candidate, waits for the answer to move, heals it and waits again.
func (s *show) tell(ctx context.Context, near *candidate, how string, breakIt func(*candidate)) error {
	fmt.Fprintf(s.out, "\n>>> %s: %s\n", near.label, how)
	breakIt(near)
	to, took, err := s.wait(ctx, func(a string) bool { return a != near.addr })
	if err != nil {
		return fmt.Errorf("the answer did not leave %s: %w", near.addr, err)
	}
	if want := s.world.candidates[1].addr; to != want {
		return fmt.Errorf("the answer moved to %s, not to the next nearest, %s", to, want)
	}
	fmt.Fprintf(s.out, "<<< the answer moved from %s to %s after %s\n", near.addr, to, took.Round(time.Millisecond))
	if err := s.pause(ctx, 4); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\n>>> %s: heal\n", near.label)
	near.kill()
	if err := near.start(s.world.port); err != nil {
		return err
	}
	if _, took, err = s.wait(ctx, func(a string) bool { return a == near.addr }); err != nil {
		return fmt.Errorf("the answer did not come back to %s: %w", near.addr, err)
	}
	fmt.Fprintf(s.out, "<<< the answer came back to %s after %s\n", near.addr, took.Round(time.Millisecond))
	return s.table(ctx)
}

// wait asks until the answer is as wanted.
func (s *show) wait(ctx context.Context, ok func(string) bool) (string, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, storyTimeout)
	defer cancel()
	return s.ask.waitFor(ctx, demoName, ok)
}

// pause shows the live table for some seconds; the story for scripts doesn't dwell.
func (s *show) pause(ctx context.Context, seconds int) error {
	if s.once {
		return s.table(ctx)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range seconds {
		if s.live && i > 0 {
			fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", len(s.world.candidates)+2)
		}
		if s.live || i == 0 {
			if err := s.table(ctx); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// table prints the candidates as the daemon sees them.
func (s *show) table(ctx context.Context) error {
	snap, err := s.daemon.Snapshot(ctx, demoName)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CANDIDATE\tADDRESS\tTIER\tSTATE\tLATENCY\tRANK\tANSWER\tLAST PROBE")
	for _, n := range snap.Names {
		for i := range n.Endpoints {
			e := &n.Endpoints[i]
			place, answer, latency, last := "-", "", "-", "-"
			if !e.Health.Checked.IsZero() {
				last = e.Health.Last.String()
			}
			if e.Rank > 0 {
				place = fmt.Sprint(e.Rank)
			}
			if e.Selected {
				answer = "<=="
			}
			if e.Latency > 0 {
				latency = fmt.Sprintf("%.1f ms", float64(e.Latency)/1e6)
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", e.Key.Candidate, e.Key.Addr, e.Tier,
				e.Health.State, latency, place, answer, last)
		}
	}
	return t.Flush()
}
