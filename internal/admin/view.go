package admin

import (
	"context"
	"net/netip"
	"runtime/metrics"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// This file turns what the parts say of themselves into the types of the API.

// Status is all there is to show; with the name of a configured name, of that one alone. An unknown name is a
// statusError with advice.
func (s *Server) Status(ctx context.Context, name string) (Status, error) {
	if name != "" {
		n, err := s.find(name)
		if err != nil {
			return Status{}, err
		}
		name = n.Name
	}
	snap, err := s.o.Backend.Snapshot(ctx, name)
	if err != nil {
		return Status{}, err
	}
	return s.statusView(&snap), nil
}

// Stats are the counters.
func (s *Server) Stats() Stats { return s.statsView() }

// Explain is the decision behind one name. types are A and AAAA; none means both. An unknown name is an error, as
// Status has it.
func (s *Server) Explain(ctx context.Context, name string, types ...rank.Family) (Explain, error) {
	n, err := s.find(name)
	if err != nil {
		return Explain{}, err
	}
	snap, err := s.o.Backend.Snapshot(ctx, n.Name)
	if err != nil {
		return Explain{}, err
	}
	if len(snap.Names) != 1 {
		return Explain{}, notFound(name, s.o.Backend.Config()) // a reload came in between
	}
	return ExplainView(&snap, n.Policy, types...), nil
}

// millis is a duration in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Round(time.Microsecond)) / 1e6 }

func nameView(n *engine.NameView) Name {
	out := Name{
		Name:      n.Name,
		AllDown:   n.Decision.AllDown,
		Answers:   make(map[string]Answer, 2),
		Endpoints: make([]Endpoint, len(n.Endpoints)),
	}
	for i := range n.Endpoints {
		out.Endpoints[i] = endpointView(n, i)
		out.Healthy += one(usable(&n.Endpoints[i]))
	}
	for _, f := range []rank.Family{rank.V4, rank.V6} {
		out.Answers[f.String()] = answerView(n, f)
	}
	return out
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// usable tells whether an endpoint counts as healthy: by measurement or by an operator's word.
func usable(e *engine.EndpointState) bool {
	return e.Override == rank.Up || e.Override == rank.Auto && e.Health.State == rank.Healthy
}

func answerView(n *engine.NameView, f rank.Family) Answer {
	a := &n.Decision.Answers[f]
	out := Answer{
		Kind: a.Kind, Rotate: a.Rotate, Tier: a.Tier, Reason: a.Reason.String(),
		Addresses: make([]netip.Addr, 0, len(a.Selected)),
	}
	for _, i := range a.Selected {
		if i < len(n.Endpoints) {
			out.Addresses = append(out.Addresses, n.Endpoints[i].Key.Addr)
		}
	}
	return out
}

func endpointView(n *engine.NameView, i int) Endpoint {
	e := &n.Endpoints[i]
	h := &e.Health
	out := Endpoint{
		Candidate: e.Key.Candidate, Address: e.Key.Addr, Type: typeOf(e.Key.Addr),
		State: h.State, Override: e.Override, Tier: e.Tier, Weight: e.Weight, Rank: e.Rank, Selected: e.Selected,
		LatencyMS:   millis(e.Latency),
		ConnectMS:   millis(h.Latency(rank.LatencyConnect)),
		FirstByteMS: millis(h.Latency(rank.LatencyFirstByte)),
		TotalMS:     millis(h.Latency(rank.LatencyTotal)),
		Successes:   int(h.Oks), Failures: int(h.Misses), Held: h.Held, Warm: h.Warm,
		Since: h.Since, Checked: h.Checked,
	}
	if !h.Checked.IsZero() {
		out.LastOutcome = h.Last.String()
	}
	if i < len(n.Decision.Endpoints) {
		v := &n.Decision.Endpoints[i]
		out.Eligible, out.Reason = v.Eligible, v.Reason.String()
	}
	return out
}

func typeOf(a netip.Addr) string {
	if a.Is4() {
		return rank.V4.String()
	}
	return rank.V6.String()
}

func overridesView(list []engine.Override) []Override {
	out := make([]Override, len(list))
	for i := range list {
		o := &list[i]
		what := "state"
		if o.What == engine.ForceWeight {
			what = "weight"
		}
		out[i] = Override{
			Name: o.Host.Name, Candidate: o.Host.Candidate, What: what, Value: o.Value(),
			Since: o.Since, Until: o.Until, Who: o.Who, Why: o.Why,
		}
	}
	return out
}

func upstreamsView(list []resolver.UpstreamStat) []Upstream {
	out := make([]Upstream, len(list))
	for i, u := range list {
		out[i] = Upstream{
			Upstream: u.Upstream, State: u.State, RTTMS: millis(u.RTT), Queries: u.Queries,
			Rcodes: u.Rcodes, Failures: u.Failures, Strays: u.Strays, Inflight: u.Inflight, LastSeen: u.LastSeen,
		}
	}
	return out
}

func storeView(s store.Stats, path string) Store {
	return Store{
		State: string(s.State), Reason: s.Reason, Path: path, Queued: s.Queued, Written: s.Written,
		Dropped: s.Dropped, WriteErrors: s.WriteErrors, SizeBytes: s.SizeBytes, LastCommit: s.LastCommit,
	}
}

func proberView(s prober.Stats) Prober {
	p := Prober{
		Scheduled: s.Scheduled, Running: s.Running, Waiting: s.Waiting, Watching: s.Watching,
		Delayed: s.Delayed, LagMaxMS: millis(s.Lag.Max), Outcomes: s.ByOutcome(),
	}
	started := uint64(0)
	for _, n := range s.Lag.Counts {
		started += n
	}
	if started > 0 {
		p.LagAvgMS = millis(s.Lag.Sum / time.Duration(started))
	}
	return p
}

func policyView(p *rank.Policy) Policy {
	families := "together"
	if p.Apart {
		families = "apart"
	}
	return Policy{
		Select: p.Select.String(), Latency: p.Latency.String(), GroupWithinMS: millis(p.GroupWithin),
		MaxLatencyMS: millis(p.MaxLatency), SwitchRatio: p.SwitchRatio, SwitchMinMS: millis(p.SwitchMin),
		HoldMS: millis(p.Hold), Families: families, MaxAnswers: p.MaxAnswers,
		OnAllDown: p.OnAllDown.String(), MinHealthy: p.MinHealthy,
	}
}

func (s *Server) statusView(snap *engine.Snapshot) Status {
	c, info := s.o.Backend.Config(), s.o.Backend.Info()
	out := Status{
		Version: info.Version, PID: info.PID, Started: info.Started, At: snap.At,
		Config: ConfigInfo{
			File: c.File, Loaded: info.Reloaded, ReloadOK: info.ReloadFail == "", ReloadFail: info.ReloadFail,
			Candidates: countCandidates(c),
		},
		Listen:     ListenInfo{DNS: info.DNS, HTTP: c.Listen.HTTP, Control: c.Listen.Control},
		LogLevel:   config.LevelText(info.Level),
		LocalFault: snap.LocalFault,
		Names:      make([]Name, len(snap.Names)),
		Upstreams:  upstreamsView(s.o.Backend.UpstreamStats()),
		Store:      storeView(s.o.Backend.StoreStats(), c.Store.Path),
		Prober:     proberView(s.o.Backend.ProberStats()),
		Overrides:  overridesView(snap.Overrides),
	}
	for i := range snap.Names {
		out.Names[i] = nameView(&snap.Names[i])
	}
	return out
}

func countCandidates(c *config.Config) int {
	n := 0
	for i := range c.Names {
		n += len(c.Names[i].Candidates)
	}
	return n
}

func (s *Server) statsView() Stats {
	b := s.o.Backend
	r, extra, c := b.ResolverStats(), b.Extra(), b.Config()
	out := Stats{
		At: time.Now(), Started: b.Info().Started,
		BySource: make(map[string]uint64), ByProtocol: make(map[string]uint64), ByRcode: make(map[string]uint64),
		Dropped: r.Dropped, Lost: r.Lost, Loops: r.Loops, Panics: extra.Panics, TCPConns: r.Conns,
		LogDropped: extra.LogDropped,
		Hooks:      Hooks{Sent: extra.HookSent, Failed: extra.HookFailed, Dropped: extra.HookDropped},
		Upstreams:  upstreamsView(b.UpstreamStats()),
		Store:      storeView(b.StoreStats(), c.Store.Path),
		Prober:     proberView(b.ProberStats()),
	}
	for _, q := range r.Requests {
		out.Queries += q.N
		out.BySource[q.Source] += q.N
		out.ByProtocol[q.Proto] += q.N
	}
	for _, q := range r.Responses {
		out.ByRcode[q.Rcode] += q.N
	}
	samples := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples) // unlike runtime.ReadMemStats, this stops nobody
	out.Goroutines, out.HeapBytes = int(samples[0].Value.Uint64()), samples[1].Value.Uint64()
	return out
}

// onlyType leaves out the answers and endpoints of the other type.
func onlyType(n *Name, typ string) {
	n.Answers = map[string]Answer{typ: n.Answers[typ]}
	kept := make([]Endpoint, 0, len(n.Endpoints))
	for i := range n.Endpoints {
		if n.Endpoints[i].Type == typ {
			kept = append(kept, n.Endpoints[i])
		}
	}
	n.Endpoints = kept
}
