package daemon

import (
	"context"
	"time"
)

// Dump writes the whole state to the log, for SIGUSR1.
func (d *Daemon) Dump() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := d.engine.Snapshot(ctx, "")
	if err != nil {
		d.log.Error("state dump", "error", err)
		return
	}
	for i := range s.Names {
		n := &s.Names[i]
		for j := range n.Endpoints {
			e := &n.Endpoints[j]
			d.log.Info("endpoint", "name", n.Name, "candidate", e.Key.Candidate, "address", e.Key.Addr.String(),
				"state", e.Health.State.String(), "latency", e.Latency, "tier", e.Tier, "weight", e.Weight,
				"rank", e.Rank, "selected", e.Selected, "override", e.Override.String(),
				"last", e.Health.Last.String(), "reason", n.Decision.Endpoints[j].Reason.String())
		}
	}
	for _, u := range d.resolver.UpstreamStats() {
		d.log.Info("upstream", "upstream", u.Upstream, "state", u.State, "rtt", u.RTT, "queries", u.Queries,
			"inflight", u.Inflight, "rcodes", u.Rcodes, "failures", u.Failures)
	}
	st, p := d.store.Stats(), d.prober.Stats()
	d.log.Info("history", "state", st.State, "reason", st.Reason, "written", st.Written, "queued", st.Queued,
		"lost", st.Dropped, "write_errors", st.WriteErrors, "bytes", st.SizeBytes)
	d.log.Info("state", "names", len(s.Names), "local_fault", s.LocalFault, "probes_scheduled", p.Scheduled,
		"probes_running", p.Running, "probes_waiting", p.Waiting, "outcomes", p.ByOutcome())
}
