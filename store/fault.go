package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// refusedError is a database that must be left alone.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// damagedError is a file that is not a database any more.
type damagedError struct{ text string }

func (e *damagedError) Error() string { return e.text }

// lockedError is a database that another instance of ours has.
type lockedError struct{ path string }

func (e *lockedError) Error() string { return "another instance holds " + e.path }

// code is the primary result code of a SQLite error, and 0 of any other.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

// hopeless tells whether an error is the rows' own and would come again with them for ever.
func hopeless(err error) bool {
	switch code(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_ERROR,
		sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE:
		return true
	}
	return false
}

// fault decides what becomes of the database after an error. The rows are safe in the queue.
func (w *writer) fault(err error, now time.Time) {
	w.s.mu.Lock()
	w.s.stats.WriteErrors++
	w.s.mu.Unlock()

	state := w.stateOf(err)
	switch {
	case state == StateBusy: // the next batch tries again
	case hopeless(err) && w.db != nil: // so too; the third failure drops the rows
	case code(err) == sqlite3.SQLITE_FULL:
		w.writeAt = now.Add(w.nextBackoff())
		w.openAt = w.writeAt // where it is closed, as a migration had no room
	default:
		w.close()
		var damaged *damagedError
		if c := code(err); c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB || errors.As(err, &damaged) {
			w.setAside(err)
		}
		w.openAt = now.Add(w.nextBackoff())
	}
	w.become(state, describe(err, w.s.o.Path))
}

// ioErrors are words for what SQLite gives a number alone: the second byte of the code of an I/O
// error (https://sqlite.org/rescode.html#extrc).
var ioErrors = map[int]string{
	1: "a read failed", 2: "a read ended early", 3: "a write failed", 4: "fsync failed", 5: "fsync of the directory failed",
	6: "it can't be truncated", 10: "a file can't be deleted", 15: "it can't be locked", 18: "-shm can't be opened",
	19: "-shm can't grow", 20: "-shm can't be locked", 21: "-shm can't be mapped", 34: "-shm was truncated by somebody",
}

// describe is an error in words that an operator can act on.
func describe(err error, path string) string {
	text := err.Error()
	var e *sqlite.Error
	if errors.As(err, &e) && code(err) == sqlite3.SQLITE_IOERR && ioErrors[e.Code()>>8] != "" {
		text += ": " + ioErrors[e.Code()>>8]
	}
	var fs unix.Statfs_t
	if c := code(err); (c == sqlite3.SQLITE_IOERR || c == sqlite3.SQLITE_CANTOPEN || c == sqlite3.SQLITE_READONLY) &&
		unix.Statfs(filepath.Dir(path), &fs) == nil && fs.Flags&unix.ST_RDONLY != 0 {
		text += "; the file system is read-only"
	}
	return text
}

func (w *writer) stateOf(err error) State {
	var (
		refused *refusedError
		locked  *lockedError
	)
	switch {
	case errors.As(err, &refused):
		return StateRefused
	case errors.As(err, &locked):
		return StateLocked
	}
	switch c := code(err); {
	case busy(err):
		return StateBusy
	case c == sqlite3.SQLITE_FULL, errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return StateFull
	case (c == sqlite3.SQLITE_IOERR || c == sqlite3.SQLITE_CANTOPEN) && noSpace(w.s.o.Path):
		return StateFull
	}
	return StateFailed
}

// busy tells whether an error is no more than somebody else's lock.
func busy(err error) bool {
	c := code(err)
	return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED
}

// noSpace tells whether a file system has no room for -shm to grow, which SQLite reports as an
// I/O error like any other.
func noSpace(path string) bool {
	const shmStep = 32 << 10
	var fs unix.Statfs_t
	err := unix.Statfs(filepath.Dir(path), &fs)
	return err == nil && fs.Bavail*uint64(fs.Bsize) < 2*shmStep
}

// nextBackoff doubles from a second to half a minute. open resets it when a batch went through.
func (w *writer) nextBackoff() time.Duration {
	w.backoff = min(max(2*w.backoff, leastBackoff), mostBackoff)
	return w.backoff
}

// unavailable says why the database is closed.
func (w *writer) unavailable() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.stats.State == StateOff {
		return errors.New("no database is configured")
	}
	return fmt.Errorf("database %s: %s: %s", w.s.o.Path, w.s.stats.State, w.s.stats.Reason)
}

// setAside renames a damaged database, so that a new one can begin. Nothing is deleted.
func (w *writer) setAside(why error) {
	path := w.s.o.Path
	to := path + ".corrupt-" + w.s.o.Now().UTC().Format("20060102T150405Z")
	for i := 1; exists(to); i++ {
		to = fmt.Sprintf("%s.corrupt-%s-%d", path, w.s.o.Now().UTC().Format("20060102T150405Z"), i)
	}
	if err := os.Rename(path, to); err != nil {
		w.log.Error("a damaged database can't be set aside", "database", path, "damage", why, "error", err)
		return
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, to+suffix); err != nil && !os.IsNotExist(err) {
			w.log.Error("a damaged database can't be set aside", "database", path+suffix, "error", err)
		}
	}
	w.backoff = 0
	w.log.Error("the database is damaged; it was set aside and a new one begins",
		"database", path, "damage", why, "aside", to)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
