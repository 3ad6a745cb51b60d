package admin

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hard/internal/engine"
	"hard/internal/rank"
)

// Everything below is read when somebody scrapes; nothing is counted here. The counters of the
// answering side have one writer each and are summed by the parts that own them.

// scrapes that may run at one time.
const maxScrapes = 4

// allDescs are all that desc has made, for the tests of what rests on them.
var allDescs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("hard_"+name, help, labels, nil)
	allDescs = append(allDescs, d)
	return d
}

// The metrics of the contract, section 7, and some more of the same kind at the end.
var (
	descBuild     = desc("build_info", "Always 1; the version is in the labels.", "version", "goversion")
	descRequests  = desc("dns_requests_total", "DNS queries answered.", "proto", "type", "source")
	descResponses = desc("dns_responses_total", "DNS replies by response code.", "rcode", "source")
	descDuration  = desc("dns_request_duration_seconds", "Time from a query to its reply: every forward, a sample of local answers.", "source")
	descAnswers   = desc("answers_total", "Replies that gave an address of this candidate.", "name", "candidate")

	descUp          = desc("endpoint_up", "1 when the endpoint is healthy, or forced up.", "name", "candidate", "address")
	descSelected    = desc("endpoint_selected", "1 when the endpoint is in the answer.", "name", "candidate", "address")
	descLatency     = desc("endpoint_latency_seconds", "Smoothed latency that ranks the endpoint.", "name", "candidate", "address")
	descTransitions = desc("endpoint_transitions_total", "Changes of the endpoint's state.", "name", "candidate", "address")
	descHealthy     = desc("name_healthy_endpoints", "Endpoints of the name that are healthy, or forced up.", "name")
	descAllDown     = desc("name_all_down_total", "Times that no endpoint of the name was eligible any more, by what was done then.", "name", "policy")

	descProbes   = desc("probes_total", "Probes by what they found, extra tries included.", "name", "candidate", "outcome")
	descPhases   = desc("probe_duration_seconds", "Time from the start of a probe's connect until a phase was reached.", "phase")
	descLag      = desc("probe_lag_seconds", "How late probes started.")
	descUpReq    = desc("upstream_requests_total", "Attempts at an upstream by response code; without a reply: timeout, refused, unreachable, invalid, tls, local (ours: no descriptor, port or memory).", "upstream", "rcode")
	descUpTime   = desc("upstream_duration_seconds", "Time from an attempt at an upstream to its reply.", "upstream")
	descUpUp     = desc("upstream_up", "1 when the upstream is asked first, 0 when it is suspect, down, in a loop or ourselves.", "upstream")
	descLoops    = desc("loops_detected_total", "Our own queries that came back to us through an upstream.")
	descDropRows = desc("store_dropped_rows_total", "Rows of history that were lost.")
	descWriteErr = desc("store_write_errors_total", "Transactions of the history that failed.")
	descSize     = desc("store_size_bytes", "Size of the database and its write-ahead log.")
	descReloadOK = desc("config_last_reload_successful", "1 when the last load of the configuration was good.")
	descReloadAt = desc("config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded.")
	descFault    = desc("local_fault", "1 while this host's own network is taken to be broken.")

	descDropped   = desc("dns_dropped_packets_total", "Packets that got no answer: too short, responses, from odd ports.")
	descLost      = desc("dns_lost_replies_total", "Replies that the kernel did not take.")
	descPanics    = desc("panics_total", "Panics that were caught; each is a bug, please report it.")
	descConns     = desc("dns_tcp_connections", "Open TCP connections of DNS clients.")
	descStoreOK   = desc("store_up", "1 while history reaches the disk.")
	descLogDrop   = desc("log_dropped_lines_total", "Log lines lost because nobody took them.")
	descHooks     = desc("hooks_total", "Changes by what became of their hook: ok, failed, dropped.", "result")
	descOverrides = desc("overrides", "Overrides in force.")
)

// collector reads everything anew for each scrape.
type collector struct {
	s *Server
}

// newMetrics is the handler of /metrics, with a registry of its own.
func (s *Server) newMetrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// Describe sends nothing: which series there are is the configuration's business (an unchecked
// collector, in Prometheus' words).
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect is prometheus.Collector's.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch}
	c.process(e)
	c.dns(e)
	c.upstreams(e)
	c.prober(e)
	c.store(e)
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	if snap, err := c.s.o.Backend.Snapshot(ctx, ""); err == nil { // else: stopping
		c.endpoints(e, &snap)
		c.meter(e, &snap)
	}
}

// emitter makes metrics.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) flag(d *prometheus.Desc, b bool, labels ...string) {
	e.gauge(d, float64(one(b)), labels...)
}

func (e emitter) counter(d *prometheus.Desc, n uint64, labels ...string) {
	e.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

// histogram takes counts that are not cumulative, one more than bounds.
func (e emitter) histogram(d *prometheus.Desc, bounds []time.Duration, counts []uint64, sum time.Duration, labels ...string) {
	buckets := make(map[float64]uint64, len(bounds))
	total := uint64(0)
	for i, n := range counts {
		total += n
		if i < len(bounds) {
			buckets[bounds[i].Seconds()] = total
		}
	}
	e.ch <- prometheus.MustNewConstHistogram(d, total, sum.Seconds(), buckets, labels...)
}

func (c collector) process(e emitter) {
	info, extra := c.s.o.Backend.Info(), c.s.o.Backend.Extra()
	e.gauge(descBuild, 1, info.Version, runtime.Version())
	e.flag(descReloadOK, info.ReloadFail == "")
	e.gauge(descReloadAt, float64(info.Reloaded.UnixMilli())/1e3)
	e.counter(descPanics, extra.Panics)
	e.counter(descLogDrop, extra.LogDropped)
	e.counter(descHooks, extra.HookSent, "ok")
	e.counter(descHooks, extra.HookFailed, "failed")
	e.counter(descHooks, extra.HookDropped, "dropped")
}

func (c collector) dns(e emitter) {
	r := c.s.o.Backend.ResolverStats()
	for _, q := range r.Requests {
		e.counter(descRequests, q.N, q.Proto, q.Type, q.Source)
	}
	for _, q := range r.Responses {
		e.counter(descResponses, q.N, q.Rcode, q.Source)
	}
	for _, d := range r.Durations {
		e.histogram(descDuration, d.Bounds, d.Counts, d.Sum, d.Source)
	}
	e.counter(descLoops, r.Loops)
	e.counter(descDropped, r.Dropped)
	e.counter(descLost, r.Lost)
	e.gauge(descConns, float64(r.Conns))
}

func (c collector) upstreams(e emitter) {
	seen := make(map[string]bool) // a list that names one twice must not spoil the whole scrape
	for _, u := range c.s.o.Backend.UpstreamStats() {
		if seen[u.Upstream] {
			continue
		}
		seen[u.Upstream] = true
		e.flag(descUpUp, u.State == "up", u.Upstream)
		e.histogram(descUpTime, u.Duration.Bounds, u.Duration.Counts, u.Duration.Sum, u.Upstream)
		for rcode, n := range u.Rcodes {
			e.counter(descUpReq, n, u.Upstream, rcode)
		}
		for kind, n := range u.Failures {
			e.counter(descUpReq, n, u.Upstream, kind)
		}
	}
}

func (c collector) prober(e emitter) {
	lag := c.s.o.Backend.ProberStats().Lag
	e.histogram(descLag, lag.Bounds, lag.Counts, lag.Sum)
}

func (c collector) store(e emitter) {
	st := c.s.o.Backend.StoreStats()
	dropped := uint64(0)
	for _, n := range st.Dropped {
		dropped += n
	}
	e.counter(descDropRows, dropped)
	e.counter(descWriteErr, st.WriteErrors)
	e.gauge(descSize, float64(st.SizeBytes))
	e.flag(descStoreOK, st.State == "ok")
}

func (c collector) endpoints(e emitter, snap *engine.Snapshot) {
	e.flag(descFault, snap.LocalFault)
	e.gauge(descOverrides, float64(len(snap.Overrides)))
	transitions := c.s.o.Meter.transitionCounts()
	for i := range snap.Names {
		n := &snap.Names[i]
		healthy := 0
		for j := range n.Endpoints {
			ep := &n.Endpoints[j]
			k := ep.Key
			up := usable(ep)
			healthy += one(up)
			labels := []string{n.Name, k.Candidate, k.Addr.String()}
			e.flag(descUp, up, labels...)
			e.flag(descSelected, ep.Selected, labels...)
			if ep.Latency > 0 {
				e.gauge(descLatency, ep.Latency.Seconds(), labels...)
			}
			e.counter(descTransitions, transitions[k], labels...)
		}
		e.gauge(descHealthy, float64(healthy), n.Name)
	}
}

// meter is what the Meter counted, of what is configured now, at zero where nothing was.
func (c collector) meter(e emitter, snap *engine.Snapshot) {
	cfg, m := c.s.o.Backend.Config(), c.s.o.Meter
	keep := make(map[engine.HostKey]bool)
	for i := range cfg.Names {
		n := &cfg.Names[i]
		keep[engine.HostKey{Name: n.Name}] = true
		for j := range n.Candidates {
			keep[engine.HostKey{Name: n.Name, Candidate: n.Candidates[j].Label}] = true
		}
	}
	for id, n := range c.s.o.Backend.ResolverStats().Answers {
		if id < len(snap.AnswerIDs) && keep[snap.AnswerIDs[id]] {
			e.counter(descAnswers, n, snap.AnswerIDs[id].Name, snap.AnswerIDs[id].Candidate)
		}
	}
	m.keep(keep)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range cfg.Names {
		n := &cfg.Names[i]
		k := allDownKey{n.Name, n.Policy.OnAllDown.String()}
		if _, counted := m.allDown[k]; !counted {
			e.counter(descAllDown, 0, k.name, k.policy)
		}
	}
	for k, n := range m.allDown {
		e.counter(descAllDown, n, k.name, k.policy)
	}
	for k, counts := range m.probes {
		for o, n := range counts {
			if n > 0 {
				e.counter(descProbes, n, k.Name, k.Candidate, rank.Outcome(o).String())
			}
		}
	}
	for i := range m.phases {
		h := &m.phases[i]
		e.histogram(descPhases, phaseBounds[:], h.counts[:], h.sum, phaseNames[i])
	}
}

// transitionCounts is a copy.
func (m *Meter) transitionCounts() map[rank.Key]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[rank.Key]uint64, len(m.transitions))
	for k, n := range m.transitions {
		out[k] = n
	}
	return out
}
