package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// acquire takes the lock that makes this process the one writer: flock on a file of its own
// beside the database, which the kernel gives up when the process ends, however it ends. The
// database itself is not locked so: SQLite's own locks live there, and readers need none of ours.
func (w *writer) acquire() error {
	if w.lock != nil {
		return nil
	}
	path := lockPath(w.s.o.Path)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return fmt.Errorf("lock file: %w", err)
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		_ = f.Close()
		return &lockedError{path}
	case err != nil:
		_ = f.Close()
		return fmt.Errorf("lock %s: %w", path, err)
	}
	w.lock = f
	return nil
}

func lockPath(database string) string { return database + ".lock" }

// unlock gives the lock back. The file stays: removing it would let two writers lock two files.
// Closing would not do: a process that is just being forked, for a check or a hook, has the file open, too, until its exec.
func (w *writer) unlock() {
	if w.lock != nil {
		_ = unix.Flock(int(w.lock.Fd()), unix.LOCK_UN)
		_ = w.lock.Close()
		w.lock = nil
	}
}
