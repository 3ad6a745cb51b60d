package procs

import (
	"runtime"
	"testing"
)

func TestBorrow(t *testing.T) {
	own := runtime.GOMAXPROCS(0)
	for _, step := range []struct{ change, lent int }{{1, 1}, {2, 3}, {-1, 2}, {-2, 0}, {4, 4}, {-4, 0}} {
		if step.change > 0 {
			Borrow(step.change)
		} else {
			Return(-step.change)
		}
		if n := runtime.GOMAXPROCS(0); n != own+step.lent || Own() != own {
			t.Errorf("%d lent: %d processors, %d of them own; want %d, %d", step.lent, n, Own(), own+step.lent, own)
		}
	}
}
