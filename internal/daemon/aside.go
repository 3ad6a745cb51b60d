package daemon

import (
	"runtime"
	"sync"
	"syscall"

	"hard/internal/procs"
)

const (
	lowestPriority = 19
	// spareProcs is one for f and one that stays free.
	spareProcs = 2
)

// lowly runs f, which works for long, where it delays answers least: on a thread of its own at the
// lowest priority. It returns when f has. What stops the world is not for f: who waits for a processor
// meanwhile makes everybody wait.
func lowly(f func()) {
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

// spare lends processors to who works for long beside the listeners, never in their place. A query wakes its listener
// at once only if Go's scheduler has one to spare for it; if that work and the collector hold them all it
// waits for the monitor's next look, up to 10 ms: without it a reload of 10,000 names on one core made
// queries wait up to 41 ms for most of a second (docs/performance.md). It counts who is at work: a reload may
// overlap with a trim, or another daemon of this process, and they need no more for that.
var spare spareProcessors

type spareProcessors struct {
	mu    sync.Mutex // guards users
	users int
}

// during runs f with the spare processors.
func (s *spareProcessors) during(f func()) {
	s.take()
	defer s.give()
	f()
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
