package daemon

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/prober"
	"hard/resolver"
	"hard/store"
)

// The packages of floor 2 don't know each other, nor does the engine know them: the types below
// join what one declares to what the other offers.

// sink passes what the prober finds to the engine.
type sink struct{ d *Daemon }

// Sample is prober.Sink's.
func (s sink) Sample(p rank.Sample) { s.d.engine.Sample(p) }

// Addresses is prober.Sink's.
func (s sink) Addresses(f prober.Found) {
	s.d.engine.Addresses(engine.HostKey{Name: f.Name, Candidate: f.Candidate}, f.Addrs, f.Gone, f.Err == nil)
}

// checks is the prober as the engine wants it.
type checks struct{ *prober.Prober }

// SetName is engine.Prober's.
func (c checks) SetName(name string, list []engine.Check) {
	var targets []prober.Target
	for i := range list {
		targets = append(targets, prober.Target{Key: list[i].Key, Check: list[i].Check, Pace: list[i].Pace, Watch: list[i].Watch})
	}
	c.Prober.SetName(name, targets)
}

// SetHosts is engine.Prober's.
func (c checks) SetHosts(list []engine.Host) {
	hosts := make([]prober.Host, len(list))
	for i := range list {
		hosts[i] = prober.Host{Name: list[i].Name, Candidate: list[i].Candidate, Hosts: list[i].Hosts, Known: list[i].Known}
	}
	c.Prober.SetHosts(hosts)
}

// ProbeNow is engine.Prober's.
func (c checks) ProbeNow(keys []rank.Key) { c.Prober.ProbeNow(keys...) }

// history is the store as the engine wants it.
type history struct{ *store.Store }

// Event is engine.Recorder's.
func (h history) Event(e engine.Event) {
	h.Store.Event(store.Event{At: e.At, Key: e.Key, Kind: e.Kind, Old: e.Old, New: e.New, Reason: e.Reason, Who: e.Who})
}

// Answer is engine.Recorder's.
func (h history) Answer(a engine.AnswerChange) {
	h.Store.Answer(store.AnswerChange{At: a.At, Name: a.Name, Type: a.Family.String(), Addresses: a.Addresses, Reason: a.Reason, First: a.First})
}

// Current is engine.Recorder's.
func (h history) Current(rows []engine.EndpointState) {
	for i := range rows {
		r := &rows[i]
		var health json.RawMessage
		if !r.Health.Checked.IsZero() { // else there is nothing to start warm from
			health, _ = json.Marshal(&r.Health) // plain data: it can't fail
		}
		h.Put(store.CurrentState{
			Key: r.Key, State: r.Health.State, Override: r.Override, Tier: r.Tier, Weight: r.Weight,
			Rank: r.Rank, Selected: r.Selected, Latency: r.Latency,
			Connect:   r.Health.Latency(rank.LatencyConnect),
			FirstByte: r.Health.Latency(rank.LatencyFirstByte),
			Total:     r.Health.Latency(rank.LatencyTotal),

			LastOutcome: r.Health.Last, Since: r.Health.Since, Checked: r.Health.Checked,
			Fingerprint: r.Fingerprint, Health: health,
		})
	}
}

// Forget is engine.Recorder's.
func (h history) Forget(keys []rank.Key) { h.Store.Forget(keys...) }

// Memory is engine.Recorder's.
func (h history) Memory(name string, m rank.Memory) {
	if text, err := json.Marshal(&m); err == nil {
		h.PutMemory(name, text)
	}
}

// Addresses is engine.Recorder's.
func (h history) Addresses(host engine.HostKey, addrs []netip.Addr) {
	h.PutAddresses(host.Name, host.Candidate, addrs)
}

// Input is engine.Recorder's.
func (h history) Input(in engine.Input) { h.journal(in.At, string(in.Kind), &in) }

// Checkpoint is engine.Recorder's: the names one by one, and what belongs to none as an input.
func (h history) Checkpoint(c *engine.Checkpoint) {
	h.journal(c.At, string(engine.InputCheckpoint), c)
	rows := make([]store.Checkpoint, len(c.Names))
	for i := range c.Names {
		rows[i] = store.Checkpoint{At: c.At, Name: c.Names[i].Name, Value: &c.Names[i]}
	}
	h.Store.Checkpoint(rows...)
}

func (h history) journal(at time.Time, kind string, v any) {
	if text, err := json.Marshal(v); err == nil { // plain data: it can't fail
		h.Store.Input(store.Input{At: at, Kind: kind, Data: text})
	}
}

// savedState is what the store kept, as the engine wants it. What can't be read, such as rows of
// another version, is left out: it costs a colder start.
func savedState(s *store.Saved) engine.Saved {
	out := engine.Saved{
		Endpoints: make(map[rank.Key]engine.SavedEndpoint, len(s.Endpoints)),
		Memories:  make(map[string]rank.Memory, len(s.Memories)),
		Addresses: make(map[engine.HostKey][]netip.Addr, len(s.Addresses)),
	}
	for k, a := range s.Addresses {
		out.Addresses[engine.HostKey{Name: k.Name, Candidate: k.Candidate}] = a.Addresses
	}
	for i := range s.Overrides {
		if o, ok := savedOverride(&s.Overrides[i]); ok {
			out.Overrides = append(out.Overrides, o)
		}
	}
	if s.ClockBack {
		return out // how old the rest is can't be told
	}
	for k := range s.Endpoints {
		row := s.Endpoints[k]
		e := engine.SavedEndpoint{Fingerprint: row.Fingerprint, At: row.Checked}
		if json.Unmarshal(row.Health, &e.Health) == nil {
			out.Endpoints[k] = e
		}
	}
	for name, m := range s.Memories {
		var memory rank.Memory
		if json.Unmarshal(m.Memory, &memory) == nil {
			out.Memories[name] = memory
		}
	}
	return out
}

// upstreams is the forwarder's part of a configuration. At a reload as at a start the last good list of resolv.conf stands in
// for files that name nobody just now.
func (d *Daemon) upstreams(c *config.Config) resolver.UpstreamOptions {
	u := resolver.UpstreamOptions{
		Servers:        servers(c.Upstream.Servers),
		AttemptTimeout: c.Upstream.AttemptTimeout,
		TotalTimeout:   c.Upstream.TotalTimeout,
		Fastest:        c.Upstream.Fastest,
		MaxInflight:    c.Upstream.MaxInflight,
		Cache: resolver.CacheOptions{
			Enabled: c.Cache.Enabled, MaxEntries: c.Cache.MaxEntries, ServeStale: c.Cache.ServeStale,
		},
		Self:         d.resolver.Addrs(),
		SavedServers: *d.servers.Load(),
		SaveServers: func(list []netip.AddrPort) {
			d.servers.Store(&list)
			d.store.PutResolvers(list)
		},
	}
	for i := range c.Routes {
		u.Routes = append(u.Routes, resolver.Route{Suffix: c.Routes[i].Suffix, Servers: servers(c.Routes[i].Servers)})
	}
	return u
}

func servers(list []config.Server) []resolver.Server {
	out := make([]resolver.Server, len(list))
	for i, s := range list {
		out[i] = resolver.Server{
			Text: s.Text, Kind: resolver.ServerKind(s.Kind), Addr: s.Addr, ServerName: s.ServerName, URL: s.URL, Path: s.Path,
		}
	}
	return out
}

// savedOverride is a stored override as the engine wants it; ok is false for one that can't be read.
func savedOverride(s *store.Override) (o engine.Override, ok bool) {
	o = engine.Override{
		Host:  engine.HostKey{Name: s.Name, Candidate: s.Candidate},
		State: rank.Auto, Weight: -1, Until: s.Until, Since: s.At, Who: s.Who, Why: s.Why,
	}
	var err error
	if s.What == store.ForceWeight {
		o.What = engine.ForceWeight
		value, percent := strings.CutSuffix(s.Value, "%")
		o.Percent = percent
		o.Weight, err = strconv.Atoi(value)
	} else {
		o.State, err = rank.ParseOverride(s.Value)
	}
	return o, err == nil
}

// storedOverride is an override as the store wants it.
func storedOverride(o *engine.Override) store.Override {
	s := store.Override{
		Name: o.Host.Name, Candidate: o.Host.Candidate, What: store.ForceState, Value: o.Value(),
		At: o.Since, Until: o.Until, Who: o.Who, Why: o.Why,
	}
	if o.What == engine.ForceWeight {
		s.What = store.ForceWeight
	}
	return s
}
