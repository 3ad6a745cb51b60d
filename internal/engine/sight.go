package engine

import (
	"slices"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// number gives the candidates of a name their numbers for the front end's counters
// (answer.SetSpec.IDs). A number is kept for good: one that came back under another candidate
// would give it the other's count.
func (e *Engine) number(n *name, old []config.Candidate, ids []uint32) {
	n.ids = make([]uint32, len(n.cfg.Candidates))
	for i := range n.cfg.Candidates {
		label := n.cfg.Candidates[i].Label
		if k := slices.IndexFunc(old, func(c config.Candidate) bool { return c.Label == label }); k >= 0 {
			n.ids[i] = ids[k]
			continue
		}
		n.ids[i] = uint32(len(e.hosts))
		e.hosts = append(e.hosts, HostKey{n.cfg.Name, label})
	}
}

// noteAllDown records that on_all_down is applied to a name from now on, or no longer.
func (e *Engine) noteAllDown(n *name, d *rank.Decision, now time.Time) {
	was := n.allDown
	if n.allDown = d.AllDown; n.allDown == was {
		return
	}
	ev := Event{At: now, Key: rank.Key{Name: n.cfg.Name}, Kind: "all_down"}
	policy := n.cfg.Policy.OnAllDown.String()
	if was {
		ev.Old = policy
	} else {
		ev.New, ev.Reason = policy, d.Answers[rank.V4].Reason.String()
	}
	e.o.Recorder.Event(ev)
}
