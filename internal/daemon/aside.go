package daemon

import (
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"hard/internal/procs"
)

const (
	lowestPriority = 19
	// spareProcs is one for f and one that stays free.
	spareProcs = 2
)

// unswept runs f without a garbage collection, and then does one: what a reload makes is garbage
// when it ends, and collecting it on the way would take the processor from the listeners, too.
func unswept(f func()) {
	percent := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(percent)
	defer runtime.GC()
	f()
}

// aside runs f, which works for long, where it delays answers least: on a thread of its own at the
// lowest priority, beside the listeners and never in their place. It returns when f has.
//
// Without it a reload of 10,000 names on one core made queries wait up to 41 ms for most of a
// second (docs/performance.md).
func aside(f func()) {
	// A query wakes its listener at once only if Go's scheduler has a processor to spare for it; if f
	// and the collector hold them all it waits for the monitor's next look, up to 10 ms.
	spare.take()
	defer spare.give()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked, so that the thread ends with this goroutine: an unprivileged process may
		// not give a thread its old priority back.
		runtime.LockOSThread()
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, lowestPriority) // 0: this thread
		f()
	}()
	<-done
}

// spare counts the calls of aside under way: a reload may overlap with a trim, or another daemon of
// this process, and they need no more for that.
var spare spareProcessors

type spareProcessors struct {
	mu    sync.Mutex // guards users
	users int
}

func (s *spareProcessors) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users++; s.users == 1 {
		procs.Borrow(spareProcs)
	}
}

func (s *spareProcessors) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		procs.Return(spareProcs)
	}
}
