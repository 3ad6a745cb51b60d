package daemon

import (
	"runtime/debug"
	"testing"
)

// TestTrimFollowsAReload: a trim is asked for when a reload has ended, not before, so that the room for its garbage does
// not stay: not even if the trim of the reload before came in the middle of it.
func TestTrimFollowsAReload(t *testing.T) {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	defer debug.SetGCPercent(percent)
	tr := &trimmer{kick: make(chan struct{}, 1)}
	for range 2 {
		tr.around(func() {
			trim()
			if len(tr.kick) > 0 {
				t.Error("a trim was asked for before the reload ended")
			}
		})
		select {
		case <-tr.kick:
		default:
			t.Error("no trim follows")
		}
	}
}
