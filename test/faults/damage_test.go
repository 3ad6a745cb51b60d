package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hard/test/faulty"
)

// damages are ways in which the files of a database can be broken.
var damages = map[string]func(t *testing.T, db string, r *rand.Rand){
	"zeros":           func(t *testing.T, db string, r *rand.Rand) { put(t, db, make([]byte, 8192)) },
	"empty":           func(t *testing.T, db string, r *rand.Rand) { put(t, db, nil) },
	"truncated":       func(t *testing.T, db string, r *rand.Rand) { cut(t, db, r) },
	"first page":      func(t *testing.T, db string, r *rand.Rand) { scribble(t, db, r, 0) },
	"page in between": func(t *testing.T, db string, r *rand.Rand) { scribble(t, db, r, 1+r.IntN(20)) },
	"garbage -wal":    func(t *testing.T, db string, r *rand.Rand) { scribble(t, db+"-wal", r, 0) },
	"garbage in -wal": func(t *testing.T, db string, r *rand.Rand) { scribble(t, db+"-wal", r, 1+r.IntN(4)) },
	"truncated -wal":  func(t *testing.T, db string, r *rand.Rand) { cut(t, db+"-wal", r) },
	"no -wal":         func(t *testing.T, db string, r *rand.Rand) { remove(t, db+"-wal") },
	"garbage -shm":    func(t *testing.T, db string, r *rand.Rand) { scribble(t, db+"-shm", r, 0) },
	"no -shm":         func(t *testing.T, db string, r *rand.Rand) { remove(t, db+"-shm") },
	"-wal of another": func(t *testing.T, db string, r *rand.Rand) { put(t, db+"-wal", bytes.Repeat([]byte("another"), 3000)) },
}

func put(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o640); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, file string, r *rand.Rand) {
	t.Helper()
	fi, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, r.Int64N(fi.Size()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// scribble overwrites a page, or what there is of it.
func scribble(t *testing.T, file string, r *rand.Rand, page int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := min(page*4096, len(b)/2)
	for i := at; i < min(at+4096, len(b)); i++ {
		b[i] = byte(r.Uint32())
	}
	put(t, file, b)
}

// Fault 4: every kind of damage, met at a start. Clients are served at once, rows are written, in the
// old file or in a new one, nothing is deleted, and the log says at most once that a file was set aside.
func TestFault04Damaged(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	s.Writes()
	s.Kill() // a -wal with rows of its own is left
	good := copyOf(t, s.DB)
	const rounds = 4
	for kind, damage := range damages {
		for seed := range rounds {
			good.restore(t, s.DB)
			damage(t, s.DB, rand.New(rand.NewPCG(uint64(seed), 4)))
			from := len(s.Log())
			s.Run()
			if r, _, err := ours().Exchange(nil, s.DNS, 0); err != nil || ours().Check(r) != "" {
				t.Errorf("%s, seed %d: the first answer: %v %v", kind, seed, r, err)
			}
			s.Store("ok")
			s.Writes()
			s.Wants("the probed name", s.api(s.near))
			s.Kill()
			if kind != "page in between" { // found only when it is needed
				faulty.Intact(t, s.DB)
			}
			aside, _ := filepath.Glob(s.DB + ".corrupt-*Z")
			said := strings.Count(s.Log()[from:], "damaged; it was set aside")
			t.Logf("%s, seed %d: %d set aside", kind, seed, len(aside))
			if said != len(aside) || said > 1 {
				t.Errorf("%s, seed %d: %d files set aside, said %d times", kind, seed, len(aside), said)
			}
		}
	}
}

// files are those of a database, kept.
type files map[string][]byte

func copyOf(t *testing.T, db string) files {
	t.Helper()
	f := make(files)
	list, _ := filepath.Glob(db + "*")
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f[strings.TrimPrefix(file, db)] = b
	}
	return f
}

// restore puts them back, in place of all that is there.
func (f files) restore(t *testing.T, db string) {
	t.Helper()
	list, _ := filepath.Glob(db + "*")
	for _, file := range list {
		remove(t, file)
	}
	for suffix, b := range f {
		put(t, db+suffix, b)
	}
}

// Fault 4 and 6: a file that isn't a database, and was never ours, is not touched: [store].path may
// be a mistake. So too another application's database, and one of a later version.
func TestFault06NotOurs(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	s.MayEndBadly = true // its history goes nowhere
	for what, make := range map[string]func() string{
		"text": func() string {
			put(t, s.DB, []byte("root:x:0:0:root:/root:/bin/bash\n"))
			return "not a SQLite database"
		},
		"another application's": func() string {
			faulty.SQLite(t, s.DB, "PRAGMA application_id=7; CREATE TABLE t(x)")
			return "another application"
		},
		"nobody's": func() string {
			faulty.SQLite(t, s.DB, "CREATE TABLE t(x)")
			return "another application"
		},
		"a later version's": func() string {
			s.Run()
			s.Store("ok")
			s.Stop()
			faulty.SQLite(t, s.DB, "PRAGMA user_version=999; PRAGMA wal_checkpoint(TRUNCATE)")
			return "999"
		},
	} {
		if err := os.RemoveAll(filepath.Dir(s.DB)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(s.DB), 0o750); err != nil {
			t.Fatal(err)
		}
		says := make()
		before, err := os.ReadFile(s.DB)
		if err != nil {
			t.Fatal(err)
		}
		s.Run()
		a := s.Ask(ours(), faulty.Forwarded())
		s.Wants("the nearer candidate", s.api(s.near))
		s.Store("refused")
		if got := s.Status().Store.Reason; !strings.Contains(got, says) {
			t.Errorf("%s: the reason is %q, want a word of %s", what, got, says)
		}
		a.Clean()
		s.Stop()
		if after, err := os.ReadFile(s.DB); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed: %v", what, err)
		}
		if got, _ := filepath.Glob(s.DB + ".corrupt*"); len(got) > 0 {
			t.Errorf("%s: it was set aside", what)
		}
	}
}

// Fault 5: the administrator's sqlite3 holds an exclusive lock, then reads without an end, then
// compacts the file. Clients notice nothing and every row gets in.
func TestFault05Locked(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	a := s.Ask(s.all()...)
	first := s.Status().At

	shell := newShell(t, s.DB)
	shell.do("BEGIN EXCLUSIVE;")
	s.Store("busy")
	probes := s.near.Seen.Load()
	faulty.Eventually(t, "probes go on", func() bool { return s.near.Seen.Load() > probes+20 })
	shell.do("COMMIT;")
	s.Store("ok")
	s.Writes()

	shell.do("BEGIN; SELECT count(*) FROM probes;") // a reader that never ends
	probes = s.near.Seen.Load()
	faulty.Eventually(t, "rows go on", func() bool { s.Writes(); return s.near.Seen.Load() > probes+30 })
	if fi, err := os.Stat(s.DB + "-wal"); err != nil || fi.Size() > 40<<20 {
		t.Errorf("the -wal under a reader: %v %v", fi, err)
	}
	shell.do("COMMIT;")

	shell.do("VACUUM;")
	s.Writes()
	last := s.Status().At
	s.Writes()
	a.Clean()
	if st := s.Status().Store; st.Dropped["probe"] != 0 || st.State != "ok" {
		t.Errorf("%+v", st)
	}
	// One interval is 100 ms with a tenth of jitter: no gap in what was kept.
	gap := faulty.SQLite(t, s.DB, fmt.Sprintf(`SELECT max(d) FROM (SELECT at_ms - lag(at_ms) OVER (ORDER BY at_ms) d FROM probes
		WHERE at_ms BETWEEN %d AND %d)`, first.UnixMilli(), last.UnixMilli()))
	t.Logf("the longest gap between kept probes is %s ms of %v", gap, last.Sub(first).Round(time.Millisecond))
	n := atoi(t, faulty.SQLite(t, s.DB, "SELECT count(*) FROM probes WHERE candidate = '"+s.near.Addr.Addr().String()+"'"))
	if seen := s.near.Seen.Load(); n < seen-30 {
		t.Errorf("%d probes of %d are kept", n, seen)
	}
	faulty.Intact(t, s.DB)
}

// shell is a running sqlite3 program.
type shell struct {
	t    *testing.T
	in   *os.File
	said *faulty.Log
	n    int
}

func newShell(t *testing.T, db string) *shell {
	t.Helper()
	cmd := exec.Command(faulty.Need(t, "sqlite3", "sqlite3"), db)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &shell{t: t, in: w, said: new(faulty.Log)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, s.said, s.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close(); _ = cmd.Wait() })
	s.do(".timeout 20000")
	return s
}

// do runs a line and waits until it has ended, well.
func (s *shell) do(line string) {
	s.t.Helper()
	s.n++
	mark := fmt.Sprintf("done-%d-", s.n)
	fmt.Fprintf(s.in, "%s\n.print %s\n", line, mark)
	faulty.Eventually(s.t, line, func() bool { return strings.Contains(s.said.String(), mark) })
	if strings.Contains(s.said.String(), "Error") {
		s.t.Fatalf("%s: %s", line, s.said)
	}
}
