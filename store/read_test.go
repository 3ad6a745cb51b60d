package store

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hard/internal/rank"
)

func TestReaderGivesBackWhatWasRecorded(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	us := rank.Precision
	samples := []rank.Sample{
		{Key: east, At: at, Outcome: rank.OK, Status: 200, Final: true,
			Phases: rank.Phases{Connect: 5 * us, FirstByte: 55 * us, Total: 60 * us}},
		{Key: east, At: at.Add(time.Millisecond), Outcome: rank.Refused, Detail: "connect: connection refused",
			Phases: rank.Phases{Total: 7 * us}},
		{Key: east, At: at.Add(time.Millisecond), Outcome: rank.OK, Status: 204, Try: 1, Final: true,
			Phases: rank.Phases{Connect: 9 * us, FirstByte: 9 * us, Total: 9 * us}},
		{Key: west, At: at.Add(2 * time.Millisecond), Outcome: rank.DNS, Delayed: true, Final: true,
			Phases: rank.Phases{FirstByte: 3 * us, Total: 4 * us}},
		{Key: west, At: at.Add(3 * time.Millisecond), Outcome: rank.OK, Final: true},
	}
	for i := range samples {
		p := &samples[i]
		p.Taken = p.End().Add(time.Duration(i) * 1234 * us)
		s.Record(*p)
	}
	s.sync(t)
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx := context.Background()
	read := func(f Filter) (got []rank.Sample) {
		t.Helper()
		for p, err := range r.Samples(ctx, f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p)
		}
		return got
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })}
	if d := cmp.Diff(samples, read(Filter{}), same); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(samples[1:3], read(Filter{Candidate: "east", Since: at.Add(time.Millisecond)}), same); d != "" {
		t.Error(d)
	}
	if got := read(Filter{Name: "other"}); got != nil {
		t.Error(got)
	}
	for range r.Samples(ctx, Filter{}) {
		break // must not panic
	}

	s.PutConfig("h1", "one")
	s.PutConfig("h2", "two")
	s.PutConfig("h1", "one")
	for i, reason := range []string{"first", "second", "third"} {
		s.Answer(AnswerChange{At: at.Add(time.Duration(i) * time.Second), Name: east.Name, Type: "A", Reason: reason,
			Addresses: []netip.Addr{east.Addr, east.Addr.Next()}, Decision: []byte(`{}`)})
	}
	s.Event(Event{At: at, Key: rank.Key{Name: east.Name}, Kind: "override", Who: "ann"})
	s.Checkpoint(Checkpoint{At: at, Name: east.Name, Memory: []byte(`{"m":1}`)})
	s.Put(CurrentState{Key: east, Checked: at})
	s.sync(t)
	for hash, want := range map[string]string{"h1": "one", "h2": "two", "h3": ""} {
		if text, err := r.ConfigText(ctx, hash); err != nil || text != want {
			t.Errorf("%s: %v %q", hash, err, text)
		}
	}
	if n := count(t, path, "SELECT count(*) FROM config WHERE text = ''"); n != 1 {
		t.Error("the same text is stored twice")
	}
	answers, err := r.Answers(ctx, Filter{Name: east.Name, Since: at.Add(1500 * time.Millisecond)})
	if err != nil || len(answers) != 2 || answers[0].Reason != "second" || len(answers[1].Addresses) != 2 ||
		string(answers[0].Decision) != "{}" {
		t.Errorf("%v %+v", err, answers)
	}
	events, err := r.Events(ctx, Filter{Name: east.Name})
	if err != nil || len(events) != 1 || events[0].Who != "ann" || events[0].Key.Addr.IsValid() {
		t.Errorf("%v %+v", err, events)
	}
	checkpoints, err := r.Checkpoints(ctx, Filter{})
	if err != nil || len(checkpoints) != 1 || string(checkpoints[0].Memory) != `{"m":1}` {
		t.Errorf("%v %+v", err, checkpoints)
	}
	states, err := r.Endpoints(ctx, Filter{Candidate: "east"})
	if err != nil || len(states) != 1 || !states[0].Checked.Equal(at.Truncate(time.Millisecond)) {
		t.Errorf("%v %+v", err, states)
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	if _, err := OpenReader(path); err == nil {
		t.Error("a missing file is opened")
	}
	db := raw(t, path)
	must(t, db, "CREATE TABLE t (x)")
	if _, err := OpenReader(path); err == nil {
		t.Error("a foreign file is opened")
	}
	must(t, db, "DROP TABLE t", fmt.Sprintf("PRAGMA application_id = %d", applicationID), "PRAGMA user_version = 99")
	if _, err := OpenReader(path); err == nil || !strings.Contains(err.Error(), "99") {
		t.Errorf("a newer file: %v", err)
	}
}

// TestIndexesServeTheViews asks SQLite how it would run the queries that documents recommend.
func TestIndexesServeTheViews(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.sync(t)
	for query, want := range map[string]string{
		"SELECT * FROM probes WHERE at_ms >= 1":                                                           "SEARCH p USING PRIMARY KEY (at_ms>?)",
		"SELECT * FROM probes WHERE name = 'a' AND at_ms >= 1":                                            "SEARCH p USING PRIMARY KEY (at_ms>?)",
		"SELECT * FROM events WHERE at_ms >= 1":                                                           "SEARCH event USING INDEX event_at (at_ms>?)",
		"SELECT * FROM answers WHERE at_ms BETWEEN 1 AND 2":                                               "SEARCH answer USING INDEX answer_at (at_ms>? AND at_ms<?)",
		"SELECT * FROM answers WHERE name = 'a' AND type = 'A' AND at_ms < 1 ORDER BY at_ms DESC LIMIT 1": "SEARCH answer USING INDEX answer_name (name=? AND type=? AND at_ms<?)",
		"SELECT * FROM rollups WHERE time >= '2026-03-01'":                                                "SEARCH t USING PRIMARY KEY (time>?)",
		"SELECT * FROM rollups WHERE time BETWEEN '2026-03-01T03' AND 'z'":                                "SEARCH t USING PRIMARY KEY (time>? AND time<?)",
		"SELECT sum(n) FROM rollups WHERE name = 'a' AND time > '2026'":                                   "SEARCH r USING PRIMARY KEY (at_ms=? AND endpoint=?)",
		"SELECT candidate, max(p95_ms) FROM rollups WHERE time > '2026' GROUP BY 1":                       "SEARCH t USING PRIMARY KEY (time>?)",
	} {
		if got := shell(t, path, "EXPLAIN QUERY PLAN "+query); !strings.Contains(got, want) {
			t.Errorf("%s\n%s", query, got)
		}
	}
	for _, view := range []string{"probes", "events"} {
		if got := shell(t, path, "EXPLAIN QUERY PLAN SELECT * FROM "+view+" WHERE at_ms >= 1 ORDER BY at_ms"); strings.Contains(got, "TEMP B-TREE") {
			t.Errorf("%s is sorted:\n%s", view, got)
		}
	}
}

// younger are words of SQL that SQLite 3.26 doesn't know. The schema, the views and the documented
// queries were also run by a program built from 3.26.0 (docs/database.md).
var younger = regexp.MustCompile(`(?i)\b(STRICT|unixepoch\s*\(|RETURNING|GENERATED|iif\s*\(|NULLS\s+(FIRST|LAST)|MATERIALIZED|` +
	`FILTER\s*\(|EXCLUDE|GROUPS|format\s*\(|timediff\s*\(|octet_length\s*\(|concat(_ws)?\s*\(|string_agg\s*\(|` +
	`(RIGHT|FULL)\s+(OUTER\s+)?JOIN|(floor|ceil|ln|log|pow|sqrt|mod)\s*\(|IS\s+(NOT\s+)?DISTINCT|subsec)|->`)

func TestNothingYoungerThanSQLite326(t *testing.T) {
	document, err := os.ReadFile("../docs/database.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := migrations()
	for _, block := range strings.Split(string(document), "```sql\n")[1:] {
		query, _, _ := strings.Cut(block, "```")
		texts = append(texts, query)
	}
	comment := regexp.MustCompile("--.*")
	for _, text := range texts {
		if found := younger.FindString(comment.ReplaceAllString(text, "")); found != "" {
			t.Errorf("%q is not known to SQLite 3.26: %s", found, text)
		}
	}
}

// TestGroupReads: a member of the group, who may write nothing, reads with the real program while
// we run and after a clean stop.
func TestGroupReads(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("sqlite3")
	if err != nil || os.Getuid() != 0 {
		t.Skip("needs the sqlite3 program, and root to become somebody else")
	}
	const uid, gid = 54321, 54322
	parent, err := os.MkdirTemp("", "hard") // t.TempDir's parent is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chown(parent, 0, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(parent, 0o755|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "hard")
	path := filepath.Join(dir, "hard.db")
	s, _ := start(t, Options{Path: path})
	s.Record(probeAt(east, time.Now()))
	s.sync(t)

	read := func() {
		t.Helper()
		cmd := exec.Command(program, path, "SELECT count(*) FROM probes")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "1" {
			t.Errorf("%v: %s", err, out)
		}
	}
	modes := func() {
		t.Helper()
		for file, want := range map[string]os.FileMode{dir: DirMode | os.ModeDir, path: fileMode, path + "-wal": fileMode,
			path + "-shm": fileMode, path + ".lock": fileMode} {
			if fi, err := os.Stat(file); err != nil || fi.Mode() != want {
				t.Errorf("%v: %v, want %v", err, fi.Mode(), want)
			}
		}
	}
	read()
	modes()
	closeNow(t, s)
	read()
	modes()
}

// TestRollupsByTime: what the view finds by time is what the tables have, before and after the minutes
// have become hours.
func TestRollupsByTime(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	now := time.Date(2026, 3, 1, 5, 30, 0, 0, time.UTC)
	s, _ := start(t, Options{Path: path, RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour, Now: func() time.Time { return now }})
	fill(t, s, []rank.Key{east, west}, now, 3*time.Hour, 10*time.Second)
	check := func() {
		t.Helper()
		for _, span := range []struct{ from, to string }{{"2026-03-01T03:00", "2026-03-01T04:30"}, {"2026-03-01T05:00", "2026-03-02"}, {"2026-02-01", "2026-03-01"}} {
			const ms = "strftime('%%s', '%s') * 1000"
			view := fmt.Sprintf("SELECT count(*), sum(n), max(max_ms) FROM rollups WHERE time >= '%s' AND time < '%s'", span.from, span.to)
			table := fmt.Sprintf(`SELECT count(*), sum(n), max(max_us) / 1000.0 FROM (SELECT at_ms, n, max_us FROM rollup_minute UNION ALL SELECT at_ms, n, max_us
				FROM rollup_hour WHERE NOT EXISTS (SELECT 1 FROM rollup_minute)) WHERE at_ms >= `+ms+` AND at_ms < `+ms, span.from, span.to)
			if got, want := shell(t, path, view), shell(t, path, table); got != want {
				t.Errorf("%s\n got %s\nwant %s", view, got, want)
			}
		}
	}
	check()
	if got := shell(t, path, "SELECT count(*) > 300, max(width_s) FROM rollups WHERE time >= '2026-03-01'"); got != "1|60" {
		t.Errorf("minutes: %s", got)
	}
	if err := s.do(context.Background(), func(w *writer) error { return w.expire(now.Add(31 * 24 * time.Hour)) }); err != nil {
		t.Fatal(err)
	}
	check()
	if got := shell(t, path, "SELECT count(*) > 3, min(width_s) FROM rollups WHERE time >= '2026-03-01'"); got != "1|3600" {
		t.Errorf("hours: %s", got)
	}
}
