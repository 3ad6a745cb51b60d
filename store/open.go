package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"hard/internal/rank"
)

// DirMode is the mode of a database's directory: the group reads, and files of a new writer keep the group.
const DirMode = 0o750 | os.ModeSetgid

const (
	fileMode = 0o640

	// busyWait is how long the writer waits for somebody else's lock before the rows go back.
	busyWait = 500 * time.Millisecond
)

// open tries to open the database, when it is time to, and tells whether it is open.
func (w *writer) open(now time.Time) bool {
	if w.s.o.Path == "" {
		w.become(StateOff, "no database is configured")
		return false
	}
	if now.Before(w.openAt) {
		return false
	}
	for try := 0; ; try++ {
		err := w.tryOpen()
		if err == nil {
			break
		}
		w.close()
		var locked *lockedError
		if errors.As(err, &locked) && now.Before(w.until) {
			w.openAt = now.Add(predecessorLook)
			return false
		}
		w.fault(err, now)
		if try == 0 && w.backoff == leastBackoff && !exists(w.s.o.Path) && w.lock != nil {
			continue // it was damaged and set aside: begin the new one at once
		}
		return false
	}
	w.held, w.writeAt = false, time.Time{}
	w.become(StateOK, "")
	return true
}

// tryOpen goes from a path to a connection that can write. A file that is not ours is not even
// opened by SQLite, which might roll its -wal.
func (w *writer) tryOpen() error {
	path := w.s.o.Path
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := w.strange(path); err != nil {
		return err
	}
	if err := w.acquire(); err != nil {
		return err
	}
	if err := w.inspect(path); err != nil {
		return err
	}
	if err := w.create(path); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dataSource(path, "rwc", busyWait,
		"cache_size(-256)", "temp_store(MEMORY)", "cell_size_check(ON)", "foreign_keys(OFF)"))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	w.db = db
	w.st = make(map[string]*sql.Stmt)
	w.ids = make(map[rank.Key]*dimension)
	w.results = make(map[resultKey]*dimension)
	if w.conn, err = db.Conn(context.Background()); err != nil {
		return err
	}
	if err := w.upgrade(time.Now()); err != nil {
		return err
	}
	if err := w.tune(); err != nil {
		return err
	}
	var last sql.NullInt64
	if err := w.one(&last, "SELECT value FROM setting WHERE key = 'written_ms'"); err != nil {
		return err
	}
	w.clock.opened(time.Now(), w.s.o.Now(), timeOf(last))
	w.file, err = os.Stat(path)
	return err
}

// dataSource is the driver's name of a database.
func dataSource(path, mode string, busy time.Duration, pragmas ...string) string {
	q := url.Values{"mode": {mode}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// makeDir makes the directory, with its group and mode, where there is none.
func makeDir(dir string) error {
	if exists(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, DirMode.Perm()); err != nil {
		return err
	}
	return os.Chmod(dir, DirMode)
}

// strange refuses, before anything is made beside it, a file that was never ours: [store].path may be
// a mistake. One that is no database at all can be ours and damaged; then our lock file is beside it.
func (w *writer) strange(path string) error {
	if w.lock != nil {
		return nil
	}
	err := identify(path)
	var damaged *damagedError
	if errors.As(err, &damaged) {
		if lock := lockPath(path); !exists(lock) {
			return &refusedError{fmt.Sprintf("%s is %s, and not one of ours, which would have %s beside it: move it away, or name another file",
				path, damaged.text, filepath.Base(lock))}
		}
		return nil
	}
	return err
}

// inspect looks at the first bytes of the file, if there is one, now that it is locked. It does so only
// at the first sight of a file: closing any descriptor of it gives up the POSIX locks that this process
// has on it, and a reader of ours may have some while the writer opens the same file again.
func (w *writer) inspect(path string) error {
	if fi, err := os.Stat(path); err == nil && w.file != nil && os.SameFile(fi, w.file) {
		return nil
	}
	return identify(path)
}

// identify tells by its first bytes whether a file can be ours; nil, too, if there is none.
func identify(path string) error {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() { // opening a named pipe would wait for its writer
		return &refusedError{fmt.Sprintf("%s is not a file", path)}
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, 100) // https://sqlite.org/fileformat2.html, section 1.3
	n, err := io.ReadFull(f, header)
	switch {
	case n == 0 && err == io.EOF:
		return nil
	case err != nil && err != io.ErrUnexpectedEOF:
		return err
	case n < len(header) || string(header[:16]) != "SQLite format 3\x00":
		return &damagedError{"not a SQLite database"}
	}
	if id := binary.BigEndian.Uint32(header[68:]); id != 0 && id != applicationID {
		return &refusedError{fmt.Sprintf("%s belongs to another application (application_id %#x)", path, id)}
	}
	return nil
}

// create makes the file where there is none, so that its mode is right from the start; SQLite
// gives -wal and -shm the same. A -wal that is left of a deleted database must not come to life
// in the new one.
func (w *writer) create(path string) error {
	fi, err := os.Stat(path)
	if err == nil && fi.Size() > 0 {
		return nil
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(fileMode), f.Close())
}

// tune sets what the connection needs beyond its data source.
func (w *writer) tune() error {
	var mode string
	if err := w.one(&mode, "PRAGMA journal_mode"); err != nil {
		return err
	}
	if mode != "wal" {
		if err := w.one(&mode, "PRAGMA journal_mode = WAL"); err != nil {
			return err
		}
	}
	limit := w.walLimit()
	for _, p := range []string{
		"PRAGMA synchronous = NORMAL", // a power cut may cost the last second, never the file
		fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", limit/4/pageSize),
		fmt.Sprintf("PRAGMA journal_size_limit = %d", limit/2),
	} {
		if _, err := w.conn.ExecContext(context.Background(), p); err != nil {
			return err
		}
	}
	// Keep -wal and -shm when the last connection closes: without them, members of the group,
	// who may not write the directory, could not open the database after a clean stop.
	return w.conn.Raw(func(c any) error {
		fc, ok := c.(sqlite.FileControl)
		if !ok {
			return errors.New("the driver can't keep the -wal")
		}
		_, err := fc.FileControlPersistWAL("main", 1)
		return err
	})
}

// replaced tells whether the file at the path is another one than the one that is open.
func (w *writer) replaced() bool {
	fi, err := os.Stat(w.s.o.Path)
	if err == nil && os.SameFile(fi, w.file) {
		return false
	}
	w.log.Warn("the database was deleted or replaced while open; opening what is there now", "database", w.s.o.Path)
	return true
}

// leave closes a database that is no longer at its path. Its -wal still is, and SQLite, which
// leaves it there, would replay it into whatever file stands there now, and destroy that. So all
// goes into the file that was moved away, and a -wal that can't be emptied is removed.
func (w *writer) leave() {
	if err := w.checkpoint(); err != nil {
		w.log.Debug("the moved database misses its last changes", "error", err)
	}
	ours := w.wal
	w.close()
	now, err := os.Stat(w.s.o.Path + "-wal")
	if err != nil || ours == nil || !os.SameFile(ours, now) {
		return
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(w.s.o.Path + suffix); err != nil && !os.IsNotExist(err) {
			w.log.Error("what a moved database left can't be removed", "file", w.s.o.Path+suffix, "error", err)
		}
	}
}

// close closes the database; the lock stays with us.
func (w *writer) close() {
	w.rollback()
	for _, st := range w.st {
		_ = st.Close()
	}
	w.st = nil
	if w.conn != nil {
		_ = w.conn.Close()
	}
	if w.db != nil {
		_ = w.db.Close()
	}
	w.db, w.conn, w.tx, w.wal = nil, nil, false, nil
}
