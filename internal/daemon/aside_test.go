package daemon

import (
	"runtime"
	"testing"
)

// TestAsideOverlaps: two that overlap, as a reload and a trim may, leave Go's scheduler with as many
// processors as it had.
func TestAsideOverlaps(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	for range 5 {
		second, first := make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			spare.during(func() { close(first); <-second })
		}()
		<-first
		spare.during(func() {
			close(second)
			<-done
		})
	}
	if n := runtime.GOMAXPROCS(0); n != before {
		t.Errorf("GOMAXPROCS went from %d to %d", before, n)
	}
}
