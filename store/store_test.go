package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hard/internal/rank"
)

// patience bounds what a test waits for; none depends on how fast the machine is.
const patience = 5 * time.Minute

// testLog collects log records as lines.
type testLog struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(b)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.String()
}

func (l *testLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start opens a store at path and closes it when the test ends.
func start(t testing.TB, o Options) (*Store, *testLog) {
	t.Helper()
	log := &testLog{}
	if o.Log == nil {
		o.Log = log.logger()
	}
	s := Open(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Close(ctx)
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return s, log
}

// sync waits until everything queued so far is committed.
func (s *Store) sync(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := s.do(ctx, func(w *writer) error {
		if !w.flush(time.Now()) {
			return fmt.Errorf("not written: %+v", s.Stats())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// until polls a condition, for a minute at most: what comes at once may be starved on a busy machine.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func closeNow(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// shell runs the real sqlite3 program on a database and gives its output.
func shell(t testing.TB, path, query string) string {
	t.Helper()
	out, err := tryShell(t, path, query)
	if err != nil {
		t.Fatalf("sqlite3: %v\n%s\n%s", err, query, out)
	}
	return out
}

func tryShell(t testing.TB, path, query string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("no sqlite3 program")
	}
	out, err := exec.Command(program, "-bail", path, query).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func dbPath(t testing.TB) string { return filepath.Join(t.TempDir(), "hard.db") }

func key(name, candidate, addr string) rank.Key {
	return rank.Key{Name: name, Candidate: candidate, Addr: netip.MustParseAddr(addr)}
}

var (
	east = key("api.example.com", "east", "192.0.2.10")
	west = key("api.example.com", "west", "2001:db8::10")
)

func probeAt(k rank.Key, at time.Time) rank.Sample {
	return rank.Sample{Key: k, At: at, Outcome: rank.OK, Status: 200, Final: true, Phases: rank.Phases{
		Connect: 1200 * time.Microsecond, TLS: 3400 * time.Microsecond,
		FirstByte: 5678 * time.Microsecond, Total: 6 * time.Millisecond,
	}}
}

func TestViewsReadByTheRealProgram(t *testing.T) {
	path := dbPath(t)
	at := time.UnixMilli(1_700_000_000_123)
	s, _ := start(t, Options{Path: path, Now: func() time.Time { return at.Add(time.Second) }})

	s.Record(probeAt(east, at.Add(456*time.Microsecond)))
	s.Record(rank.Sample{Key: west, At: at.Add(time.Millisecond), Outcome: rank.Timeout, Final: true,
		Phases: rank.Phases{Connect: time.Millisecond, Total: time.Second}, Detail: "no reply in 1s"})
	s.Event(Event{At: at, Key: east, Kind: "state", Old: "unknown", New: "healthy", Reason: "first result"})
	s.Answer(AnswerChange{At: at, Name: east.Name, Type: "A", Addresses: []netip.Addr{east.Addr}, Reason: "best"})
	s.Put(CurrentState{Key: east, State: rank.Healthy, Weight: 100, Rank: 1, Selected: true,
		Latency: 6 * time.Millisecond, Since: at, Checked: at, Fingerprint: 1<<64 - 1})
	s.sync(t)

	for _, c := range []struct{ query, want string }{
		{"SELECT * FROM probes ORDER BY at_ms",
			"2023-11-14T22:13:20.123Z|api.example.com|east|192.0.2.10|ok|200|1.2|5.68|6.0||1700000000123\n" +
				"2023-11-14T22:13:20.124Z|api.example.com|west|2001:db8::10|timeout|0|1.0||1000.0|no reply in 1s|1700000000124"},
		{"SELECT * FROM events",
			"2023-11-14T22:13:20.123Z|api.example.com|east|192.0.2.10|state|unknown|healthy|first result|1700000000123"},
		{"SELECT * FROM answers",
			"2023-11-14T22:13:20.123Z|api.example.com|A|192.0.2.10|best|1700000000123"},
		{"SELECT * FROM current",
			"api.example.com|east|192.0.2.10|A|healthy|auto|0|100|1|1|6.0|ok|2023-11-14T22:13:20.123Z|2023-11-14T22:13:20.123Z"},
		{"PRAGMA integrity_check", "ok"},
		{"PRAGMA foreign_key_check", ""},
		{"PRAGMA journal_mode", "wal"},
		{"PRAGMA auto_vacuum", "2"},
	} {
		if got := shell(t, path, c.query); got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.query, got, c.want)
		}
	}
}

func TestViewsHaveTheContractsColumns(t *testing.T) {
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.sync(t)
	for view, want := range map[string]string{
		"probes":  "time name candidate address outcome status connect_ms first_byte_ms total_ms detail at_ms",
		"current": "name candidate address family state override tier weight rank selected latency_ms last_outcome since checked",
		"events":  "time name candidate address kind old new reason at_ms",
		"answers": "time name type addresses reason at_ms",
		"uptime":  "name candidate address probes_24h ok_24h percent_24h p50_ms p95_ms",
		"rollups": "time name candidate address width_s n ok min_ms p50_ms p95_ms max_ms",
	} {
		var got []string
		err := s.do(context.Background(), func(w *writer) error {
			return w.each(func(scan func(...any) error) error {
				var column string
				err := scan(&column)
				got = append(got, column)
				return err
			}, "SELECT name FROM pragma_table_info(?) ORDER BY cid", view)
		})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v\n got %s\nwant %s", view, err, strings.Join(got, " "), want)
		}
	}
}

func TestLoadGivesBackWhatWasPut(t *testing.T) {
	path := dbPath(t)
	now := time.UnixMilli(1_700_000_000_000)
	o := Options{Path: path, Now: func() time.Time { return now }}
	s, _ := start(t, o)
	state := CurrentState{Key: east, State: rank.Unhealthy, Override: rank.Drain, Tier: 1, Weight: 50, Rank: 2,
		Selected: true, Latency: time.Millisecond, Connect: time.Microsecond, FirstByte: 2 * time.Microsecond,
		Total: 3 * time.Microsecond, LastOutcome: rank.Refused, Since: now, Checked: now,
		Fingerprint: 1<<63 + 1, Health: []byte(`{"x":1}`)}
	s.Put(CurrentState{Key: east})
	s.Put(state)
	s.Put(CurrentState{Key: west})
	s.Forget(west)
	s.PutMemory("api.example.com", []byte(`{"a":1}`))
	s.PutMemory("api.example.com", []byte(`{"a":2}`))
	s.PutAddresses("api.example.com", "east", []netip.Addr{east.Addr, west.Addr})
	s.PutAddresses("api.example.com", "gone", []netip.Addr{west.Addr})
	s.PutAddresses("api.example.com", "gone", nil)
	s.PutResolvers([]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::53]:53")})
	ctx := context.Background()
	for _, o := range []Override{
		{Name: "a", What: ForceState, Value: "down", Who: "ann", Why: "disk"},
		{Name: "a", Candidate: "x", What: ForceWeight, Value: "50%", Until: now.Add(time.Hour)},
		{Name: "b", What: ForceState, Value: "up", Until: now.Add(-time.Second)},
		{Name: "c", What: ForceState, Value: "up"},
		{Name: "c", What: ForceState, Value: "auto"},
	} {
		if err := s.PutOverride(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	closeNow(t, s)

	s, _ = start(t, o)
	got, err := s.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Endpoints) != fmt.Sprint(map[rank.Key]CurrentState{east: state}) {
		t.Errorf("endpoints: %+v", got.Endpoints)
	}
	if m := got.Memories["api.example.com"]; string(m.Memory) != `{"a":2}` || !m.At.Equal(now) {
		t.Errorf("memories: %+v", got.Memories)
	}
	a := got.Addresses[CandidateKey{"api.example.com", "east"}]
	if len(got.Addresses) != 1 || len(a.Addresses) != 2 || a.Addresses[1] != west.Addr || !a.At.Equal(now) {
		t.Errorf("addresses: %+v", got.Addresses)
	}
	if fmt.Sprint(got.Resolvers) != "[[2001:db8::53]:53]" {
		t.Errorf("resolvers: %v", got.Resolvers)
	}
	if len(got.Overrides) != 2 || got.Overrides[0].Who != "ann" || !got.Overrides[1].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("overrides: %+v", got.Overrides)
	}
	if !got.Stopped.Equal(now) || !got.Written.Equal(now) || got.ClockBack {
		t.Errorf("stopped %v, written %v, clock back %v", got.Stopped, got.Written, got.ClockBack)
	}
	closeNow(t, s)

	o.Now = func() time.Time { return now.Add(-24 * time.Hour) }
	s, _ = start(t, o)
	if got, err := s.Load(ctx); err != nil || !got.ClockBack {
		t.Errorf("a clock a day behind is not noticed: %v", err)
	}
}
