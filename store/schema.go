package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const (
	applicationID = 0x68415244 // "hARD", for file(1) and for us: another one's file is not touched
	pageSize      = 4096
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// migrations gives the numbered steps; the last number is our version.
func migrations() []string {
	files, err := fs.Glob(schemaFiles, "schema/*.sql")
	if err != nil {
		panic(err) // a bad pattern
	}
	steps := make([]string, len(files)) // sorted by Glob, 0001.sql first
	for i, f := range files {
		b, err := fs.ReadFile(schemaFiles, f)
		if err != nil {
			panic(err) // embedded
		}
		steps[i] = string(b)
	}
	return steps
}

// loadFirst is how long after a start a migration waits for the first Load. The copy of a large database takes seconds (200 MB:
// 1.4), and a start waits for less: overrides and the last ranking must not be forgone for that.
const loadFirst = 2 * time.Second

// upgrade migrates the database, or leaves that to catchUp.
func (w *writer) upgrade(now time.Time) error {
	steps := migrations()
	version, err := w.identify(len(steps))
	if err != nil {
		return err
	}
	if w.behind = version > 0 && version < len(steps) && now.Before(w.loadBy); w.behind {
		return nil
	}
	return w.migrate(steps)
}

// catchUp makes up for a migration that was left for later, and tells whether the database is as it should be.
func (w *writer) catchUp(now time.Time) bool {
	if !w.behind || w.db == nil {
		return w.db != nil
	}
	w.behind, w.loadBy = false, time.Time{}
	err := w.migrate(migrations())
	if err != nil {
		w.close() // as if it could not be opened; the next attempt migrates at once
		w.fault(err, now)
	}
	return err == nil
}

// migrate brings the database to our version, each step in a transaction of its own, and leaves
// alone what is newer or not ours.
func (w *writer) migrate(steps []string) error {
	version, err := w.identify(len(steps))
	if err != nil {
		return err
	}
	if version > 0 && version < len(steps) {
		if err := w.backup(version); err != nil {
			return fmt.Errorf("backup before migration: %w", err)
		}
		w.log.Info("migrating the database", "database", w.s.o.Path, "from", version, "to", len(steps))
	}
	for ; version < len(steps); version++ {
		if err := w.apply(version+1, steps[version]); err != nil {
			return fmt.Errorf("schema %d: %w", version+1, err)
		}
	}
	return nil
}

// identify gives the version of a database of ours, 0 for a new one.
func (w *writer) identify(ours int) (version int, err error) {
	var id uint32
	if err := w.one(&id, "PRAGMA application_id"); err != nil {
		return 0, err
	}
	if err := w.one(&version, "PRAGMA user_version"); err != nil {
		return 0, err
	}
	var tables int
	if err := w.one(&tables, "SELECT count(*) FROM sqlite_master"); err != nil {
		return 0, err
	}
	switch {
	case id == applicationID && version > ours:
		return 0, &refusedError{fmt.Sprintf("%s has schema version %d, this program knows up to %d; it is left alone",
			w.s.o.Path, version, ours)}
	case id == applicationID && (version > 0) == (tables > 0):
		return version, nil
	case id == applicationID:
		return 0, &damagedError{fmt.Sprintf("schema version %d with %d tables and views", version, tables)}
	case id != 0 || tables > 0:
		return 0, &refusedError{fmt.Sprintf("%s belongs to another application (application_id %#x)", w.s.o.Path, id)}
	}
	// New. These reach the header before there is a -wal, so that it says from now on whose it is.
	return 0, w.script(fmt.Sprintf("PRAGMA page_size = %d", pageSize), "PRAGMA auto_vacuum = INCREMENTAL",
		fmt.Sprintf("PRAGMA application_id = %d", applicationID))
}

// apply runs one step and notes its number, all or nothing.
func (w *writer) apply(version int, step string) error {
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.script(step, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return w.commit()
}

// script runs statements once, unprepared.
func (w *writer) script(texts ...string) error {
	for _, t := range texts {
		if _, err := w.conn.ExecContext(context.Background(), t); err != nil {
			return err
		}
	}
	return nil
}

// backup copies the database as it is before a migration. A copy that is there already is kept:
// it is of the same version, and from before a migration that did not end.
func (w *writer) backup(version int) error {
	to := fmt.Sprintf("%s.v%d", w.s.o.Path, version)
	if exists(to) {
		return nil
	}
	part := to + ".part"
	clean := func() { // of a full disk it would take the rest, and what a kill left would be in the way
		_ = os.Remove(part)
		_ = os.Remove(part + "-journal")
	}
	clean()
	err := w.exec("VACUUM INTO ?", part)
	if err == nil {
		err = os.Chmod(part, fileMode)
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		clean()
	}
	return err
}
