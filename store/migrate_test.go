package store

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

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
