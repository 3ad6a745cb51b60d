package past

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sameTimes = cmp.Options{
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// What is explained of the past is the very decision, with every verdict, reason, estimate and
// counter, that the live engine told of itself at that instant.
func TestExplainIsWhatWas(t *testing.T) {
	t.Parallel()
	seeds := uint64(6)
	if os.Getenv("HARD_LONG") != "" {
		seeds = 100
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, text("10s", "best"), text("2s", "group"))
			w.run(6000)
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
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, text("10s", "best"))
			since := w.clock()
			w.run(6000)
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
				if n.Then.Switches != n.Now.Switches || n.Then.Dead != n.Now.Dead || n.Then.Latency != n.Now.Latency {
					t.Errorf("%s: then %+v, now %+v", n.Name, n.Then, n.Now)
				}
				switches += n.Then.Switches
			}
			if !got.Unchanged || switches < 20 {
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
