// Package procs lends processors of Go's scheduler (GOMAXPROCS) beyond those that
// there are: to who holds one without using it, or would take one from others for
// long. It is the only package that sets GOMAXPROCS, so that two who do it at the
// same time don't give back each other's.
package procs

import (
	"runtime"
	"sync"
)

var (
	mu   sync.Mutex // guards the rest
	lent int
	own  int // GOMAXPROCS without those lent; valid while some are
)

// Borrow adds n processors until Return. It stops all goroutines for some 50 us.
func Borrow(n int) { change(n) }

// Return gives n borrowed processors back.
func Return(n int) { change(-n) }

func change(n int) {
	mu.Lock()
	defer mu.Unlock()
	if lent == 0 {
		own = runtime.GOMAXPROCS(0)
	}
	lent += n
	runtime.GOMAXPROCS(own + lent)
}

// Own is GOMAXPROCS without the processors that are lent.
func Own() int {
	mu.Lock()
	defer mu.Unlock()
	if lent == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return own
}
