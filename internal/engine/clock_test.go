package engine

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"hard/internal/rank"
)

// reading is what time.Now gives on a host: a wall clock's time, which may have been set, and a monotonic
// clock's, which can't. A bubble's has no monotonic part, and package time no way to make one: its Time is a
// word with bit 63 set, 33 bits of seconds since 1885 and 30 of nanoseconds, and a word with the monotonic time.
func reading(wall time.Time, monotonic time.Duration) time.Time {
	seconds := wall.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	t := wall.UTC()
	*(*[2]uint64)(unsafe.Pointer(&t)) = [2]uint64{1<<63 | uint64(seconds)<<30 | uint64(wall.Nanosecond()), uint64(monotonic)}
	return t
}

// Fault 11: the wall clock is set by a year, either way, while the engine runs. No answer and no state
// changes for it, a hold ends when it would have, and the next failures still count.
func TestFault11ClockIsSet(t *testing.T) {
	for name, by := range map[string]time.Duration{"ahead": 365 * 24 * time.Hour, "back": -365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var step atomic.Int64
				now := func() time.Time {
					return reading(time.Now().Add(time.Duration(step.Load())), time.Since(began)+1)
				}
				before := now()
				step.Store(int64(by))
				if after := now(); after.Sub(before) != 0 || after.Round(0).Sub(before.Round(0)) != by {
					t.Fatalf("%v after %v is no clock that was set", after, before)
				}
				step.Store(0)
				f := newFar()
				e, err := New(Options{Config: parse(t, "[name.\"a.example\"]\ncandidates = [\"10.0.0.1\", \"10.0.0.2\"]\ncheck = \"tcp://:1\"\n"),
					Publisher: f, Prober: f, Recorder: f, Log: slog.New(slog.DiscardHandler), Now: now})
				if err != nil {
					t.Fatal(err)
				}
				e.Start()
				defer e.Stop()
				s := &stage{Engine: e, far: f, t: t}
				// Each second both are probed; the first's latency is as given, the second's 20 ms.
				second := func(first time.Duration) {
					for addr, latency := range map[string]time.Duration{"10.0.0.1": first, "10.0.0.2": 20 * time.Millisecond} {
						at := now().Add(-latency)
						out := rank.OK
						if latency < 0 {
							out, at = rank.Refused, now()
							latency = time.Millisecond
						}
						s.sampleAt("a.example", addr, at, out, latency)
					}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				answer := func() string {
					got, _ := s.ask(t, "a.example.")
					return got[0]
				}
				for range 60 {
					second(5 * time.Millisecond)
				}
				if answer() != "10.0.0.1" {
					t.Fatalf("before: %s", answer())
				}
				f.with(func() { f.events, f.answers = nil, nil })
				step.Store(int64(by))
				for range 60 {
					second(5 * time.Millisecond)
					if answer() != "10.0.0.1" {
						t.Fatalf("after the clock was set: %s", answer())
					}
				}
				f.with(func() {
					if len(f.answers) > 0 || slices.ContainsFunc(f.events, func(e Event) bool { return e.Kind == "state" }) {
						t.Errorf("changes: %v %v", f.answers, f.events)
					}
				})
				// A hold of 10 s has begun when the clock is set back again.
				held := 0
				for answer() == "10.0.0.1" && held < 200 {
					if held++; held == 10 {
						step.Store(0)
					}
					second(80 * time.Millisecond)
				}
				if held < 10 || held > 100 {
					t.Errorf("the other one took over after %d s", held)
				}
				t.Logf("took over after %d s", held)
				step.Store(int64(by))
				second(-1)
				second(-1)
				if snap, err := e.Snapshot(t.Context(), "a.example"); err != nil || snap.Names[0].Endpoints[0].Health.State != rank.Unhealthy {
					t.Errorf("two refusals after another step: %v %v", snap, err)
				}
			})
		})
	}
}

// sampleAt feeds one result with a time of its own.
func (s *stage) sampleAt(name, addr string, at time.Time, o rank.Outcome, latency time.Duration) {
	s.t.Helper()
	s.Sample(rank.Sample{Key: rank.Key{Name: name, Candidate: addr, Addr: netip.MustParseAddr(addr)}, At: at, Outcome: o, Final: true,
		Phases: rank.Phases{Connect: latency, FirstByte: latency, Total: latency}})
	synctest.Wait()
}
