package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// raw opens a database without any of our care, as somebody else would.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func must(t testing.TB, db *sql.DB, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(q, err)
		}
	}
}

// count is the single number of a query, read by a reader of its own.
func count(t testing.TB, path, query string) (n int) {
	t.Helper()
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.db.QueryRow(query).Scan(&n); err != nil {
		t.Fatal(query, err)
	}
	return n
}

func (s *Store) in(want State) func() bool {
	return func() bool { return s.Stats().State == want }
}

// make1 makes a database with one probe and one override, and stops.
func make1(t testing.TB, path string) {
	t.Helper()
	s, _ := start(t, Options{Path: path})
	s.Record(probeAt(east, time.Now()))
	if err := s.PutOverride(context.Background(), Override{Name: "a", What: ForceState, Value: "down"}); err != nil {
		t.Fatal(err)
	}
	closeNow(t, s)
}

func TestDamagedFileIsSetAside(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, path string){
		"zeros":     func(t *testing.T, path string) { make1(t, path); write(t, path, make([]byte, 8192)) },
		"text":      func(t *testing.T, path string) { make1(t, path); write(t, path, []byte("not a database\n")) },
		"truncated": func(t *testing.T, path string) { make1(t, path); truncate(t, path, 8192+100) },
		"one byte":  func(t *testing.T, path string) { make1(t, path); truncate(t, path, 1) },
		"first page": func(t *testing.T, path string) {
			make1(t, path)
			b, _ := os.ReadFile(path)
			for i := range 4096 {
				b[i] = byte(rand.IntN(256))
			}
			write(t, path, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			damage(t, path)
			s, log := start(t, Options{Path: path})
			s.Record(probeAt(east, time.Now()))
			s.Event(Event{At: time.Now(), Kind: "start"})
			until(t, "written", func() bool { return s.Stats().Written >= 2 })
			if got, _ := filepath.Glob(path + ".corrupt-*Z"); len(got) != 1 {
				t.Errorf("set aside: %v", got)
			}
			if n := strings.Count(log.String(), "damaged"); n != 1 {
				t.Errorf("%d log records of it", n)
			}
			if n := count(t, path, "SELECT count(*) FROM probe"); n != 1 {
				t.Errorf("%d probes in the new database", n)
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, fileMode); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// TestRandomDamageNeverStops overwrites random pages: whatever comes of it, the store must go on
// to store, in the old file or in a new one.
func TestRandomDamageNeverStops(t *testing.T) {
	t.Parallel()
	seeds := 10
	if os.Getenv("HARD_LONG") != "" {
		seeds = 200
	}
	good := dbPath(t)
	s, _ := start(t, Options{Path: good})
	for i := range 5000 {
		s.Record(probeAt(east, time.Now().Add(-time.Duration(i)*time.Second)))
	}
	closeNow(t, s)
	image, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		b := append([]byte(nil), image...)
		for range 1 + random.IntN(4) {
			at := random.IntN(len(b) - 512)
			for i := range 512 {
				b[at+i] = byte(random.Uint32())
			}
		}
		path := dbPath(t)
		write(t, path, b)
		write(t, lockPath(path), nil) // it was ours
		s, _ := start(t, Options{Path: path, Log: (&testLog{}).logger()})
		_, _ = s.Load(context.Background())
		s.Record(probeAt(east, time.Now()))
		s.Event(Event{At: time.Now(), Kind: "start"})
		until(t, fmt.Sprintf("written, seed %d, %+v", seed, s.Stats()), func() bool { return s.Stats().Written >= 2 })
		closeNow(t, s)
	}
}

func TestDamageFoundWhileRunning(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.Event(Event{At: time.Now(), Kind: "start"})
	s.sync(t)
	_ = s.do(context.Background(), func(w *writer) error { return &damagedError{"as if"} })
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "a new database is written", func() bool { return s.Stats().State == StateOK && s.Stats().Written == 2 })
	if got, _ := filepath.Glob(path + ".corrupt-*"); len(got) != 3 {
		t.Errorf("set aside: %v", got)
	}
}

func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		queries []string
		says    []string
	}{
		"application_id": {[]string{"PRAGMA application_id = 7", "CREATE TABLE t (x)"}, []string{"another application", "0x7"}},
		"no database":    {nil, []string{"not a SQLite database", "hard.db.lock"}},
		"no id":          {[]string{"CREATE TABLE t (x)"}, []string{"another application"}},
		"newer": {[]string{"CREATE TABLE t (x)", fmt.Sprintf("PRAGMA application_id = %d", applicationID),
			"PRAGMA user_version = 999"}, []string{"999", fmt.Sprint(len(migrations()))}},
	} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			if c.queries == nil {
				write(t, path, []byte("root:x:0:0:root:/root:/bin/bash\n"))
			} else {
				db := raw(t, path)
				must(t, db, c.queries...)
				_ = db.Close()
			}
			before, _ := os.ReadFile(path)
			s, _ := start(t, Options{Path: path})
			s.Record(probeAt(east, time.Now()))
			until(t, "refused", s.in(StateRefused))
			for _, text := range c.says {
				if !strings.Contains(s.Stats().Reason, text) {
					t.Errorf("%q does not say %s", s.Stats().Reason, text)
				}
			}
			if _, err := s.Load(context.Background()); err == nil {
				t.Error("Load of a refused database succeeds")
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := s.Close(ctx); err == nil {
				t.Error("Close with unwritten rows gives no error")
			}
			after, _ := os.ReadFile(path)
			if string(before) != string(after) {
				t.Error("the file was changed")
			}
			if got, _ := filepath.Glob(path + ".corrupt*"); len(got) > 0 {
				t.Error("it was set aside")
			}
		})
	}
}

func TestAnotherInstanceWaits(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	first, _ := start(t, Options{Path: path})
	first.sync(t)
	second, log := start(t, Options{Path: path})
	second.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "locked", second.in(StateLocked))
	closeNow(t, first)
	until(t, "the second takes over", func() bool { return second.Stats().Written == 1 })
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

func TestLockedByAnotherProgram(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, log := start(t, Options{Path: path, QueueRows: 100})
	s.sync(t)
	db := raw(t, path)
	must(t, db, "BEGIN EXCLUSIVE")
	at := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for i := range 150 {
		s.Record(probeAt(east, at.Add(time.Duration(i)*time.Millisecond)))
	}
	for range 3 {
		s.Event(Event{At: time.Now(), Kind: "guard"})
	}
	until(t, "busy", s.in(StateBusy))
	if st := s.Stats(); st.Queued > 100 || st.Dropped["probe"] != 53 || st.Dropped["event"] != 0 {
		t.Errorf("%+v", st)
	}
	must(t, db, "COMMIT")
	until(t, "written", func() bool { return s.Stats().Written == 100 })
	if n := count(t, path, fmt.Sprintf("SELECT min(at_ms) - %d FROM probe", at.UnixMilli())); n != 53 {
		t.Errorf("the oldest probe kept is %d: the oldest should have gone first", n)
	}
	if got := shell(t, path, "SELECT count(*), min(kind), min(reason) FROM events WHERE kind <> 'guard'"); got != "1|lost|53 rows could not be written" {
		t.Errorf("what was lost is told as %s", got)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

func TestFullDiskAndThenSpaceAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("no right to mount a small disk:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "hard.db")
	s, log := start(t, Options{Path: path, QueueRows: 50000})
	s.sync(t)
	ballast := filepath.Join(dir, "ballast")
	var full error
	for f, _ := os.Create(ballast); full == nil; _, full = f.Write(make([]byte, 4096)) {
	}
	if !errors.Is(full, unix.ENOSPC) {
		t.Fatal(full)
	}
	for i := range 5000 {
		s.Record(probeAt(east, time.UnixMilli(int64(1e12+i))))
	}
	until(t, "full", s.in(StateFull))
	if err := s.PutOverride(context.Background(), Override{Name: "a", What: ForceState, Value: "up"}); err == nil {
		t.Error("PutOverride on a full disk returns nil")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until(t, "written", func() bool { return s.Stats().Written == 5000 })
	if err := s.PutOverride(context.Background(), Override{Name: "a", What: ForceState, Value: "up"}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if got := s.Stats(); got.Dropped["probe"] != 0 || got.WriteErrors == 0 {
		t.Errorf("%+v", got)
	}
}

func TestDirectoryThatCantBeMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a")
	write(t, dir, nil) // a file in the directory's place
	s, _ := start(t, Options{Path: filepath.Join(dir, "hard.db")})
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "failed", s.in(StateFailed))
	if _, err := s.Load(context.Background()); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Load: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	until(t, "written", func() bool { return s.Stats().Written == 1 })
}

func TestReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no right to mount:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|flags, "size=4m"); err != nil {
			t.Skip("no right to remount:", err)
		}
	}
	remount(unix.MS_RDONLY)
	s, _ := start(t, Options{Path: filepath.Join(dir, "hard.db")})
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "failed", s.in(StateFailed))
	remount(0)
	until(t, "written", func() bool { return s.Stats().Written == 1 })
}

// TestFileTurnsUnwritable: the file system forbids writes while the database is open.
func TestFileTurnsUnwritable(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, log := start(t, Options{Path: path})
	s.Event(Event{At: time.Now(), Kind: "start"})
	s.sync(t)
	err := s.do(context.Background(), func(w *writer) error { return w.exec("PRAGMA query_only = ON") }) // as SQLITE_READONLY comes up
	if err != nil {
		t.Fatal(err)
	}
	s.Record(probeAt(east, time.Now()))
	until(t, "opened anew, and written", func() bool { return s.Stats().State == StateOK && s.Stats().Written == 2 })
	if s.Stats().WriteErrors == 0 || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("%+v", s.Stats())
	}
}

func TestDatabaseDeletedOrReplaced(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.Record(probeAt(east, time.Now()))
	s.sync(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	until(t, "a new file", func() bool { return exists(path) })
	s.Record(probeAt(west, time.Now()))
	until(t, "written", func() bool { return s.Stats().Written == 2 })
	if n := count(t, path, "SELECT count(*) FROM probes WHERE candidate = 'west'"); n != 1 {
		t.Errorf("%d probes in the new file", n)
	}
	other := dbPath(t)
	make1(t, other)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	until(t, "reopened", func() bool {
		var same bool
		_ = s.do(context.Background(), func(w *writer) error {
			fi, err := os.Stat(path)
			same = err == nil && os.SameFile(fi, w.file)
			return nil
		})
		return same
	})
	s.Record(probeAt(west, time.Now()))
	s.sync(t)
	if n := count(t, path, "SELECT count(DISTINCT candidate) FROM probes"); n != 2 {
		t.Errorf("%d candidates in the replaced file, want its own and ours\n%s", n, shell(t, path, "SELECT * FROM probes; SELECT * FROM setting; SELECT * FROM override; SELECT * FROM endpoint"))
	}
	if n := count(t, path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"); n != 0 {
		t.Error("the replaced file is damaged")
	}
}
