package admin

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
)

// This file is the part of the control API that changes something, or makes something happen.

func (s *Server) postSet(r *http.Request) (any, error) {
	var q struct {
		SetRequest
		State *rank.Override `json:"state"` // as a pointer, to see that it is there
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if q.State == nil {
		return nil, badRequest("state is missing: up, down, drain or auto")
	}
	return s.force(r, q.Name, q.Candidate, q.SetRequest.Force, engine.Override{
		What: engine.ForceState, State: *q.State, Weight: -1, Until: until(q.For), Why: q.Why,
	})
}

func (s *Server) postWeight(r *http.Request) (any, error) {
	var q struct {
		WeightRequest
		Weight *Weight `json:"weight"`
	}
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Weight == nil:
		return nil, badRequest("weight is missing: a number, a percentage, or auto")
	case q.Candidate == "":
		return nil, badRequest("candidate is missing: a weight is one candidate's")
	}
	return s.force(r, q.Name, q.Candidate, q.WeightRequest.Force, engine.Override{
		What: engine.ForceWeight, Weight: q.Weight.N, Percent: q.Weight.Percent, Until: until(q.For), Why: q.Why,
	})
}

func until(d Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(d))
}

// force is what set and weight share.
func (s *Server) force(r *http.Request, name, label string, force bool, o engine.Override) (any, error) {
	n, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if label != "" {
		if _, err := candidate(n, label); err != nil {
			return nil, err
		}
	}
	if len(o.Why) > maxWhy {
		return nil, badRequest("why is longer than %d characters", maxWhy)
	}
	ctx, cancel := bounded(r)
	defer cancel()
	o.Host = engine.HostKey{Name: n.Name, Candidate: label}
	o.Who, o.Why = r.RemoteAddr, oneLine(o.Why)
	forced, stored, err := s.o.Backend.Force(ctx, o, force)
	if err != nil {
		return nil, err
	}
	out := Forced{Overrides: overridesView(forced)}
	if stored != nil {
		out.Warning = "in force, but not stored, so that a restart forgets it: " + stored.Error()
	}
	return out, nil
}

// oneLine keeps control characters out of logs, tables and terminals.
func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s))
}

func (s *Server) postProbe(r *http.Request) (any, error) {
	var q ProbeRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	n, err := s.find(q.Name)
	if err != nil {
		return nil, err
	}
	if q.Candidate != "" {
		if _, err := candidate(n, q.Candidate); err != nil {
			return nil, err
		}
	}
	ctx, cancel := bounded(r)
	defer cancel()
	snap, err := s.o.Backend.Snapshot(ctx, n.Name)
	if err != nil {
		return nil, err
	}
	out := Probed{Name: n.Name, Probes: []Probe{}}
	if len(snap.Names) == 1 {
		out.Probes = s.probe(r.Context(), endpoints(&snap.Names[0], q.Candidate), q.Trace)
	}
	if len(out.Probes) == 0 {
		return nil, &statusError{http.StatusConflict, Error{
			Message: n.Name + ": no address of it is known yet", Hint: "are the upstreams up? hard status shows them",
		}}
	}
	return out, nil
}

// probe runs the probes of some endpoints side by side, with those of other requests no more
// than maxProbes.
func (s *Server) probe(ctx context.Context, keys []rank.Key, trace bool) []Probe {
	out := make([]Probe, len(keys))
	ran := make([]bool, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		select {
		case s.probes <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		wg.Go(func() {
			defer func() { <-s.probes }()
			sample, lines, ok := s.o.Backend.Probe(ctx, k, trace)
			if ok {
				out[i], ran[i] = probeView(&sample), true
			}
			for _, l := range lines {
				out[i].Trace = append(out[i].Trace, TraceLine{AtMS: millis(l.At), Dir: l.Dir, Text: l.Text})
			}
		})
	}
	wg.Wait()
	kept := out[:0]
	for i := range out {
		if ran[i] {
			kept = append(kept, out[i])
		}
	}
	return kept
}

func probeView(p *rank.Sample) Probe {
	return Probe{
		Candidate: p.Key.Candidate, Address: p.Key.Addr, At: p.At, Outcome: p.Outcome, Status: p.Status,
		ConnectMS: millis(p.Phases.Connect), TLSMS: millis(p.Phases.TLS), FirstByteMS: millis(p.Phases.FirstByte),
		TotalMS: millis(p.Phases.Total), Detail: p.Detail,
	}
}

func (s *Server) postReload(r *http.Request) (any, error) {
	report, err := s.o.Backend.Reload(r.RemoteAddr)
	out := Reloaded{Reloaded: err == nil, File: report.File, Problems: make([]Problem, len(report.Problems))}
	for i, p := range report.Problems {
		out.Problems[i] = Problem{p.Line, p.Col, p.Severity.String(), p.Path, p.Message, p.Suggestion, report.Text(p)}
	}
	if err == nil {
		return out, nil
	}
	if report.Count(config.Error) == 0 {
		out.Error = err.Error()
	}
	return withStatus{http.StatusUnprocessableEntity, out}, nil
}

func (s *Server) postLog(r *http.Request) (any, error) {
	var q LogRequest
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	l, err := config.ParseLevel(q.Level)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	was := s.o.Backend.Info().Level
	s.o.Backend.SetLevel(l, r.RemoteAddr)
	return LogReply{Level: config.LevelText(l), Was: config.LevelText(was)}, nil
}
