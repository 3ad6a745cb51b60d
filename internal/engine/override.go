package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// What of a candidate an override forces.
type What uint8

// The things that can be forced.
const (
	ForceState What = iota
	ForceWeight
)

// Override is what an operator forced on one candidate. It outlives restarts and reloads, and
// ends by itself at Until.
type Override struct {
	Host    HostKey
	What    What
	State   rank.Override // of ForceState; Auto: the file's state holds
	Weight  int           // of ForceWeight; -1: the file's weight holds
	Percent bool          // Weight is in percent of the file's
	Until   time.Time     // zero: until taken back
	Since   time.Time
	Who     string // who asked for it, such as "uid 0"
	Why     string
}

// overrideKey tells overrides apart: a candidate has at most one of each kind.
type overrideKey struct {
	host HostKey
	what What
}

func (o *Override) key() overrideKey { return overrideKey{o.Host, o.What} }

// Empty tells whether the override gives back what the file says.
func (o *Override) Empty() bool {
	return (o.What == ForceState && o.State == rank.Auto) || (o.What == ForceWeight && o.Weight < 0)
}

// Value is what is forced, as an operator writes it; "auto" for an empty one.
func (o *Override) Value() string {
	switch {
	case o.Empty():
		return rank.Auto.String()
	case o.What == ForceState:
		return o.State.String()
	case o.Percent:
		return strconv.Itoa(o.Weight) + "%"
	}
	return strconv.Itoa(o.Weight)
}

// String is the word for it in events.
func (w What) String() string {
	if w == ForceWeight {
		return "weight"
	}
	return "override"
}

// ErrNotFound is returned for a name or candidate that is not configured.
var ErrNotFound = errors.New("not configured")

// ErrLastHealthy is returned when a change would take the last healthy endpoint of a name away
// and was not forced.
var ErrLastHealthy = errors.New("no healthy endpoint would be left")

// Force puts o in force on its candidate, or on all candidates of its name where the label is
// empty; an empty override gives back what the file says. It returns the overrides by candidate,
// which the caller must store: Saved.Overrides brings them back after a restart. Without force it
// refuses to take the last healthy endpoint of a name away.
func (e *Engine) Force(ctx context.Context, o Override, force bool) (out []Override, err error) {
	cerr := e.call(ctx, func() { out, err = e.force(o, force, e.begin()) })
	if cerr != nil {
		return nil, cerr
	}
	return out, err
}

func (e *Engine) force(o Override, force bool, now time.Time) ([]Override, error) {
	labels, err := e.labels(o.Host)
	if err != nil {
		return nil, err
	}
	o.Since = now
	out := make([]Override, len(labels))
	for i, label := range labels {
		out[i] = o
		out[i].Host.Candidate = label
	}
	n := e.named(o.Host.Name)
	e.settleFirst(n)
	if !force && e.healthyLeft(n, nil) > 0 && e.healthyLeft(n, out) == 0 {
		return nil, fmt.Errorf("%s: %w", o.Host.Name, ErrLastHealthy)
	}
	e.o.Recorder.Input(Input{At: now, Kind: InputOverride, Overrides: slices.Clone(out)})
	e.putOverrides(out, now)
	return out, nil
}

// putOverrides puts overrides of one name in force.
func (e *Engine) putOverrides(list []Override, now time.Time) {
	for i := range list {
		was := e.overrideOf(list[i].key())
		if was.Empty() && list[i].Empty() {
			continue // given back, but nobody had forced it
		}
		e.keepOverride(list[i])
		e.noteOverride(&was, &list[i], reasonOf(&list[i]), now)
	}
	if len(list) > 0 {
		if n := e.named(list[0].Host.Name); n != nil {
			e.reforce(n, now)
		}
	}
}

// noteOverride records and logs a change of what is forced.
func (e *Engine) noteOverride(was, is *Override, reason string, now time.Time) {
	e.o.Recorder.Event(Event{
		At: now, Key: rank.Key{Name: is.Host.Name, Candidate: is.Host.Candidate},
		Kind: is.What.String(), Old: was.Value(), New: is.Value(), Reason: reason, Who: is.Who,
	})
	e.log.Info(is.What.String(), "name", is.Host.Name, "candidate", is.Host.Candidate,
		"from", was.Value(), "to", is.Value(), "who", cmp.Or(is.Who, "hard"), "why", reason)
}

// reforce decides a name again under the overrides in force.
func (e *Engine) reforce(n *name, now time.Time) {
	e.expand(n, now)
	e.current.add(n)
	e.decide(n, now, true)
}

// reasonOf is the text of an override in events: why, until when.
func reasonOf(o *Override) string {
	text := o.Why
	if !o.Until.IsZero() {
		text = strings.TrimSpace(text + " (until " + o.Until.UTC().Format(time.RFC3339) + ")")
	}
	return text
}

// labels are the candidates that a host key means.
func (e *Engine) labels(host HostKey) ([]string, error) {
	n := e.named(host.Name)
	if n == nil {
		return nil, fmt.Errorf("%s: %w", host.Name, ErrNotFound)
	}
	var labels []string
	for i := range n.cfg.Candidates {
		if l := n.cfg.Candidates[i].Label; host.Candidate == "" || l == host.Candidate {
			labels = append(labels, l)
		}
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("%s/%s: %w", host.Name, host.Candidate, ErrNotFound)
	}
	return labels, nil
}

// overrideOf is the override in force, an empty one where there is none.
func (e *Engine) overrideOf(k overrideKey) Override {
	if o, ok := e.overrides[k]; ok {
		return o
	}
	return Override{Host: k.host, What: k.what, State: rank.Auto, Weight: -1}
}

// keepOverride puts an override in force, or ends it when it is empty.
func (e *Engine) keepOverride(o Override) {
	if o.Empty() {
		delete(e.overrides, o.key())
	} else {
		e.overrides[o.key()] = o
	}
	e.expires = e.nextExpiry()
}

// healthyLeft counts the endpoints of a name that are healthy and could be selected, were these
// overrides in force, too.
func (e *Engine) healthyLeft(n *name, with []Override) int {
	count := 0
	for i := range n.eps {
		ep := &n.eps[i]
		state, weight := e.forced(n, ep)
		for j := range with {
			if with[j].Host.Candidate == ep.cand.Label {
				with[j].apply(ep.cand, &state, &weight)
			}
		}
		up := state == rank.Up || (state == rank.Auto && ep.health.State == rank.Healthy)
		if up && weight > 0 {
			count++
		}
	}
	return count
}

// forced is the state and weight of an endpoint: the operator's, else the file's.
func (e *Engine) forced(n *name, ep *endpoint) (rank.Override, int) {
	state, weight := ep.cand.State, ep.cand.Weight
	if len(e.overrides) > 0 {
		host := HostKey{n.cfg.Name, ep.cand.Label}
		for _, what := range []What{ForceState, ForceWeight} {
			if o, ok := e.overrides[overrideKey{host, what}]; ok {
				o.apply(ep.cand, &state, &weight)
			}
		}
	}
	return state, weight
}

// apply changes the state or the weight of a candidate to what the override says.
func (o *Override) apply(c *config.Candidate, state *rank.Override, weight *int) {
	switch {
	case o.What == ForceState && o.Empty():
		*state = c.State
	case o.What == ForceState:
		*state = o.State
	case o.Empty():
		*weight = c.Weight
	case o.Percent:
		*weight = (c.Weight*o.Weight + 50) / 100
	default:
		*weight = o.Weight
	}
}

// restoreOverrides takes the stored overrides that have not expired.
func (e *Engine) restoreOverrides(now time.Time) {
	e.overrides = make(map[overrideKey]Override, len(e.o.Saved.Overrides))
	for _, o := range e.o.Saved.Overrides {
		if o.Until.IsZero() || now.Before(o.Until) {
			e.overrides[o.key()] = o
		}
	}
	e.expires = e.nextExpiry()
}

// nextExpiry is when the next override ends; zero when none does.
func (e *Engine) nextExpiry() time.Time {
	var next time.Time
	for _, o := range e.overrides {
		if !o.Until.IsZero() && (next.IsZero() || o.Until.Before(next)) {
			next = o.Until
		}
	}
	return next
}

// expire ends the overrides whose time has come.
func (e *Engine) expire(now time.Time) {
	var touched []*name
	for _, was := range e.overridesList() {
		if was.Until.IsZero() || now.Before(was.Until) {
			continue
		}
		delete(e.overrides, was.key())
		is := e.overrideOf(was.key())
		e.noteOverride(&was, &is, "expired", now)
		if n := e.named(was.Host.Name); n != nil && !slices.Contains(touched, n) {
			touched = append(touched, n)
		}
	}
	e.expires = e.nextExpiry()
	for _, n := range touched {
		e.reforce(n, now)
	}
}

// overridesList are those in force, ordered by name, candidate and kind.
func (e *Engine) overridesList() []Override {
	out := make([]Override, 0, len(e.overrides))
	for _, o := range e.overrides {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b Override) int {
		return cmp.Or(cmp.Compare(a.Host.Name, b.Host.Name), cmp.Compare(a.Host.Candidate, b.Host.Candidate), cmp.Compare(a.What, b.What))
	})
	return out
}
