package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
	"hard/internal/wire"
)

// served is the whole reply that a table gives to a question, but for the ID.
func served(t *testing.T, table *answer.Table, name string, rrtype uint16) string {
	t.Helper()
	buf := make([]byte, 1500)
	packet, err := wire.AppendName([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name)
	if err != nil {
		t.Fatal(err)
	}
	n := copy(buf, append(packet, byte(rrtype>>8), byte(rrtype), 0, 1))
	var q wire.Query
	res := table.Serve(&q, buf, n, wire.Transport{}, new(answer.Counters).NewRotor())
	return fmt.Sprintf("%v %x", res.Action, buf[:res.N])
}

// checksOf tells how the endpoints of a name are probed.
func (f *far) checksOf(name string) (text string) {
	f.with(func() {
		for _, c := range f.checks[name] {
			text += fmt.Sprint(c.Key, c.Check.Fingerprint, *c.Pace, c.Watch, " ")
		}
	})
	return text
}

// randomConfig has some of eight names, each in one of a few ways.
func randomConfig(r *rand.Rand) (text string, names []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "[defaults]\ncheck = \"static:\"\nttl = \"%ds\"\nmax_answers = %d\n", 1+r.IntN(2), 1+r.IntN(10)/9)
	for _, i := range r.Perm(8) {
		if r.IntN(5) == 0 {
			continue
		}
		name := fmt.Sprintf("n%d.example", i)
		if i == 7 {
			name = "*.wild.example"
		}
		names = append(names, name)
		fmt.Fprintf(&b, "[name.%q]\n", name)
		for range r.IntN(2) {
			b.WriteString([]string{"svcb = \"nodata\"\n", "select = \"group\"\n", "ttl = \"7s\"\n", "idle_after = \"1h\"\n", "check = \"tcp://x.example:80\"\n", "check = \"tcp://x.example:80\"\ninterval = \"9s\"\n"}[r.IntN(6)])
		}
		seldom := func() int { return r.IntN(10) / 9 }
		fmt.Fprintf(&b, "[name.%q.candidate.one]\naddress = \"192.0.2.%d\"\n", name, 1+seldom())
		fmt.Fprintf(&b, "[name.%q.candidate.two]\naddress = [\"2001:db8::%d\", \"198.51.100.1\"]\nweight = %d\ntier = %d\n",
			name, 1+seldom(), 1-seldom(), seldom())
	}
	if len(names) == 0 {
		return randomConfig(r)
	}
	return b.String(), names
}

// TestReloadIsAStart: whatever was in force before, names that nothing is known of but what the file says are answered
// after a reload as after a start.
func TestReloadIsAStart(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	far := newFar()
	text, _ := randomConfig(r)
	e := running(t, parse(t, text), far)
	for range 200 {
		text, names := randomConfig(r)
		if err := e.Apply(context.Background(), parse(t, text)); err != nil {
			t.Fatal(err)
		}
		fresh := newFar()
		running(t, parse(t, text), fresh).Stop()
		for i := range 8 {
			for _, rrtype := range []uint16{wire.TypeA, wire.TypeAAAA, 65} {
				name := fmt.Sprintf("n%d.example", i)
				if i == 7 {
					name = "x.wild.example"
				}
				if got, want := served(t, far.table, name, rrtype), served(t, fresh.table, name, rrtype); got != want {
					t.Fatalf("%s type %d after a reload of\n%s\nis answered %s, after a start %s", name, rrtype, text, got, want)
				}
			}
		}
		for _, name := range names { // and probed alike
			if got, want := far.checksOf(name), fresh.checksOf(name); got != want {
				t.Fatalf("%s is probed as %s, after a start as %s", name, got, want)
			}
		}
		for slot, n := range e.names {
			if n.slot != slot || n.cfg.Name != names[slot] || e.named(names[slot]) != n {
				t.Fatalf("slot %d has %s with slot %d; wanted %s", slot, n.cfg.Name, n.slot, names[slot])
			}
			for i := range n.eps {
				n.candidate(&n.eps[i]) // panics if it is of a configuration before
			}
		}
	}
}

// TestReloadLeavesTheRest: a reload that changes one name decides, stores and publishes that one alone; one that changes
// the TTL of all makes other answers of the same addresses, of which nothing has to be stored.
func TestReloadLeavesTheRest(t *testing.T) {
	far := newFar()
	e := running(t, parse(t, manyNames(20, "1s", "")), far)
	all := func() { // what waits to be stored is
		if err := e.call(context.Background(), func() { e.current.flush(e, e.begin(), true) }); err != nil {
			t.Fatal(err)
		}
	}
	all()
	entries := func() (list []*answer.Entry) {
		for _, n := range e.names {
			list = append(list, n.entry)
		}
		return list
	}
	before := entries()
	for _, step := range []struct {
		ttl, different string
		entries, rows  int
		answers        int
	}{
		{"1s", "", 0, 0, 0},
		{"1s", "192.0.2.1", 1, 2, 1},
		{"1s", "192.0.2.1", 0, 0, 0},
		{"2s", "192.0.2.1", 20, 0, 0},
		{"2s", "", 1, 2, 1},
	} {
		far.with(func() { far.answers, far.forgotten = nil, nil; clear(far.rows) })
		if err := e.Apply(context.Background(), parse(t, manyNames(20, step.ttl, step.different))); err != nil {
			t.Fatal(err)
		}
		all()
		after, changed := entries(), 0
		for slot := range after {
			if after[slot] != before[slot] {
				changed++
			}
		}
		before = after
		far.with(func() {
			if changed != step.entries || len(far.rows) != step.rows || len(far.answers) != step.answers {
				t.Errorf("%+v: %d entries, %d rows, answers %+v", step, changed, len(far.rows), far.answers)
			}
		})
	}
}

// TestReloadKeepsPending: first answers that still wait to be stored, as those of thousands of names do, are stored
// once, with the time they are of, also if a reload comes in between.
func TestReloadKeepsPending(t *testing.T) {
	const names = currentBatch + 10
	far := newFar()
	e := running(t, parse(t, manyNames(names, "1s", "")), far)
	for _, text := range []string{manyNames(names, "1s", ""), manyNames(names, "1s", "192.0.2.1"), manyNames(names, "2s", "192.0.2.1")} {
		if err := e.Apply(context.Background(), parse(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.call(context.Background(), func() { e.current.flush(e, e.begin(), true) }); err != nil {
		t.Fatal(err)
	}
	answers := stored(far)
	if len(answers) != 2*names+1 {
		t.Errorf("%d answers stored, want %d: two of each name, and one more of one", len(answers), 2*names+1)
	}
	slices.Sort(answers)
	if n := len(slices.Compact(slices.Clone(answers))); n != len(answers) {
		t.Errorf("%d answers are stored twice", len(answers)-n)
	}
}

// TestReloadDropsPending: a name that a reload takes away while its rows still wait to be stored is not stored as
// present after it was forgotten; what it answered is.
func TestReloadDropsPending(t *testing.T) {
	const names = currentBatch + 10
	far := newFar()
	text := manyNames(names, "1s", "")
	e := running(t, parse(t, text), far)
	if err := e.Apply(context.Background(), parse(t, text[:strings.LastIndex(text, "[name.")])); err != nil {
		t.Fatal(err)
	}
	if err := e.call(context.Background(), func() { e.current.flush(e, e.begin(), true) }); err != nil {
		t.Fatal(err)
	}
	far.with(func() {
		for _, k := range far.forgotten {
			if _, ok := far.rows[k]; ok {
				t.Errorf("%v is stored as present, and is configured no more", k)
			}
		}
		if len(far.forgotten) != 2 || len(far.rows) != 2*(names-1) || len(far.answers) != 2*names {
			t.Errorf("%d forgotten, %d rows, %d answers", len(far.forgotten), len(far.rows), len(far.answers))
		}
	})
}

// clumsy is a far side whose prober panics, once it is told to, when it is given checks.
type clumsy struct {
	*far
	panics atomic.Bool
}

func (c *clumsy) SetName(name string, checks []Check) {
	if c.panics.Swap(false) {
		panic("fault of a test")
	}
	c.far.SetName(name, checks)
}

// TestReloadAfterABug: a reload that a panic ended in the middle leaves nothing that a later one stumbles over, or takes
// for what is in force.
func TestReloadAfterABug(t *testing.T) {
	const text = "[name.\"a.example\"]\ncheck = \"static:\"\ncandidates = [%q]\n[name.\"b.example\"]\ncheck = \"tcp://:80\"\ncandidates = [\"192.0.2.9\"]\n" +
		"[name.\"c.example\"]\ncheck = \"static:\"\ncandidates = [\"192.0.2.8\"]\n"
	far := newFar()
	side := &clumsy{far: far}
	e, err := New(Options{
		Config: parse(t, fmt.Sprintf(text, "192.0.2.1")), Publisher: far, Prober: side, Recorder: far,
		LastReply: func() time.Time { return time.Time{} }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Start()
	defer e.Stop()
	if err := e.call(context.Background(), func() {}); err != nil { // the first checks are set
		t.Fatal(err)
	}
	side.panics.Store(true)
	next := parse(t, fmt.Sprintf(text, "192.0.2.2"))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_ = e.Apply(context.Background(), next)
	}()
	if err := e.Apply(context.Background(), next); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.example": "192.0.2.2", "c.example": "192.0.2.8"} {
		if got, _ := far.ask(t, name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is answered %v, want %s", name, got, want)
		}
	}
}

func stored(far *far) (list []string) {
	far.with(func() {
		for _, a := range far.answers {
			list = append(list, fmt.Sprint(a.Name, a.Family, a.Addresses))
		}
	})
	return list
}

// TestReloadAllocatesLittle: what a reload makes for names of which the file says nothing new does not grow with their
// number. It was five allocations for each.
func TestReloadAllocatesLittle(t *testing.T) {
	const names = 10_000
	text := manyNames(names, "1s", "")
	configs := [2]*config.Config{parse(t, text), parse(t, text)}
	e := running(t, parse(t, text), newFar())
	next := 0
	per := testing.AllocsPerRun(10, func() {
		if err := e.Apply(context.Background(), configs[next%2]); err != nil {
			t.Error(err)
		}
		next++
	})
	if per > names/2 { // 10, and what the engine makes beside it
		t.Errorf("%.0f allocations by a reload of %d names", per, names)
	}
}

// TestNoLongerProbed: once nothing of a name is probed any more the file decides, whichever tier answered before; after
// a restart, too, with what was stored then.
func TestNoLongerProbed(t *testing.T) {
	const probed = `
[defaults]
check = "tcp://:80"
[name."a.example".candidate.near]
address = "192.0.2.1"
[name."a.example".candidate.far]
address = "192.0.2.2"
tier = 1
`
	static := strings.Replace(probed, "tcp://:80", "static:", 1)
	stored := func() Saved {
		far := rank.FamilyMemory{Placed: true, Tier: 1, Selected: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
		return Saved{Memories: map[string]rank.Memory{"a.example": {Families: [2]rank.FamilyMemory{far, far}}}}
	}
	play(t, probed, nil, func(s *stage) {
		for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
			candidate, outcome := "near", rank.Refused
			if addr == "192.0.2.2" {
				candidate, outcome = "far", rank.OK
			}
			s.Sample(rank.Sample{
				Key: rank.Key{Name: "a.example", Candidate: candidate, Addr: netip.MustParseAddr(addr)},
				At:  time.Now(), Outcome: outcome, Final: true, Phases: rank.Phases{Connect: 1, FirstByte: 1, Total: 1},
			})
		}
		synctest.Wait()
		s.pass(time.Second)
		s.wants("a.example", "192.0.2.2")
		if err := s.Apply(context.Background(), parse(t, static)); err != nil {
			t.Fatal(err)
		}
		s.wants("a.example", "192.0.2.1")
	})
	play(t, static, stored, func(s *stage) { s.wants("a.example", "192.0.2.1") })
}
