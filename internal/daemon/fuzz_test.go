package daemon

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

// FuzzSaved: whatever stands in the database (a file that somebody else may have written to), a start
// from it comes to a table, and no address is answered that the configuration does not have.
func FuzzSaved(f *testing.F) {
	c, report := config.Parse("fuzz.toml", []byte(`
[defaults]
check = "tcp://:80"
[name."a.example"]
candidates = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
[name."b.example"]
candidates = ["host.example"]
select = "group"
max_answers = 3
`))
	if c == nil {
		f.Fatal(report.Err())
	}
	now := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	health, err := json.Marshal(rank.Health{State: rank.Healthy, Checked: now, Since: now, Last: rank.OK})
	if err != nil {
		f.Fatal(err)
	}
	memory, err := json.Marshal(rank.Memory{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(health, memory, "down", int64(0))
	f.Add([]byte(`{"state":9,"latency":-1e300}`), []byte(`{"v4":{"selected":[7]}}`), "200%", int64(1)<<60)
	f.Add([]byte(`null`), []byte(`[]`), "", int64(-1)<<60)
	f.Fuzz(func(t *testing.T, health, memory []byte, value string, age int64) {
		saved := &store.Saved{
			Endpoints: map[rank.Key]store.CurrentState{}, Memories: map[string]store.Memory{},
			Addresses: map[store.CandidateKey]store.Addresses{{Name: "b.example", Candidate: "host.example"}: {Addresses: []netip.Addr{{}, netip.MustParseAddr("192.0.2.9")}}},
			Overrides: []store.Override{
				{Name: "a.example", Candidate: "192.0.2.1", What: store.ForceState, Value: value, At: now, Until: now.Add(time.Duration(age))},
				{Name: "a.example", Candidate: "192.0.2.2", What: store.ForceWeight, Value: value, At: now},
			},
		}
		for _, addr := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", "198.51.100.66"} {
			key := rank.Key{Name: "a.example", Candidate: addr, Addr: netip.MustParseAddr(addr)}
			saved.Endpoints[key] = store.CurrentState{Key: key, Fingerprint: c.Names[0].Candidates[0].Check.Fingerprint, Health: health,
				Checked: now.Add(-time.Duration(age % int64(time.Hour)))}
		}
		saved.Memories["a.example"] = store.Memory{Memory: memory}
		var published *answer.Table
		e, err := engine.New(engine.Options{
			Config: c, Saved: savedState(saved), Publisher: publisher(func(tb *answer.Table) { published = tb }), Prober: nobody{}, Recorder: nobody{},
			OwnAddrs: func() []netip.Addr { return nil }, LastReply: func() time.Time { return time.Time{} },
			Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
		})
		if err != nil || published == nil {
			t.Fatalf("no start: %v", err)
		}
		e.Start()
		defer e.Stop()
		s, err := e.Snapshot(t.Context(), "a.example")
		if err != nil || len(s.Names) != 1 {
			t.Fatalf("%v, %v", s, err)
		}
		for _, ep := range s.Names[0].Endpoints {
			if !slices.Contains([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, ep.Key.Addr.String()) {
				t.Fatalf("an endpoint that is not configured: %+v", ep)
			}
		}
	})
}

type publisher func(*answer.Table)

func (p publisher) Publish(t *answer.Table) { p(t) }

// nobody is a prober and a recorder that do nothing.
type nobody struct{}

func (nobody) SetName(string, []engine.Check)         {}
func (nobody) SetHosts([]engine.Host)                 {}
func (nobody) SetInterval(rank.Key, time.Duration)    {}
func (nobody) ProbeNow([]rank.Key)                    {}
func (nobody) Record(rank.Sample)                     {}
func (nobody) Event(engine.Event)                     {}
func (nobody) Answer(engine.AnswerChange)             {}
func (nobody) Current([]engine.EndpointState)         {}
func (nobody) Forget([]rank.Key)                      {}
func (nobody) Memory(string, rank.Memory)             {}
func (nobody) Addresses(engine.HostKey, []netip.Addr) {}
func (nobody) Input(engine.Input)                     {}
func (nobody) Checkpoint(*engine.Checkpoint)          {}
