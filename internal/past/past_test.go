package past

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hard/store"
)

var sameTimes = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// What is explained of the past is the very decision, with every verdict, reason, estimate and
// counter, that the live engine told of itself at that instant.
func TestExplainIsWhatWas(t *testing.T) {
	t.Parallel()
	seeds := uint64(3)
	if os.Getenv("HARD_LONG") != "" {
		seeds = 100
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, text("10s", "best"), text("2s", "group"))
			w.run(4000)
			w.end()
			h := w.history()
			for _, l := range w.looks {
				x, err := h.Explain(context.Background(), l.name.Name, l.at)
				if err != nil {
					t.Fatalf("%s at %s: %v", l.name.Name, l.at, err)
				}
				if l.name.Name == "fixed.example" { // nothing depends on time: when it was decided isn't kept
					x.Snapshot.Names[0].Decision.At = l.name.Decision.At
				}
				if d := cmp.Diff(l.name, x.Snapshot.Names[0], sameTimes, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
					t.Fatalf("%s at %s (-was +explained):\n%s", l.name.Name, l.at, d)
				}
			}
			t.Logf("%d instants of %d runs", len(w.looks), len(h.points))
		})
	}
}

// The configuration of then gives the answers of then.
func TestReplayOfTheSameIsTheSame(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, text("10s", "best"))
			since := w.clock()
			w.run(4000)
			until := w.clock()
			w.end()
			got, err := w.history().Replay(context.Background(), Options{Since: since, Until: until, With: w.config})
			if err != nil {
				t.Fatal(err)
			}
			for i := range got.Differences {
				t.Error(got.Differences[i].String())
			}
			switches := 0
			for _, n := range got.Names {
				if n.Then.Switches != n.Now.Switches || n.Then.Dead != n.Now.Dead || n.Then.Latency != n.Now.Latency || n.Won() != 0 {
					t.Errorf("%s: then %+v, now %+v", n.Name, n.Then, n.Now)
				}
				switches += n.Then.Switches
			}
			if !got.Unchanged || switches < 10 {
				t.Errorf("%d switches, unchanged: %v", switches, got.Unchanged)
			}
			t.Logf("covered %v, gaps %v", got.Covered, got.Gaps)
		})
	}
}

// Another configuration gives other answers.
func TestReplayOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, text("10s", "best"))
	since := w.clock()
	w.run(4000)
	until := w.clock()
	w.end()
	h := w.history()
	got, err := h.Replay(context.Background(), Options{Since: since, Until: until, With: parseText(t, text("10s", "group")), Name: "best.example"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Names) != 1 || got.Unchanged || len(got.Differences) == 0 || got.Names[0].Differs == 0 {
		t.Errorf("%+v", got)
	}
	many := 0
	for _, d := range got.Differences {
		if d.Name != "best.example" {
			t.Errorf("not asked for: %v", d)
		}
		if len(d.Now) > 1 {
			many++
		}
	}
	if many == 0 {
		t.Error("no group is ever answered")
	}
}

// Where something is missing nothing is guessed.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5, text("10s", "best"))
	began := w.clock()
	explain := func(h *History, at time.Time) error {
		_, err := h.Explain(context.Background(), "best.example", at)
		return err
	}
	keys := w.keys()
	probes := func() {
		for range 200 {
			w.pass(30 * time.Millisecond)
			w.probe(keys)
		}
		w.look() // all samples are taken
	}
	probes()
	lastSeen := w.clock()
	if err := w.store.Close(context.Background()); err != nil { // from now on nothing is kept: a crash
		t.Fatal(err)
	}
	w.engine.Stop()
	w.pass(time.Minute)
	w.store = store.Open(store.Options{Path: w.path, Now: w.clock})
	w.start()
	again := w.clock()
	probes()
	lostFrom := w.clock()
	w.store.Event(store.Event{
		At: lostFrom, Kind: store.KindLost, Reason: "3 rows could not be written",
		Old: lostFrom.Format(time.RFC3339Nano), New: lostFrom.Add(time.Second).Format(time.RFC3339Nano),
	})
	probes()
	w.end()
	h := w.history()
	for _, c := range []struct {
		at  time.Time
		why string // "" = can be explained
	}{
		{began.Add(-time.Minute), "does not reach that far back"},
		{began.Add(2 * time.Second), ""},
		{lastSeen.Add(20 * time.Second), "ended without a word"},
		{again.Add(time.Second), ""},
		{lostFrom.Add(2 * time.Second), "3 rows could not be written"},
		{w.clock().Add(time.Hour), "3 rows could not be written"},
	} {
		err := explain(h, c.at)
		var gap *Gap
		switch {
		case c.why == "" && err != nil:
			t.Errorf("%v: %v", c.at, err)
		case c.why != "" && (!errors.As(err, &gap) || !strings.Contains(gap.Why, c.why)):
			t.Errorf("%v: %v, want %q", c.at, err, c.why)
		case gap != nil && (gap.From.IsZero() || gap.To.Before(gap.From)):
			t.Errorf("%v: a gap from %v to %v", c.at, gap.From, gap.To)
		}
	}
	got, err := h.Replay(context.Background(), Options{Since: began, Until: w.clock(), With: w.config})
	if err != nil || len(got.Gaps) != 2 || len(got.Differences) != 0 {
		t.Errorf("replay: %v, gaps %v, differences %v", err, got.Gaps, got.Differences)
	}
}

// What was deleted for its age or for want of room can't be rebuilt, and what is left can.
func TestExpiredIsIncomplete(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w := newWorld(t, 6, text("10s", "best"))
	began := w.clock()
	keys := w.keys()
	for w.clock().Before(began.Add(45 * time.Minute)) { // four periodic checkpoints
		w.pass(time.Second)
		w.probe(keys)
		w.look() // the engine has taken it
	}
	until := w.clock()
	w.end()
	const kept = 25 * time.Minute
	w.store = store.Open(store.Options{Path: w.path, Now: w.clock, RawFor: kept})
	r, err := store.OpenReader(w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		x, err := r.Extent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !x.ProbesFrom.IsZero() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is deleted within a minute")
		}
	}
	if err := w.store.Close(ctx); err != nil {
		t.Fatal(err)
	}
	h := w.history()
	var gap *Gap
	if _, err := h.Explain(ctx, "best.example", began.Add(10*time.Minute)); !errors.As(err, &gap) || !strings.Contains(gap.Why, "does not reach that far back") {
		t.Errorf("of what is deleted: %v", err)
	}
	if _, err := h.Explain(ctx, "best.example", until.Add(-time.Minute)); err != nil {
		t.Errorf("of what is left: %v", err)
	}
	got, err := h.Replay(ctx, Options{Since: began, Until: until, With: w.config})
	// It begins at a checkpoint, the last one at the latest, which is up to some ten minutes old.
	if err != nil || len(got.Gaps) != 1 || len(got.Differences) != 0 || got.Covered < 5*time.Minute || got.Covered > kept {
		t.Errorf("%v, covered %v, gaps %v, differences %v", err, got.Covered, got.Gaps, got.Differences)
	}
}
