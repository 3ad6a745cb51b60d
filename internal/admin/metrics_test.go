package admin

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// fake is a Backend with fixed figures.
type fake struct {
	config   *config.Config
	snapshot engine.Snapshot
}

func (f *fake) Info() Info             { return Info{Version: "1", Ready: true, Reloaded: time.Unix(1e9, 0)} }
func (f *fake) Config() *config.Config { return f.config }
func (f *fake) Snapshot(_ context.Context, name string) (engine.Snapshot, error) {
	s := f.snapshot
	if name != "" {
		s.Names = nil
		for _, n := range f.snapshot.Names {
			if n.Name == name {
				s.Names = append(s.Names, n)
			}
		}
	}
	return s, nil
}
func (f *fake) Force(context.Context, engine.Override, bool) ([]engine.Override, error, error) {
	return nil, nil, nil
}
func (f *fake) Probe(context.Context, rank.Key, bool) (rank.Sample, []prober.TraceLine, bool) {
	return rank.Sample{}, nil, false
}
func (f *fake) Past(context.Context, []string, time.Time) (Past, error) {
	return Past{}, engine.ErrNotFound
}
func (f *fake) Reload(string) (config.Report, error) { return config.Report{}, nil }
func (f *fake) SetLevel(slog.Level, string)          {}
func (f *fake) ResolverStats() resolver.Stats {
	bounds := []time.Duration{time.Millisecond, time.Second}
	return resolver.Stats{
		Requests:  []resolver.RequestCount{{Proto: "udp", Type: "A", Source: "local", N: 7}},
		Responses: []resolver.ResponseCount{{Rcode: "NOERROR", Source: "local", N: 7}},
		Durations: []resolver.Duration{{Source: "local", Bounds: bounds, Counts: []uint64{5, 1, 1}, Sum: 3 * time.Second}},
		Answers:   []uint64{4, 3, 9},
	}
}
func (f *fake) UpstreamStats() []resolver.UpstreamStat {
	d := resolver.Duration{Bounds: []time.Duration{time.Second}, Counts: []uint64{1, 0}, Sum: time.Second}
	u := resolver.UpstreamStat{Upstream: "127.0.0.53:53", State: "up", Rcodes: map[string]uint64{"NOERROR": 1}, Failures: map[string]uint64{"timeout": 2}, Duration: d}
	return []resolver.UpstreamStat{u, u} // a route may name it again
}
func (f *fake) ProberStats() prober.Stats {
	return prober.Stats{Lag: prober.Lag{Bounds: []time.Duration{time.Millisecond}, Counts: []uint64{1, 1}, Sum: time.Second}}
}
func (f *fake) StoreStats() store.Stats {
	return store.Stats{State: store.StateFull, Dropped: map[string]uint64{"probe": 2, "event": 1}}
}
func (f *fake) Extra() Extra { return Extra{LogDropped: 3} }

// someNames is a snapshot with n names of two endpoints each.
func someNames(n int) *fake {
	f := &fake{config: &config.Config{}}
	for i := range n {
		name := "n" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + "." + time.Duration(i).String() + ".example"
		c := config.Name{Name: name, Policy: &rank.Policy{}}
		v := engine.NameView{Name: name}
		for j, label := range []string{"east", "west"} {
			c.Candidates = append(c.Candidates, config.Candidate{Label: label})
			f.snapshot.AnswerIDs = append(f.snapshot.AnswerIDs, engine.HostKey{Name: name, Candidate: label})
			v.Endpoints = append(v.Endpoints, engine.EndpointState{
				Key:     rank.Key{Name: name, Candidate: label, Addr: netip.AddrFrom4([4]byte{127, byte(i >> 8), byte(i), byte(j + 1)})},
				Latency: time.Millisecond, Health: rank.Health{State: rank.Healthy}, Selected: j == 0,
			})
		}
		f.config.Names = append(f.config.Names, c)
		f.snapshot.Names = append(f.snapshot.Names, v)
	}
	return f
}

func registry(t testing.TB, f *fake, m *Meter) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(collector{New(Options{Backend: f, Meter: m})}); err != nil {
		t.Fatal(err)
	}
	return reg
}

func TestMetricsLint(t *testing.T) {
	f, m := someNames(3), NewMeter()
	k := f.snapshot.Names[0].Endpoints[0].Key
	m.Sample(&rank.Sample{Key: k, Outcome: rank.OK, Phases: rank.Phases{Connect: time.Millisecond, Total: 20 * time.Second}})
	m.Event(&engine.Event{Kind: "state", Key: k})
	m.Event(&engine.Event{Kind: "all_down", Key: rank.Key{Name: k.Name}, New: "all"})
	problems, err := testutil.GatherAndLint(registry(t, f, m))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestMetricValues: what is summed, made cumulative or left out.
func TestMetricValues(t *testing.T) {
	f, m := someNames(1), NewMeter()
	k := f.snapshot.Names[0].Endpoints[0].Key
	m.Event(&engine.Event{Kind: "state", Key: k})
	m.Event(&engine.Event{Kind: "state", Key: k})
	m.Event(&engine.Event{Kind: "all_down", Key: rank.Key{Name: k.Name}, New: "all"})
	m.Event(&engine.Event{Kind: "all_down", Key: rank.Key{Name: k.Name}, Old: "all"}) // its end
	name := k.Name
	want := `
# HELP hard_answers_total Replies that gave an address of this candidate.
# TYPE hard_answers_total counter
hard_answers_total{candidate="east",name="` + name + `"} 4
hard_answers_total{candidate="west",name="` + name + `"} 3
# HELP hard_dns_request_duration_seconds Time from a query to its reply: every forward, a sample of local answers.
# TYPE hard_dns_request_duration_seconds histogram
hard_dns_request_duration_seconds_bucket{source="local",le="0.001"} 5
hard_dns_request_duration_seconds_bucket{source="local",le="1"} 6
hard_dns_request_duration_seconds_bucket{source="local",le="+Inf"} 7
hard_dns_request_duration_seconds_sum{source="local"} 3
hard_dns_request_duration_seconds_count{source="local"} 7
# HELP hard_endpoint_transitions_total Changes of the endpoint's state.
# TYPE hard_endpoint_transitions_total counter
hard_endpoint_transitions_total{address="127.0.0.1",candidate="east",name="` + name + `"} 2
hard_endpoint_transitions_total{address="127.0.0.2",candidate="west",name="` + name + `"} 0
# HELP hard_name_all_down_total Times that no endpoint of the name was eligible any more, by what was done then.
# TYPE hard_name_all_down_total counter
hard_name_all_down_total{name="` + name + `",policy="all"} 1
hard_name_all_down_total{name="` + name + `",policy="last_good"} 0
# HELP hard_store_dropped_rows_total Rows of history that were lost.
# TYPE hard_store_dropped_rows_total counter
hard_store_dropped_rows_total 3
# HELP hard_upstream_requests_total Attempts at an upstream by response code; without a reply: timeout, refused, unreachable, invalid, tls, local (ours: no descriptor, port or memory).
# TYPE hard_upstream_requests_total counter
hard_upstream_requests_total{rcode="NOERROR",upstream="127.0.0.53:53"} 1
hard_upstream_requests_total{rcode="timeout",upstream="127.0.0.53:53"} 2
`
	err := testutil.GatherAndCompare(registry(t, f, m), strings.NewReader(want), "hard_answers_total", "hard_dns_request_duration_seconds",
		"hard_endpoint_transitions_total", "hard_name_all_down_total", "hard_store_dropped_rows_total", "hard_upstream_requests_total")
	if err != nil {
		t.Error(err)
	}
}

// TestMetricsForget: what is no longer configured leaves no series behind.
func TestMetricsForget(t *testing.T) {
	f, m := someNames(2), NewMeter()
	gone := f.snapshot.Names[1].Endpoints[0].Key
	m.Sample(&rank.Sample{Key: gone})
	m.Event(&engine.Event{Kind: "state", Key: gone})
	m.Event(&engine.Event{Kind: "all_down", Key: rank.Key{Name: gone.Name}, New: "all"})
	f.config.Names, f.snapshot.Names = f.config.Names[:1], f.snapshot.Names[:1]
	m.Forget([]rank.Key{gone})
	families, err := registry(t, f, m).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, mf := range families {
		if strings.Contains(mf.String(), gone.Name) {
			t.Errorf("%s still knows %s", mf.GetName(), gone.Name)
		}
	}
	if len(m.probes)+len(m.transitions)+len(m.allDown) != 0 {
		t.Errorf("the meter keeps %v %v %v", m.probes, m.transitions, m.allDown)
	}
}

func BenchmarkScrape1000Names(b *testing.B) {
	reg := registry(b, someNames(1000), NewMeter())
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStatus100Names(b *testing.B) {
	f := someNames(100)
	s := New(Options{Backend: f})
	for b.Loop() {
		if _, err := s.Status(context.Background(), ""); err != nil {
			b.Fatal(err)
		}
	}
}
