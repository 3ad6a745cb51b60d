package main

import (
	"runtime/debug"
	"testing"
)

// TestUncollected: after the start the collector runs again, as often as $GOGC says if it is set.
func TestUncollected(t *testing.T) {
	const own = 77
	defer debug.SetGCPercent(debug.SetGCPercent(own))
	limit := debug.SetMemoryLimit(-1)
	for _, c := range []struct {
		gogc string
		want int
	}{{"", steadyGC}, {"77", own}} {
		t.Setenv("GOGC", c.gogc)
		debug.SetGCPercent(own)
		end := uncollected()
		if p := debug.SetGCPercent(-1); p != -1 {
			t.Errorf("GOGC=%q: collected at %d %% during the start", c.gogc, p)
		}
		end()
		if p := debug.SetGCPercent(own); p != c.want {
			t.Errorf("GOGC=%q: %d %% after the start, want %d", c.gogc, p, c.want)
		}
		if l := debug.SetMemoryLimit(-1); l != limit {
			t.Errorf("GOGC=%q: memory limit %d after the start, want %d", c.gogc, l, limit)
		}
	}
}
