package past

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

// Side is how a name did in a replay: as it was answered then, or as it would have been.
type Side struct {
	Switches int           // changes of an answer
	Answered time.Duration // time with an address in the answer, A and AAAA each counted
	Dead     time.Duration // of that on addresses whose last probe failed; a group counts by its share
	Latency  time.Duration // mean over that time of the last good probe of the addresses answered

	known  time.Duration // time for which a latency was known
	weight float64       // of latencies, in s^2
}

// NameReport is one name's replay.
type NameReport struct {
	Name      string
	Then, Now Side
	Differs   time.Duration // how long the answers were others
	Notes     []string      // what the stored probes can't tell
}

// Won is by how much the mean latency of the answers is less now than it was then; 0 where one of
// them is not known.
func (n *NameReport) Won() time.Duration {
	if n.Then.Latency == 0 || n.Now.Latency == 0 {
		return 0
	}
	return n.Then.Latency - n.Now.Latency
}

// Difference is a span in which the answers were not the same.
type Difference struct {
	From, To  time.Time
	Name      string
	Family    rank.Family
	Then, Now []netip.Addr
}

// Report is a replay.
type Report struct {
	From, To    time.Time
	Covered     time.Duration
	Samples     int
	Unchanged   bool // the configuration was the same all the time
	Gaps        []Gap
	Names       []NameReport
	Differences []Difference // in order of their end
}

// Options of a replay.
type Options struct {
	Since, Until time.Time
	With         *config.Config
	Name         string // "" = all
}

// Replay runs the stored probes, addresses and overrides through another configuration and
// compares its answers with those recorded. Each run of the daemon, and whatever follows a gap,
// starts from what was decided then. Names and endpoints that were not probed then stay unknown.
func (h *History) Replay(ctx context.Context, o Options) (*Report, error) {
	r := &replay{h: h, o: o, report: &Report{From: o.Since, To: o.Until, Unchanged: true}, names: make(map[string]*track)}
	i := h.pointBefore(o.Since)
	if i < 0 {
		i = 0
	}
	reached := o.Since
	for ; i < len(h.points) && h.points[i].At.Before(o.Until); i++ {
		seg := h.segment(i)
		if seg.from.At.After(reached) {
			why := r.why
			if why == "" {
				why = "the history does not reach that far back"
			}
			r.gap(reached, seg.from.At, why)
		}
		end, err := r.segment(ctx, &seg)
		if err != nil {
			return nil, err
		}
		reached, r.why = later(reached, end), seg.why
		next := h.pointAfter(later(seg.until, seg.next))
		if end.Equal(o.Until) {
			break
		}
		i = max(next, i+1) - 1
	}
	if reached.Before(o.Until) {
		if r.why == "" {
			r.why = "nothing is stored that it could be rebuilt from"
		}
		r.gap(reached, o.Until, r.why)
	}
	r.finish()
	return r.report, nil
}

// replay is the state of a Replay.
type replay struct {
	h      *History
	o      Options
	report *Report
	names  map[string]*track
	order  []*track
	why    string // the last segment ended
	player *engine.Player
	then   []store.AnswerChange
}

func (r *replay) gap(from, to time.Time, why string) {
	r.report.Gaps = append(r.report.Gaps, Gap{from, to, why})
}

func (r *replay) wanted(name string) bool { return r.o.Name == "" || r.o.Name == name }

func (r *replay) track(name string) *track {
	t := r.names[name]
	if t == nil && r.wanted(name) {
		t = &track{report: NameReport{Name: name}, ends: make(map[netip.Addr]*end)}
		r.names[name] = t
		r.order = append(r.order, t)
	}
	return t
}

// segment replays one segment, and returns how far it reaches.
func (r *replay) segment(ctx context.Context, seg *segment) (time.Time, error) {
	until := seg.until
	if until.After(r.o.Until) {
		until = r.o.Until
	}
	if err := r.begin(ctx, seg); err != nil {
		return until, err
	}
	last := seg.from.At
	err := r.h.stream(ctx, seg.from.At, until, visitor{
		sample: func(s *rank.Sample) error {
			last = s.Taken
			r.player.Sample(s)
			r.answersUntil(s.Taken) // those before a change of the player's own were taken by it
			r.sample(s)
			return nil
		},
		input: func(in *engine.Input) error {
			last = in.At
			if in.Kind == engine.InputConfig {
				r.report.Unchanged = r.report.Unchanged && in.Config == r.o.With.Hash
				return r.player.Apply(r.o.With, in.At)
			}
			r.player.Input(*in)
			return nil
		},
	})
	if seg.crash && until.Equal(seg.until) {
		until = last
	}
	r.player.Advance(until)
	r.answersUntil(until)
	for _, t := range r.order {
		t.until(until.Truncate(time.Millisecond), r)
		for f := range t.families {
			t.change(rank.Family(f), until.Truncate(time.Millisecond), r)
		}
	}
	if from := later(seg.from.At, r.o.Since); until.After(from) {
		r.report.Covered += until.Sub(from)
	}
	return until, err
}

// begin makes the player of a segment: from what was decided then, as if the new configuration
// were reloaded at that instant.
func (r *replay) begin(ctx context.Context, seg *segment) error {
	c, err := r.h.Config(ctx, seg.from.Config)
	if err != nil {
		return err
	}
	from, err := r.h.load(ctx, seg.from)
	if err != nil {
		return err
	}
	if r.player, err = engine.NewPlayer(c, from, r.changed); err != nil {
		return err
	}
	at := from.At.Truncate(time.Millisecond)
	for i := range r.o.With.Names {
		r.track(r.o.With.Names[i].Name)
	}
	for _, t := range r.order {
		t.at = at
		for f := range t.families {
			t.families[f].since, t.families[f].at = at, at
			t.set(&t.families[f].now, r.player.Answers(t.report.Name)[f])
		}
	}
	if c.Hash != r.o.With.Hash {
		r.report.Unchanged = false
		r.note(c)
		if err := r.player.Apply(r.o.With, from.At.Add(time.Microsecond)); err != nil {
			return err
		}
	}
	r.then, err = r.h.r.Answers(ctx, store.Filter{Name: r.o.Name, Since: at.Add(time.Millisecond), Until: seg.until.Add(time.Millisecond)})
	r.answersUntil(from.At)
	return err
}

// note tells what stored probes can't know about another configuration.
func (r *replay) note(was *config.Config) {
	old := make(map[string]*config.Name, len(was.Names))
	for i := range was.Names {
		old[was.Names[i].Name] = &was.Names[i]
	}
	for i := range r.o.With.Names {
		n := &r.o.With.Names[i]
		t := r.track(n.Name)
		if t == nil {
			continue
		}
		b := old[n.Name]
		if b == nil {
			t.note("was not configured then: there are no probes of it")
			continue
		}
		for j := range n.Candidates {
			c := &n.Candidates[j]
			k := slices.IndexFunc(b.Candidates, func(o config.Candidate) bool { return o.Label == c.Label })
			switch {
			case k < 0:
				t.note(c.Label + " was no candidate then: there are no probes of it")
			case b.Candidates[k].Check.Fingerprint != c.Check.Fingerprint:
				t.note(c.Label + " was probed by another check then")
			}
		}
	}
}

// answersUntil takes the recorded answers up to an instant.
func (r *replay) answersUntil(at time.Time) {
	for len(r.then) > 0 && !r.then[0].At.After(at) {
		a := &r.then[0]
		r.then = r.then[1:]
		f, err := rank.ParseFamily(a.Type)
		if t := r.track(a.Name); err == nil && t != nil {
			t.until(a.At, r)
			t.change(f, a.At, r)
			t.set(&t.families[f].then, a.Addresses)
		}
	}
}

// changed takes an answer of the new configuration.
func (r *replay) changed(a engine.AnswerChange) {
	at := a.At.Truncate(time.Millisecond) // the precision of what is recorded
	r.answersUntil(at.Add(-time.Millisecond))
	if t := r.track(a.Name); t != nil {
		t.until(at, r)
		t.change(a.Family, at, r)
		t.set(&t.families[a.Family].now, a.Addresses)
	}
}

// sample notes what a probe saw.
func (r *replay) sample(s *rank.Sample) {
	if !s.Counted() {
		return
	}
	t := r.track(s.Key.Name)
	if t == nil {
		return
	}
	t.until(s.Taken.Truncate(time.Millisecond), r)
	e := t.end(s.Key.Addr)
	if e.dead = s.Outcome != rank.OK; !e.dead {
		e.latency = s.Phases.Total
	}
}

// finish makes the report of what was gathered.
func (r *replay) finish() {
	for _, t := range r.order {
		for _, s := range []*Side{&t.report.Then, &t.report.Now} {
			if s.known > 0 {
				s.Latency = time.Duration(s.weight / s.known.Seconds() * 1e9)
			}
		}
		r.report.Names = append(r.report.Names, t.report)
	}
	r.report.Names = slices.Clip(r.report.Names)
	if r.o.Name != "" && len(r.order) == 0 {
		r.report.Names = nil
	}
}
