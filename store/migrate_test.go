package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	sqlite3 "modernc.org/sqlite/lib"

	"hard/internal/rank"
)

// released makes a database with a row of everything, as a release keeps one of its schema in
// testdata: HARD_RELEASE=1 go test -run TestMigrations ./store writes that of the newest schema.
func released(t *testing.T, path string) {
	t.Helper()
	at := time.UnixMilli(1_700_000_000_000)
	s, _ := start(t, Options{Path: path, Now: func() time.Time { return at.Add(5 * time.Minute) },
		RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour})
	for i, k := range []rank.Key{east, west, east} {
		p := probeAt(k, at.Add(time.Duration(i)*time.Second))
		p.Taken = p.End().Add(time.Millisecond)
		if k == west {
			p.Outcome, p.Status, p.Detail = rank.Timeout, 0, "no reply in 1s"
			p.Phases = rank.Phases{Connect: time.Millisecond, Total: time.Second}
		}
		s.Record(p)
		s.Put(CurrentState{Key: k, State: rank.Healthy, Weight: 100, Checked: p.At, Health: []byte(`{"State":"healthy"}`)})
	}
	s.Event(Event{At: at, Key: east, Kind: "state", Old: "unknown", New: "healthy", Reason: "first result: ok"})
	s.Answer(AnswerChange{At: at, Name: east.Name, Type: "A", Addresses: []netip.Addr{east.Addr}, Reason: "the fastest"})
	s.Input(Input{At: at, Kind: "reply", Data: []byte(`{}`)})
	s.Checkpoint(Checkpoint{At: at, Name: east.Name, Memory: []byte(`{}`)})
	s.PutConfig("h", "[name]")
	s.PutMemory(east.Name, []byte(`{}`))
	s.PutAddresses(east.Name, east.Candidate, []netip.Addr{east.Addr})
	s.PutResolvers([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")})
	err := s.PutOverride(context.Background(), Override{Name: east.Name, Candidate: "east", What: ForceState, Value: "drain", Who: "ann", Why: "kernel update"})
	if err != nil {
		t.Fatal(err)
	}
	s.sync(t)
	if err := s.do(context.Background(), func(w *writer) error { return w.rollUp(at.Add(time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	closeNow(t, s)
}

// TestMigrations opens a database of every released schema: nothing in it may be lost.
func TestMigrations(t *testing.T) {
	t.Parallel()
	if os.Getenv("HARD_RELEASE") != "" {
		path := dbPath(t)
		released(t, path)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, fmt.Sprintf("testdata/v%d.db", len(migrations())), b)
	}
	files, err := filepath.Glob("testdata/v*.db")
	if err != nil || len(files) != len(migrations()) {
		t.Fatalf("%d databases of released schemas, want %d: %v", len(files), len(migrations()), err)
	}
	fresh := dbPath(t)
	released(t, fresh)
	const schema = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
	for i := range files {
		file := fmt.Sprintf("testdata/v%d.db", i+1)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := dbPath(t)
		write(t, path, b)
		s, _ := start(t, Options{Path: path, RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour})
		got, err := s.Load(context.Background())
		if err != nil || len(got.Endpoints) != 2 || len(got.Overrides) != 1 || len(got.Memories) != 1 || len(got.Addresses) != 1 || len(got.Resolvers) != 1 {
			t.Errorf("%s: %v %+v", file, err, got)
		}
		closeNow(t, s)
		for query, want := range map[string]int{
			"SELECT count(*) FROM probes WHERE total_ms IN (6, 1000)": 3,
			"SELECT count(*) FROM current":                            2,
			"SELECT count(*) FROM events":                             1,
			"SELECT count(*) FROM answers":                            1,
			"SELECT sum(n) FROM rollups":                              3,
			"SELECT sum(n) FROM rollups WHERE time >= '2023-11-14'":   3,
			"SELECT count(*) FROM config WHERE text = '[name]'":       1,
			"SELECT count(*) FROM input":                              1,
			"SELECT count(*) FROM checkpoint":                         1,
		} {
			if n := count(t, path, query); n != want {
				t.Errorf("%s: %s: %d, want %d", file, query, n, want)
			}
		}
		if i+1 == len(files) && shell(t, path, schema) != shell(t, fresh, schema) {
			t.Errorf("%s is not of the newest schema: a change of a released one needs a migration", file)
		}
		if old := i+1 < len(migrations()); exists(fmt.Sprintf("%s.v%d", path, i+1)) != old {
			t.Errorf("%s: a backup where none belongs, or none", file)
		}
	}
}

func TestMigrationIsAllOrNothing(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	make1(t, path)
	s, _ := start(t, Options{Path: path})
	s.sync(t)
	ours := len(migrations())
	bad := append(migrations(), "CREATE TABLE extra (x); INSERT INTO nowhere VALUES (1)")
	good := append(migrations(), "CREATE TABLE extra (x)", "CREATE TABLE more (x)")
	_ = s.do(context.Background(), func(w *writer) error {
		if err := w.migrate(bad); err == nil {
			t.Error("a bad step succeeds")
		}
		w.rollback()
		return nil
	})
	if got := shell(t, path, "PRAGMA user_version; SELECT count(*) FROM sqlite_master WHERE name = 'extra'"); got != fmt.Sprintf("%d\n0", ours) {
		t.Errorf("after a bad step: %s", got)
	}
	_ = s.do(context.Background(), func(w *writer) error {
		if err := w.migrate(good); err != nil {
			t.Error(err)
		}
		return nil
	})
	if got := shell(t, path, "PRAGMA user_version; SELECT count(*) FROM extra, more"); got != fmt.Sprintf("%d\n0", ours+2) {
		t.Errorf("after good steps: %s", got)
	}
	backup := fmt.Sprintf("%s.v%d", path, ours)
	if got := shell(t, backup, "PRAGMA user_version; PRAGMA application_id; SELECT count(*) FROM probes"); got !=
		fmt.Sprintf("%d\n%d\n1", ours, applicationID) {
		t.Errorf("backup: %s", got)
	}
}

// old puts a database of the first schema, with an override, at path, with so many kB more in it, and a time that
// no calendar has.
func old(t *testing.T, path string, kB int) {
	t.Helper()
	b, err := os.ReadFile("testdata/v1.db")
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, b)
	shell(t, path, fmt.Sprintf(`PRAGMA journal_mode = DELETE; INSERT INTO config (at_ms, hash, text) VALUES (1, 'x', printf('%%.*c', %d, 'x'));
		INSERT INTO rollup_minute VALUES (1000000000000000000, 1, 1, 1, 1, 1, 1, 1)`, kB<<10))
}

// The stored state doesn't wait for a migration, which may take longer than a start waits.
func TestLoadGoesBeforeAMigration(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	old(t, path, 0)
	version := func(w *writer) (n int) {
		if err := w.one(&n, "PRAGMA user_version"); err != nil {
			t.Error(err)
		}
		return n
	}
	began, before, after := time.Now(), 0, 0
	s, _ := start(t, Options{Path: path, RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour})
	s.Event(Event{At: time.Now(), Kind: "start"}) // doesn't hurry it either
	got := newSaved()
	err := s.wait(context.Background(), call{early: true, f: func(w *writer) error {
		before = version(w)
		return w.load(got)
	}})
	if err != nil || len(got.Overrides) != 1 || len(got.Endpoints) != 2 {
		t.Errorf("%v %+v", err, got)
	}
	if before != 1 && time.Since(began) < loadFirst {
		t.Errorf("schema %d before the state was read", before)
	}
	if err := s.do(context.Background(), func(w *writer) error { after = version(w); return nil }); err != nil || after != len(migrations()) {
		t.Errorf("schema %d afterwards: %v", after, err)
	}
	until(t, "written", func() bool { return s.Stats().Written == 1 })
}

// Where nobody asks for the state, or a stop comes first, the migration is made all the same.
func TestMigrationWithoutLoad(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"a successor": {Successor: true}, "nobody asks": {}} {
		path := dbPath(t)
		old(t, path, 0)
		o.Path, o.RawFor, o.RollupFor = path, 1e6*time.Hour, 1e6*time.Hour
		s, _ := start(t, o)
		s.Event(Event{At: time.Now(), Kind: "start"})
		until(t, name, func() bool { return s.Stats().Written == 1 })
		closeNow(t, s)
	}
	path := dbPath(t)
	old(t, path, 0)
	s, _ := start(t, Options{Path: path})
	s.Event(Event{At: time.Now(), Kind: "start"})
	closeNow(t, s)
	if got := shell(t, path, "PRAGMA user_version; SELECT count(*) FROM events WHERE kind = 'start'"); got != fmt.Sprintf("%d\n1", len(migrations())) {
		t.Errorf("after a stop at once: %s", got)
	}
}

// Without room for the copy nothing is migrated, the stored state is read all the same, no part of the
// copy stays, and it is tried again with back-off.
func TestMigrationWithoutRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("no right to mount a small disk:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "hard.db")
	old(t, path, 1200)
	s, _ := start(t, Options{Path: path, RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour})
	if got, err := s.Load(context.Background()); err != nil || len(got.Overrides) != 1 {
		t.Errorf("%v %+v", err, got)
	}
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "full", s.in(StateFull))
	if got := shell(t, path, "PRAGMA user_version"); got != "1" {
		t.Errorf("schema %s without a copy", got)
	}
	if files, _ := filepath.Glob(path + ".v1*"); len(files) > 0 {
		t.Errorf("on a full disk there is %v", files)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Skip("no right to remount:", err)
	}
	s.Retry()
	until(t, "migrated and written", func() bool { return s.Stats().Written == 1 })
	if !exists(path + ".v1") {
		t.Error("no copy")
	}
}

// A full disk is not tried again at once, also where the database is closed.
func TestFullDiskBacksOff(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("PRAGMA max_page_count = 2; CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x)")
	if code(err) != sqlite3.SQLITE_FULL {
		t.Fatal(err)
	}
	w := &writer{s: &Store{}, log: slog.New(slog.DiscardHandler)}
	now := time.Now()
	for want := time.Second; want < 10*time.Second; want *= 2 {
		w.fault(fmt.Errorf("backup before migration: %w", err), now)
		if w.openAt.Sub(now) != want || w.s.stats.State != StateFull {
			t.Errorf("tried again after %v, want %v; %v", w.openAt.Sub(now), want, w.s.stats.State)
		}
		now = w.openAt
	}
}
