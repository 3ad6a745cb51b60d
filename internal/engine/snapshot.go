package engine

import "context"

// Snapshot asks the engine for its state: of one name, or of all with the empty string.
func (e *Engine) Snapshot(ctx context.Context, name string) (Snapshot, error) {
	var s Snapshot
	err := e.call(ctx, func() {
		s.At = e.o.Now()
		s.LocalFault = e.guard.fault()
		s.AnswerIDs = e.ids.hosts[:len(e.ids.hosts):len(e.ids.hosts)]
		for _, n := range e.names {
			if name != "" && n.cfg.Name != name {
				continue
			}
			v := NameView{Name: n.cfg.Name, Decision: n.decision, Endpoints: make([]EndpointState, len(n.eps))}
			for i := range n.eps {
				v.Endpoints[i] = n.state(i)
			}
			s.Names = append(s.Names, v)
		}
		for _, o := range e.overridesList() {
			if name == "" || o.Host.Name == name {
				s.Overrides = append(s.Overrides, o)
			}
		}
	})
	return s, err
}
