package store

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever was forked from us and has not come to its exec yet has our files open, and must not hold up
// the next instance.
func TestLockEndsWithItsOwner(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	first, next := &writer{s: &Store{o: Options{Path: path}}}, &writer{s: &Store{o: Options{Path: path}}}
	if err := first.acquire(); err != nil {
		t.Fatal(err)
	}
	forked, err := unix.Dup(int(first.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forked)
	var held *lockedError
	if err := next.acquire(); !errors.As(err, &held) {
		t.Errorf("two writers: %v", err)
	}
	first.unlock()
	if err := next.acquire(); err != nil {
		t.Error(err)
	}
	next.unlock()
}
