package engine

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

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

// response is what the published table answers to a query for A with EDNS; nil where the query would wait.
func (f *far) response(t *testing.T, name string) *dns.Msg {
	t.Helper()
	return f.responseTo(t, name, dns.TypeA)
}

func (f *far) responseTo(t *testing.T, name string, qtype uint16) *dns.Msg {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	var q wire.Query
	res := f.table.Serve(&q, buf, copy(buf, packet), wire.Transport{}, new(answer.Counters).NewRotor())
	if res.Action == answer.Wait {
		return nil
	}
	out := new(dns.Msg)
	if err := out.Unpack(buf[:res.N]); err != nil {
		t.Fatal(err)
	}
	return out
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
	playLogged(t, text, saved, slog.New(slog.DiscardHandler), story)
}

// playLogged is play with a log.
func playLogged(t *testing.T, text string, saved func() Saved, log *slog.Logger, story func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFar()
		o := Options{Config: parse(t, text), Publisher: f, Prober: f, Recorder: f, Log: log}
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
