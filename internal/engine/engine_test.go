package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
	"hard/internal/wire"
)

// far is the engine's far side: it publishes, probes and records by taking note.
type far struct {
	mu        sync.Mutex
	table     *answer.Table
	published int
	intervals map[rank.Key]time.Duration
	checks    map[string][]Check
	hosts     []Host
	probed    []rank.Key
	events    []Event
	answers   []AnswerChange
	rows      map[rank.Key]EndpointState
	forgotten []rank.Key
}

func newFar() *far {
	return &far{intervals: map[rank.Key]time.Duration{}, checks: map[string][]Check{}, rows: map[rank.Key]EndpointState{}}
}

func (f *far) with(do func()) { f.mu.Lock(); defer f.mu.Unlock(); do() }

func (f *far) Publish(t *answer.Table)         { f.with(func() { f.table = t; f.published++ }) }
func (f *far) SetName(n string, c []Check)     { f.with(func() { f.checks[n] = c }) }
func (f *far) SetHosts(h []Host)               { f.with(func() { f.hosts = h }) }
func (f *far) ProbeNow(k []rank.Key)           { f.with(func() { f.probed = append(f.probed, k...) }) }
func (f *far) Record(rank.Sample)              {}
func (f *far) Event(e Event)                   { f.with(func() { f.events = append(f.events, e) }) }
func (f *far) Answer(a AnswerChange)           { f.with(func() { f.answers = append(f.answers, a) }) }
func (f *far) Forget(k []rank.Key)             { f.with(func() { f.forgotten = append(f.forgotten, k...) }) }
func (f *far) Memory(string, rank.Memory)      {}
func (f *far) Addresses(HostKey, []netip.Addr) {}
func (f *far) Input(Input)                     {}
func (f *far) Checkpoint(*Checkpoint)          {}
func (f *far) SetInterval(k rank.Key, d time.Duration) {
	f.with(func() { f.intervals[k] = d })
}
func (f *far) Current(rows []EndpointState) {
	f.with(func() {
		for _, r := range rows {
			f.rows[r.Key] = r
		}
	})
}

// ask asks the published table for a name's A records, as a listener would; wait tells that the
// query would wait for a verdict.
func (f *far) ask(t *testing.T, name string) (addrs []string, wait bool) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	packet := []byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	packet, err := wire.AppendName(packet, name)
	if err != nil {
		t.Fatal(err)
	}
	packet = append(packet, 0, 1, 0, 1)
	buf := make([]byte, 1500)
	n := copy(buf, packet)
	var q wire.Query
	res := f.table.Serve(&q, buf, n, wire.Transport{}, new(answer.Counters).NewRotor())
	if res.Action == answer.Wait {
		return nil, true
	}
	if res.Action != answer.Answer {
		t.Fatalf("%s: action %v", name, res.Action)
	}
	walk := wire.WalkRecords(buf[:res.N], int(q.QEnd))
	for r := (wire.Record{}); walk.Next(&r); {
		if r.Section == 0 && r.Type == wire.TypeA {
			a, _ := netip.AddrFromSlice(buf[r.Data : r.Data+r.Len])
			addrs = append(addrs, a.String())
		}
	}
	return addrs, false
}

// stage is an engine in a bubble of fake time.
type stage struct {
	*Engine
	*far
	t *testing.T
}

const head = "[upstream]\nservers = [\"127.0.0.9\"]\n"

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, report := config.Parse("test.toml", []byte(head+text))
	if c == nil {
		t.Fatal(report.Err())
	}
	return c
}

// play runs a test in a bubble; saved is what an earlier run left.
func play(t *testing.T, text string, saved func() Saved, story func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFar()
		o := Options{Config: parse(t, text), Publisher: f, Prober: f, Recorder: f, Log: slog.New(slog.DiscardHandler)}
		if saved != nil {
			o.Saved = saved()
		}
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		e.Start()
		synctest.Wait()
		defer e.Stop()
		story(&stage{Engine: e, far: f, t: t})
	})
}

// probe feeds one result and lets the engine digest it.
func (s *stage) probe(name, addr string, o rank.Outcome, latency time.Duration) {
	s.t.Helper()
	s.Sample(rank.Sample{
		Key: rank.Key{Name: name, Candidate: addr, Addr: netip.MustParseAddr(addr)}, At: time.Now().Add(-latency),
		Outcome: o, Final: true, Phases: rank.Phases{Connect: latency / 2, FirstByte: latency, Total: latency},
	})
	synctest.Wait()
}

// interval is the pace that the prober was given last.
func (s *stage) interval(k rank.Key) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intervals[k]
}

// seen copies what the far side has noted.
func seen[T any](s *stage, list *[]T) []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(*list)
}

// pass lets time go by.
func (s *stage) pass(d time.Duration) {
	time.Sleep(d) // the bubble's time
	synctest.Wait()
}

// wants checks the answer in force.
func (s *stage) wants(name string, want ...string) {
	s.t.Helper()
	got, wait := s.ask(s.t, name)
	if wait || !slices.Equal(got, want) {
		s.t.Fatalf("%s answers %v (waiting: %v), want %v", name, got, wait, want)
	}
}

const twoNames = `
[defaults]
check = "tcp://:80"
[name."a.example"]
candidates = ["192.0.2.1", "192.0.2.2"]
[name."b.example"]
candidates = ["192.0.2.3"]
`

func TestFirstVerdictsThenFailover(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		if _, wait := s.ask(t, "a.example"); !wait {
			t.Fatal("a query before the first verdict doesn't wait")
		}
		s.probe("a.example", "192.0.2.1", rank.OK, 5*time.Millisecond)
		s.wants("a.example", "192.0.2.1")
		s.probe("a.example", "192.0.2.2", rank.OK, 20*time.Millisecond)
		s.wants("a.example", "192.0.2.1")
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		s.wants("a.example", "192.0.2.1") // fall is 2
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		s.wants("a.example", "192.0.2.2") // at once, no time has passed
		if !slices.ContainsFunc(seen(s, &s.events), func(e Event) bool {
			return e.Kind == "state" && e.Key.Addr == netip.MustParseAddr("192.0.2.1") && e.New == "unhealthy"
		}) {
			t.Errorf("no event of it: %v", seen(s, &s.events))
		}
		if list := seen(s, &s.answers); len(list) == 0 || list[len(list)-1].Reason == "" {
			t.Errorf("no answer change, or one without a reason: %v", list)
		}
	})
}

func TestPublishCoalesces(t *testing.T) {
	var text strings.Builder
	text.WriteString("[defaults]\ncheck = \"tcp://:80\"\n")
	for i := range 200 {
		fmt.Fprintf(&text, "[name.\"n%d.example\"]\ncandidates = [\"192.0.2.%d\", \"198.51.100.%d\"]\nselect = \"group\"\ngroup_within = \"1s\"\n", i, i, i)
	}
	play(t, text.String(), nil, func(s *stage) {
		for i := range 200 { // first verdicts: somebody may wait for them
			s.probe(fmt.Sprintf("n%d.example", i), fmt.Sprintf("192.0.2.%d", i), rank.OK, time.Millisecond)
		}
		s.pass(time.Second)
		before := s.far.published
		for i := range 200 { // second endpoints join their groups: nobody waits
			s.probe(fmt.Sprintf("n%d.example", i), fmt.Sprintf("198.51.100.%d", i), rank.OK, time.Millisecond)
		}
		s.pass(coalesce)
		if n := s.far.published - before; n == 0 || n > 3 {
			t.Errorf("%d tables for one burst", n)
		}
		if got, _ := s.ask(t, "n7.example"); len(got) != 1 {
			t.Errorf("answer %v", got)
		}
	})
}

func TestHoldEndsByItself(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		s.probe("a.example", "192.0.2.1", rank.OK, 50*time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, 60*time.Millisecond)
		for range 30 { // the second becomes truly faster
			s.pass(2 * time.Second)
			s.probe("a.example", "192.0.2.1", rank.OK, 50*time.Millisecond)
			s.probe("a.example", "192.0.2.2", rank.OK, 5*time.Millisecond)
		}
		s.wants("a.example", "192.0.2.2")
	})
}

func TestIntervals(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		a1 := rank.Key{Name: "a.example", Candidate: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1")}
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, time.Millisecond)
		if d := s.interval(a1); d != 2*time.Second {
			t.Errorf("steady: %v", d)
		}
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		if d := s.interval(a1); d != 250*time.Millisecond {
			t.Errorf("verdict pending: %v", d)
		}
		s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		for range 100 {
			s.probe("a.example", "192.0.2.1", rank.Refused, 0)
		}
		if d := s.interval(a1); d != 30*time.Second {
			t.Errorf("backed off: %v", d)
		}
		s.probe("a.example", "192.0.2.2", rank.Refused, 0)
		s.probe("a.example", "192.0.2.2", rank.Refused, 0)
		if d := s.interval(a1); d != 2*time.Second {
			t.Errorf("back-off while the name has nothing eligible: %v", d)
		}
	})
}

func TestIdle(t *testing.T) {
	play(t, `
[name."idle.example"]
candidates = ["192.0.2.1", "192.0.2.2"]
check = "tcp://:80"
idle_after = "80s"
idle_interval = "30s"
`, nil, func(s *stage) {
		k := rank.Key{Name: "idle.example", Candidate: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1")}
		s.probe("idle.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.pass(79 * time.Second)
		if d := s.interval(k); d != 2*time.Second {
			t.Errorf("before idle_after: %v", d)
		}
		s.pass(12 * time.Second)
		if d := s.interval(k); d != 30*time.Second {
			t.Errorf("after idle_after: %v", d)
		}
		s.far.with(func() { s.probed = nil })
		s.Asked(0)
		synctest.Wait()
		if d := s.interval(k); d != 2*time.Second || !slices.Contains(seen(s, &s.probed), k) {
			t.Errorf("woken: %v, probed %v", d, seen(s, &s.probed))
		}
		s.pass(85 * time.Second) // asked again while watched: not idle
		s.Asked(0)
		s.pass(70 * time.Second)
		if d := s.interval(k); d != 2*time.Second {
			t.Errorf("asked in time, and yet idle: %v", d)
		}
	})
}

func TestOverrides(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		ctx := context.Background()
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("a.example", "192.0.2.2", rank.OK, 9*time.Millisecond)
		first := HostKey{"a.example", "192.0.2.1"}
		drain := Override{Host: first, State: rank.Drain, Until: time.Now().Add(time.Minute), Who: "uid 7", Why: "upgrade"}
		out, err := s.Force(ctx, drain, false)
		if err != nil || len(out) != 1 || out[0].Since.IsZero() {
			t.Fatalf("%v %v", out, err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.2")
		last := Override{Host: HostKey{"a.example", "192.0.2.2"}, State: rank.Down}
		if _, err := s.Force(ctx, last, false); err == nil || !strings.Contains(err.Error(), "healthy") {
			t.Errorf("the last healthy endpoint could be taken away: %v", err)
		}
		if _, err := s.Force(ctx, Override{Host: HostKey{"nobody.example", ""}, State: rank.Down}, true); err == nil {
			t.Error("an unknown name")
		}
		s.pass(61 * time.Second) // it expires, and is truly faster for hold
		s.wants("a.example", "192.0.2.2")
		s.pass(10 * time.Second)
		s.wants("a.example", "192.0.2.1")
		snap, err := s.Snapshot(ctx, "a.example")
		if err != nil || len(snap.Overrides) != 0 || len(snap.Names) != 1 || len(snap.Names[0].Endpoints) != 2 {
			t.Errorf("%+v %v", snap, err)
		}
		if _, err := s.Force(ctx, Override{Host: HostKey{"a.example", "192.0.2.1"}, What: ForceWeight, Weight: 0}, false); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.2")
	})
}

func TestAddresses(t *testing.T) {
	const text = `
[name."h.example"]
candidates = ["backend.example.net"]
check = "tcp://:80"
on_all_down = "nodata"
`
	play(t, text, nil, func(s *stage) {
		if len(s.far.hosts) != 1 || s.far.hosts[0].Hosts[0] != "backend.example.net" {
			t.Fatalf("looked up: %+v", s.far.hosts)
		}
		if _, wait := s.ask(t, "h.example"); !wait {
			t.Error("a query doesn't wait for the first look-up")
		}
		host := HostKey{"h.example", "backend.example.net"}
		one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		s.Engine.Addresses(host, []netip.Addr{one}, nil, true)
		synctest.Wait()
		s.Sample(rank.Sample{Key: rank.Key{Name: "h.example", Candidate: "backend.example.net", Addr: one}, At: time.Now(), Final: true})
		synctest.Wait()
		s.wants("h.example", "192.0.2.1")
		s.Engine.Addresses(host, []netip.Addr{two}, nil, true)
		s.Sample(rank.Sample{Key: rank.Key{Name: "h.example", Candidate: "backend.example.net", Addr: two}, At: time.Now(), Final: true})
		synctest.Wait()
		s.wants("h.example", "192.0.2.2")
		if list := seen(s, &s.forgotten); len(list) != 1 || list[0].Addr != one {
			t.Errorf("forgotten: %v", list)
		}
		s.Engine.Addresses(host, nil, nil, true)
		s.pass(coalesce)
		s.wants("h.example") // DNS has none: NODATA, no wait
	})
}

func TestReload(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("b.example", "192.0.2.3", rank.OK, time.Millisecond)
		next := parse(t, `
[name."a.example"]
candidates = ["192.0.2.2", "192.0.2.1"]
check = "tcp://:80"
[name."c.example"]
candidates = ["192.0.2.4"]
check = "static:"
`)
		if err := s.Apply(context.Background(), next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.wants("a.example", "192.0.2.1") // its health was kept
		s.wants("c.example", "192.0.2.4")
		if c, ok := s.checks["b.example"]; !ok || c != nil {
			t.Errorf("b.example is still probed: %v", c)
		}
		changed := parse(t, "[name.\"a.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\ncheck = \"tcp://:81\"\n")
		if err := s.Apply(context.Background(), changed); err != nil {
			t.Fatal(err)
		}
		snap, err := s.Snapshot(context.Background(), "a.example")
		if err != nil || snap.Names[0].Endpoints[0].Health.State != rank.Unknown {
			t.Errorf("another check, and yet the old verdict: %+v %v", snap, err)
		}
	})
}

func TestWarmStart(t *testing.T) {
	key := func(name, addr string) rank.Key {
		return rank.Key{Name: name, Candidate: addr, Addr: netip.MustParseAddr(addr)}
	}
	saved := func(age time.Duration, other uint64) func() Saved {
		return func() Saved {
			c := parse(t, twoNames)
			print := c.Names[0].Candidates[0].Check.Fingerprint + other
			at := time.Now().Add(-age)
			return Saved{Endpoints: map[rank.Key]SavedEndpoint{
				key("a.example", "192.0.2.1"):    {Health: rank.Health{State: rank.Unhealthy, Checked: at}, Fingerprint: print, At: at},
				key("a.example", "192.0.2.2"):    {Health: rank.Health{State: rank.Healthy, Checked: at}, Fingerprint: print, At: at},
				key("gone.example", "192.0.2.9"): {At: at},
			}}
		}
	}
	play(t, twoNames, saved(time.Minute, 0), func(s *stage) {
		s.wants("a.example", "192.0.2.2")
		if _, wait := s.ask(t, "b.example"); !wait {
			t.Error("a name without stored state doesn't wait")
		}
		if list := seen(s, &s.forgotten); len(list) != 1 || list[0].Name != "gone.example" {
			t.Errorf("forgotten: %v", list)
		}
	})
	for what, left := range map[string]func() Saved{
		"too old": saved(6*time.Minute, 0), "of the future": saved(-time.Hour, 0), "of another check": saved(time.Minute, 1),
	} {
		t.Run(what, func(t *testing.T) {
			play(t, twoNames, left, func(s *stage) {
				if _, wait := s.ask(t, "a.example"); !wait {
					t.Error("the stored state was used")
				}
			})
		})
	}
}

// TestGuard: with three endpoints at distinct addresses, silence of all of them changes nothing;
// one that is silent while another answers is dropped.
func TestGuard(t *testing.T) {
	text := "[name.\"g.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\"]\ncheck = \"tcp://:80\"\n"
	all := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
	play(t, text, nil, func(s *stage) {
		for i, a := range all {
			s.probe("g.example", a, rank.OK, time.Duration(i+1)*10*time.Millisecond)
		}
		s.wants("g.example", "192.0.2.1")
		for range 20 { // our own network is cut
			s.pass(time.Second)
			for _, a := range all {
				s.probe("g.example", a, rank.Timeout, time.Second)
			}
		}
		s.wants("g.example", "192.0.2.1")
		snap, err := s.Snapshot(context.Background(), "")
		if err != nil || !snap.LocalFault {
			t.Errorf("no local fault: %v", err)
		}
		s.far.with(func() { s.probed = nil })
		s.probe("g.example", "192.0.2.2", rank.OK, 20*time.Millisecond) // it is back
		if snap, _ := s.Snapshot(context.Background(), ""); snap.LocalFault {
			t.Error("still a local fault")
		}
		if list := seen(s, &s.probed); len(list) < 3 {
			t.Errorf("probed at once: %v", list)
		}
		for range 4 { // the first is truly dead
			s.pass(time.Second)
			s.probe("g.example", "192.0.2.1", rank.Timeout, time.Second)
			s.probe("g.example", "192.0.2.2", rank.OK, 20*time.Millisecond)
		}
		s.wants("g.example", "192.0.2.2")
	})
}

func TestStaticIsAtOnce(t *testing.T) {
	play(t, "[name.\"s.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\ncheck = \"static:\"\n", nil, func(s *stage) {
		s.wants("s.example", "192.0.2.1")
		if len(s.checks["s.example"]) != 0 {
			t.Errorf("a static endpoint is probed: %v", s.checks)
		}
		s.pass(5 * time.Second)
		if len(s.rows) != 2 {
			t.Errorf("rows: %v", s.rows)
		}
	})
}

// TestManyStaticNames: the history of a large static configuration's start is written bit by bit,
// but whole, and a change in between finds its first answer recorded.
func TestManyStaticNames(t *testing.T) {
	const count = currentBatch + 100
	var text strings.Builder
	text.WriteString("[defaults]\ncheck = \"static:\"\n")
	for i := range count {
		fmt.Fprintf(&text, "[name.\"n%d.example\"]\ncandidates = [\"192.0.2.%d\", \"198.51.100.%d\"]\n", i, i%250, i%250)
	}
	play(t, text.String(), nil, func(s *stage) {
		s.wants("n599.example", "192.0.2.99")
		if n := len(seen(s, &s.answers)); n > 4*backlogBatch {
			t.Errorf("%d answers recorded at once", n)
		}
		if _, err := s.Force(context.Background(), Override{Host: HostKey{"n599.example", "192.0.2.99"}, State: rank.Down}, false); err != nil {
			t.Fatal(err)
		}
		s.pass(count / backlogBatch * backlogPause * 2)
		s.wants("n599.example", "198.51.100.99")
		got := map[string][]string{}
		for _, a := range seen(s, &s.answers) {
			if a.Family == rank.V4 {
				got[a.Name] = append(got[a.Name], joinAddrs(a.Addresses))
			}
		}
		if len(got) != count || !slices.Equal(got["n599.example"], []string{"192.0.2.99", "198.51.100.99"}) {
			t.Errorf("%d names have answers; n599.example: %v", len(got), got["n599.example"])
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.rows) != 2*count {
			t.Errorf("%d rows", len(s.rows))
		}
	})
}
