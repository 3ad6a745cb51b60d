package past

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

// Explained is a name as it was decided at an instant.
type Explained struct {
	Snapshot engine.Snapshot
	Policy   *rank.Policy
	Answers  [2][]string            // what was recorded as answered, by family
	Config   *config.Config         // in force then
	Recorded [2]*store.AnswerChange // the last recorded change of each family; nil: none
}

// Explain rebuilds the decision in force at an instant. An error that is a *Gap says that the past
// of then is incomplete.
func (h *History) Explain(ctx context.Context, name string, at time.Time) (*Explained, error) {
	at = at.Truncate(time.Microsecond)
	i := h.pointBefore(at)
	if i < 0 {
		g := &Gap{From: at, To: at, Why: "the history does not reach that far back"}
		if len(h.points) > 0 {
			g.To = h.points[0].At
		}
		return nil, g
	}
	seg := h.segment(i)
	if at.After(seg.until) {
		return nil, h.gapAt(&seg, seg.until, at)
	}
	p, err := h.play(ctx, &seg, at)
	if err != nil {
		return nil, err
	}
	if at.After(p.last) && seg.crash {
		return nil, h.gapAt(&seg, p.last, at)
	}
	p.Advance(at)
	x := &Explained{Snapshot: p.Snapshot(name), Config: p.config}
	if len(x.Snapshot.Names) == 0 {
		return nil, fmt.Errorf("%s: %w at that time", name, engine.ErrNotFound)
	}
	for k := range p.config.Names {
		if p.config.Names[k].Name == name {
			x.Policy = p.config.Names[k].Policy
		}
	}
	return x, h.recorded(ctx, x, name, at)
}

// ExplainFirst is Explain for the first of some names that there was: a name, and the wildcards that
// may cover it.
func (h *History) ExplainFirst(ctx context.Context, names []string, at time.Time) (*Explained, error) {
	x, err := h.Explain(ctx, names[0], at)
	for _, name := range names[1:] {
		if !errors.Is(err, engine.ErrNotFound) {
			break
		}
		y, cerr := h.Explain(ctx, name, at)
		if cerr == nil || !errors.Is(cerr, engine.ErrNotFound) { // a name that nobody knows keeps the error that names it
			x, err = y, cerr
		}
	}
	return x, err
}

// gapAt is the span in which an instant can't be explained.
func (h *History) gapAt(seg *segment, from, at time.Time) *Gap {
	g := &Gap{From: from, To: seg.next, Why: seg.why}
	if k := h.pointAfter(at); seg.next.IsZero() && k < len(h.points) {
		g.To = h.points[k].At
	}
	return &Gap{From: g.From, To: later(g.To, at), Why: g.Why}
}

// recorded finds what was recorded as the answer of then.
func (h *History) recorded(ctx context.Context, x *Explained, name string, at time.Time) error {
	until := at.Truncate(time.Millisecond).Add(time.Millisecond)
	list, err := h.r.Answers(ctx, store.Filter{Name: name, Since: until, Until: until})
	for i := range list {
		if f, ferr := rank.ParseFamily(list[i].Type); ferr == nil {
			x.Recorded[f] = &list[i]
		}
	}
	return err
}

// played is a player that was given the recorded input.
type played struct {
	*engine.Player
	config *config.Config
	last   time.Time // of the last thing recorded in its segment
}

// play goes from a checkpoint to an instant. Of a run that crashed it reads on until the next row,
// to know whether the instant was before its end.
func (h *History) play(ctx context.Context, seg *segment, at time.Time) (*played, error) {
	c, err := h.Config(ctx, seg.from.Config)
	if err != nil {
		return nil, err
	}
	from, err := h.load(ctx, seg.from)
	if err != nil {
		return nil, err
	}
	p := &played{config: c, last: from.At}
	if p.Player, err = engine.NewPlayer(c, from, nil); err != nil {
		return nil, err
	}
	to := at
	if seg.crash {
		to = seg.until
	}
	past := func(t time.Time) bool { p.last = t; return t.After(at) }
	return p, h.stream(ctx, from.At, to, visitor{
		sample: func(s *rank.Sample) error {
			if past(s.Taken) {
				return errEnough
			}
			p.Sample(s)
			return nil
		},
		input: func(in *engine.Input) error {
			switch {
			case past(in.At):
				return errEnough
			case in.Kind != engine.InputConfig:
				p.Input(*in)
				return nil
			}
			c, err := h.Config(ctx, in.Config)
			if err == nil {
				p.config = c
				err = p.Apply(c, in.At)
			}
			return err
		},
	})
}
