// Package past rebuilds what was decided, from the history, by running the engine's own code on
// what the engine was given then (engine.Player): for one instant (Explain) and for a span under
// another configuration (Replay).
//
// It reads, and only reads, what package store kept. Where rows are missing it says from when to
// when (Gap) instead of guessing: a rebuilt past is exact or it is called incomplete.
package past

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/store"
)

// Gap is a span of time that can't be rebuilt.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Why  string    `json:"why"`
}

// Error makes a gap the reason why an instant can't be explained.
func (g *Gap) Error() string {
	const layout = "2006-01-02 15:04:05"
	return fmt.Sprintf("incomplete from %s to %s: %s", g.From.Local().Format(layout), g.To.Local().Format(layout), g.Why)
}

// History is an open history.
type History struct {
	r       *store.Reader
	extent  store.Extent
	configs map[string]*config.Config // parsed ones
	inputs  []engine.Input            // in order of time
	points  []*engine.Checkpoint      // without names, in order of time
	lost    []Gap                     // rows that were dropped, spans told twice by a clock that was set back
}

// Open reads what a history has besides probes. r stays the caller's.
func Open(ctx context.Context, r *store.Reader) (*History, error) {
	h := &History{r: r, configs: make(map[string]*config.Config)}
	var err error
	if h.extent, err = r.Extent(ctx); err != nil {
		return nil, err
	}
	if err := h.readInputs(ctx); err != nil {
		return nil, err
	}
	return h, h.readLost(ctx)
}

func (h *History) readInputs(ctx context.Context) error {
	rows, err := h.r.Inputs(ctx, store.Filter{})
	if err != nil {
		return err
	}
	for i := range rows {
		row := &rows[i]
		if row.Kind == string(engine.InputCheckpoint) {
			c := new(engine.Checkpoint)
			if err := json.Unmarshal(row.Data, c); err != nil {
				return fmt.Errorf("checkpoint of %s: %w", row.At, err)
			}
			// A probe that began before the checkpoint may have been taken after it.
			if from := h.extent.ProbesFrom; from.IsZero() || !c.At.Add(-longestProbe).Before(from) {
				h.points = append(h.points, c)
			}
			continue
		}
		var in engine.Input
		if err := json.Unmarshal(row.Data, &in); err != nil {
			return fmt.Errorf("input of %s: %w", row.At, err)
		}
		if in.Kind == engine.InputClock && in.Step < 0 {
			h.lost = append(h.lost, Gap{in.At, in.At.Add(-in.Step), "the clock was set back, two histories lie in one time"})
		}
		h.inputs = append(h.inputs, in)
	}
	slices.SortStableFunc(h.points, func(a, b *engine.Checkpoint) int { return a.At.Compare(b.At) })
	slices.SortStableFunc(h.inputs, func(a, b engine.Input) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(order(a.Kind), order(b.Kind)))
	})
	return nil
}

// order puts what an operation asks for before the operation.
func order(k engine.InputKind) int {
	if k == engine.InputReply || k == engine.InputOwn {
		return 0
	}
	return 1
}

func (h *History) readLost(ctx context.Context) error {
	events, err := h.r.Events(ctx, store.Filter{})
	if err != nil {
		return err
	}
	for i := range events {
		if e := &events[i]; e.Kind == store.KindLost {
			from, err1 := time.Parse(time.RFC3339Nano, e.Old)
			to, err2 := time.Parse(time.RFC3339Nano, e.New)
			if err1 == nil && err2 == nil {
				h.lost = append(h.lost, Gap{from, to, e.Reason})
			}
		}
	}
	slices.SortFunc(h.lost, func(a, b Gap) int { return a.From.Compare(b.From) })
	return nil
}

// Config gives the configuration of a hash.
func (h *History) Config(ctx context.Context, hash string) (*config.Config, error) {
	if c := h.configs[hash]; c != nil {
		return c, nil
	}
	text, err := h.r.ConfigText(ctx, hash)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, fmt.Errorf("the configuration %s is not in the history", hash)
	}
	// Redacted is how it is stored now; older rows have it all, and all must compare.
	c, report := config.Parse("the configuration of then", []byte(config.Redacted(text)))
	if c == nil {
		return nil, fmt.Errorf("the configuration %s of then is not valid any more: %w", hash, report.Err())
	}
	c.Text = ""
	h.configs[hash] = c
	return c, nil
}

// segment is a span that can be rebuilt without a break.
type segment struct {
	from  *engine.Checkpoint
	until time.Time
	crash bool // nothing says when the daemon ended: with the last row
	why   string
	next  time.Time // where what can't be rebuilt ends
}

// slack is how much before the last commit may still wait in the queue.
const slack = 50 * time.Millisecond

// segment finds out how far the past can be rebuilt from a checkpoint.
func (h *History) segment(i int) segment {
	s := segment{from: h.points[i], until: h.extent.Written.Add(-slack), why: "nothing later is written"}
	for _, p := range h.points[i+1:] {
		if p.Why == "start" || p.Why == "clock" {
			s.until, s.next, s.crash, s.why = p.At, p.At, true, "the daemon ended without a word, what it wrote last is lost"
			if p.Why == "clock" {
				s.why = "the clock was set"
			}
			break
		}
	}
	for _, in := range h.inputs {
		if in.Kind == engine.InputStop && in.At.After(s.from.At) && (s.next.IsZero() || in.At.Before(s.next)) {
			s.until, s.crash, s.why = in.At, false, "the daemon was not running"
			break
		}
	}
	for _, g := range h.lost {
		if g.To.After(s.from.At) && g.From.Before(s.until) {
			s.until, s.crash, s.why = later(g.From, s.from.At), false, g.Why
			s.next = g.To
			if k := h.pointAfter(g.To); k < len(h.points) {
				s.next = h.points[k].At
			}
			break
		}
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pointAfter is the index of the first checkpoint at or after t.
func (h *History) pointAfter(t time.Time) int {
	i, _ := slices.BinarySearchFunc(h.points, t, func(p *engine.Checkpoint, t time.Time) int { return p.At.Compare(t) })
	return i
}

// pointBefore is the index of the last checkpoint at or before t, -1 where there is none.
func (h *History) pointBefore(t time.Time) int {
	i := h.pointAfter(t)
	if i < len(h.points) && h.points[i].At.Equal(t) {
		return i
	}
	return i - 1
}

// load reads the names of a checkpoint.
func (h *History) load(ctx context.Context, c *engine.Checkpoint) (*engine.Checkpoint, error) {
	from := c.At.Truncate(time.Millisecond)
	rows, err := h.r.Checkpoints(ctx, store.Filter{Since: from, Until: from.Add(time.Millisecond)})
	if err != nil {
		return nil, err
	}
	full := *c
	full.Names = make([]engine.NameCheckpoint, len(rows))
	for i := range rows {
		if err := json.Unmarshal(rows[i].Memory, &full.Names[i]); err != nil {
			return nil, fmt.Errorf("checkpoint of %s: %w", rows[i].Name, err)
		}
	}
	return &full, nil
}
