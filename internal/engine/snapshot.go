package engine

import (
	"context"
	"time"
)

// Snapshot asks the engine for its state: of one name, or of all with the empty string.
func (e *Engine) Snapshot(ctx context.Context, name string) (Snapshot, error) {
	var s Snapshot
	err := e.call(ctx, func() { s = e.snapshot(name, e.begin()) })
	return s, err
}

func (e *Engine) snapshot(name string, now time.Time) (s Snapshot) {
	s.At = now
	s.LocalFault = e.guard.fault()
	s.AnswerIDs = e.hosts[:len(e.hosts):len(e.hosts)]
	for _, n := range e.names {
		if name != "" && n.cfg.Name != name {
			continue
		}
		d := e.decision(n)
		s.Names = append(s.Names, NameView{Name: n.cfg.Name, Decision: d, Endpoints: e.states(n, &d)})
	}
	for _, o := range e.overridesList() {
		if name == "" || o.Host.Name == name {
			s.Overrides = append(s.Overrides, o)
		}
	}
	return s
}
