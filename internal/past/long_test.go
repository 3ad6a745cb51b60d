package past

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"hard/internal/rank"
)

// A day of 40 endpoints, probed every two seconds, is replayed: the figure of docs/replay.md.
func TestReplayOfADay(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("set HARD_LONG=1: writes 1.7 million probes")
	}
	const names, each, day = 10, 4, 24 * time.Hour
	var b strings.Builder
	b.WriteString("[upstream]\nservers = [\"127.0.0.9\"]\n[defaults]\ncheck = \"tcp://:80\"\n")
	for i := range names {
		fmt.Fprintf(&b, "[name.\"n%d.example\"]\ncandidates = [\"192.0.2.%d\", \"192.0.2.%d\", \"192.0.2.%d\", \"192.0.2.%d\"]\n", i, i*4, i*4+1, i*4+2, i*4+3)
	}
	w := newWorldAt(t, time.Now().Add(-day).Round(0), 1, b.String())
	since := w.clock()
	keys := w.keys()
	samples := 0
	for range int(day / (2 * time.Second)) {
		for i, k := range keys {
			w.pass(2 * time.Second / time.Duration(len(keys)))
			total := time.Duration(5+i%each)*time.Millisecond + time.Duration(w.rnd.IntN(3_000_000))
			s := rank.Sample{Key: k, Final: true, Status: 200, Phases: rank.Phases{Connect: total / 3, FirstByte: total / 2, Total: total}}
			if w.rnd.IntN(2000) == 0 {
				s.Outcome, s.Status = rank.Refused, 0
			}
			s.At = w.clock().Add(-total)
			w.engine.Sample(s)
			samples++
		}
		for samples%8000 == 0 && w.store.Stats().Queued > 10000 {
			time.Sleep(10 * time.Millisecond) // the writer's pace, not a wait for an effect
		}
	}
	until := w.clock()
	w.end()
	h := w.history()
	began := time.Now()
	got, err := h.Replay(context.Background(), Options{Since: since, Until: until, With: w.config})
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d probes in %v, covered %v, gaps %v", samples, took, got.Covered, got.Gaps)
	if len(got.Differences) != 0 {
		t.Errorf("%d differences, the first: %v", len(got.Differences), got.Differences[0].String())
	}
	began = time.Now()
	if _, err := h.Explain(context.Background(), "n3.example", until.Add(-time.Minute)); err != nil {
		t.Error(err)
	}
	t.Logf("explained in %v", time.Since(began))
}
