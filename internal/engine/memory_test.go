package engine

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"
	"weak"

	"hard/internal/config"
)

// running starts an engine that stops at the end of the test.
func running(t *testing.T, c *config.Config, far *far) *Engine {
	t.Helper()
	e, err := New(Options{
		Config: c, Publisher: far, Prober: far, Recorder: far, LastReply: func() time.Time { return time.Time{} },
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	t.Cleanup(e.Stop)
	return e
}

const (
	staticName = "[name.\"a.example\"]\ncheck = \"static:\"\ncandidates = [\"192.0.2.1\"]\n"
	probedName = "[name.\"a.example\"]\ncheck = \"tcp://:80\"\ncandidates = [\"192.0.2.1\"]\n"
)

// TestReloadFreesTheOld: once another configuration is in force nothing keeps the one before alive, the first not either.
func TestReloadFreesTheOld(t *testing.T) {
	for _, text := range []string{staticName, probedName} {
		var before []weak.Pointer[config.Config]
		load := func(more string) *config.Config {
			c := parse(t, text+more)
			before = append(before, weak.Make(c))
			return c
		}
		e := running(t, load(""), newFar())
		for _, more := range []string{"ttl = \"2s\"\n", "ttl = \"3s\"\n"} {
			if err := e.Apply(context.Background(), load(more)); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range before[:2] {
			for until := time.Now().Add(20 * time.Second); c.Value() != nil; runtime.GC() {
				if time.Now().After(until) {
					t.Fatalf("configuration %d is still there", i)
				}
			}
		}
		runtime.KeepAlive(e)
	}
}

// TestStaticNamesAreNoChecks: the prober hears only of names that have something to probe, and when they have no more.
func TestStaticNamesAreNoChecks(t *testing.T) {
	far := newFar()
	e := running(t, parse(t, staticName), far)
	for i, step := range []struct {
		text   string
		checks int // -1: the prober has not heard of the name
	}{{staticName, -1}, {probedName, 1}, {staticName, 0}} {
		if err := e.Apply(context.Background(), parse(t, step.text)); err != nil {
			t.Fatal(err)
		}
		far.with(func() {
			checks, heard := far.checks["a.example"]
			if heard != (step.checks >= 0) || heard && len(checks) != step.checks {
				t.Errorf("step %d: checks %v, heard of %v", i, checks, heard)
			}
		})
	}
}
