package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"hard/internal/engine"
	"hard/internal/rank"
)

// Past is a name as it was decided at an instant, rebuilt from the history.
type Past struct {
	Snapshot engine.Snapshot
	Policy   *rank.Policy
}

// Incomplete is why an instant can't be explained: what was written down of then has a gap.
type Incomplete struct {
	From, To time.Time
	Text     string
}

// Error is the error interface's.
func (e *Incomplete) Error() string { return e.Text }

// rebuildTime is for reading the history; a long one takes longer than the present.
const rebuildTime = 20 * time.Second

// getPast is explain with a time. One is rebuilt at a time: it reads up to 10 minutes of probes, and
// whoever asks a lot is not to take the processor from the answers.
func (s *Server) getPast(r *http.Request, types []rank.Family) (any, error) {
	now := time.Now()
	at, err := ParseTime(r.URL.Query().Get("at"), now)
	switch {
	case err != nil:
		return nil, badRequest("at: %v; in a URL, + is %%2B and a blank is %%20", err)
	case at.After(now):
		return nil, badRequest("at: %s is yet to come", at.Format(time.RFC3339))
	}
	ctx, cancel := context.WithTimeout(r.Context(), rebuildTime)
	defer cancel()
	select {
	case s.pasts <- struct{}{}:
		defer func() { <-s.pasts }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	past, err := s.o.Backend.Past(ctx, Covering(r.PathValue("name")), at)
	if err != nil {
		return nil, pastError(err)
	}
	return ExplainView(&past.Snapshot, past.Policy, types...), nil
}

// pastError gives what went wrong its status.
func pastError(err error) error {
	var gap *Incomplete
	switch {
	case errors.As(err, &gap):
		return &statusError{http.StatusGone, Error{Message: err.Error(), From: gap.From, To: gap.To,
			Hint: "the history is written a second late at most, and kept for [store].raw_for; docs/replay.md says what else may be missing"}}
	case errors.Is(err, engine.ErrNotFound):
		return err
	}
	return &statusError{http.StatusServiceUnavailable, Error{Message: err.Error(), Hint: "hard status shows how the history does"}}
}

// ExplainView is an Explain made of a snapshot of one name, of the present or the past; types are
// those wanted, none means both.
func ExplainView(snap *engine.Snapshot, policy *rank.Policy, types ...rank.Family) Explain {
	v := nameView(&snap.Names[0])
	if len(types) == 1 {
		onlyType(&v, types[0].String())
	}
	return Explain{
		At: snap.At, LocalFault: snap.LocalFault, Policy: policyView(policy), Next: snap.Names[0].Decision.Next,
		Name: v, Overrides: overridesView(snap.Overrides),
	}
}

// Covering lists the names of the history that a name may stand for: itself, and the wildcards above it,
// the longest first.
func Covering(text string) []string {
	name := Canonical(text)
	list := []string{name}
	for _, parent, ok := strings.Cut(name, "."); ok && name[0] != '*'; _, parent, ok = strings.Cut(parent, ".") {
		list = append(list, "*."+parent)
	}
	return list
}

// ParseTime reads TIME: RFC 3339, local "YYYY-MM-DD HH:MM", with seconds too, or an age.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if d, err := ParseFor(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time: RFC 3339, YYYY-MM-DD HH:MM, or an age such as 15m", text)
}
