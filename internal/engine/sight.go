package engine

import (
	"time"

	"hard/internal/rank"
)

// answerIDs number the candidates for the front end's counters (answer.SetSpec.IDs). A number is
// kept for good: one that came back under another candidate would give it the other's count.
type answerIDs struct {
	numbers map[HostKey]uint32
	hosts   []HostKey // by number; only appended to
}

func (a *answerIDs) of(k HostKey) uint32 {
	id, ok := a.numbers[k]
	if !ok {
		if a.numbers == nil {
			a.numbers = make(map[HostKey]uint32)
		}
		id = uint32(len(a.hosts))
		a.numbers[k] = id
		a.hosts = append(a.hosts, k)
	}
	return id
}

// noteAllDown records that on_all_down is applied to a name from now on, or no longer.
func (e *Engine) noteAllDown(n *name, was bool, now time.Time) {
	if n.decision.AllDown == was {
		return
	}
	ev := Event{At: now, Key: rank.Key{Name: n.cfg.Name}, Kind: "all_down"}
	policy := n.cfg.Policy.OnAllDown.String()
	if was {
		ev.Old = policy
	} else {
		ev.New, ev.Reason = policy, n.decision.Answers[rank.V4].Reason.String()
	}
	e.o.Recorder.Event(ev)
}
