package admin

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hard/internal/rank"
	"hard/store"
)

const (
	pastTime  = 2 * time.Second // for one look into the history
	pastFresh = 5 * time.Second // a look may be shown again within this time
)

// past reads the history for the pages, one request at a time, so that readers of a page are
// never a load on the disk that anybody feels.
type past struct {
	mu     sync.Mutex // held while reading; guards the rest
	seeded bool
	shown  view
}

// view is what the history has of one name.
type view struct {
	name    string
	hours   int
	read    time.Time
	rollups []store.Rollup
	answers []store.AnswerChange
	events  []store.Event
	err     error
}

// seed tells the trail the last changes from before the start, once.
func (p *past) seed(ctx context.Context, s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seeded {
		return
	}
	p.seeded = true // whatever comes of it: an overview does not wait twice
	r, err := openPast(s)
	if err != nil {
		return
	}
	defer r.Close()
	ctx, cancel := bound(ctx)
	defer cancel()
	list, err := r.Answers(ctx, store.Filter{Since: time.Now()}) // the last ones before now
	if err != nil {
		s.log.Debug("status page: the last changes", "error", err)
	}
	for _, a := range list {
		s.o.Meter.trail.answered(a.Name, change{a.At, a.Type, a.Reason, len(a.Addresses) > 0})
	}
}

func openPast(s *Server) (*store.Reader, error) {
	path := s.o.Backend.Config().Store.Path
	if path == "" {
		return nil, errors.New("[store].path is empty")
	}
	return store.OpenReader(path)
}

// bound limits one look. It outlives a reader who has gone: the next one gets what it found.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), pastTime)
}

// read gives the history of a name over the last hours.
func (p *past) read(ctx context.Context, s *Server, name string, hours int) view {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if v := &p.shown; v.name == name && v.hours == hours && now.Sub(v.read) < pastFresh {
		return *v
	}
	v := view{name: name, hours: hours, read: now}
	v.load(ctx, s, store.Filter{Name: name, Since: now.Add(-time.Duration(hours) * time.Hour)})
	p.shown = v
	return v
}

func (v *view) load(ctx context.Context, s *Server, f store.Filter) {
	r, err := openPast(s)
	if err != nil {
		v.err = err
		return
	}
	defer r.Close()
	ctx, cancel := bound(ctx)
	defer cancel()
	if v.answers, v.err = r.Answers(ctx, f); v.err != nil {
		return
	}
	v.answers = slices.DeleteFunc(v.answers, func(a store.AnswerChange) bool { return a.At.Before(f.Since) })
	if v.events, v.err = r.Events(ctx, f); v.err != nil {
		return
	}
	v.rollups, v.err = r.Rollups(ctx, f)
}

// span is what is known of an endpoint in a part of the time: one probe, or a minute of them.
type span struct {
	from, to int64 // Unix milliseconds
	n, ok    int
	p50, p95 float64 // milliseconds; 0 = none was ok
}

// spansOf puts the minutes of the history before the probes in memory.
func (v *view) spansOf(k rank.Key, ticks []tick) []span {
	var list []span
	first := int64(1 << 62)
	if len(ticks) > 0 {
		first = ticks[0].at
	}
	for i := range v.rollups {
		u := &v.rollups[i]
		from := u.At.UnixMilli()
		if u.Key == k && from < first {
			list = append(list, span{from, min(from+u.Width.Milliseconds(), first), u.N, u.OK, millis(u.P50), millis(u.P95)})
		}
	}
	for i, t := range ticks {
		s := span{from: t.at, to: t.at + 1, n: 1}
		if i+1 < len(ticks) {
			s.to = min(ticks[i+1].at, t.at+maxGap)
		}
		if t.ok() {
			s.ok, s.p50 = 1, float64(t.us)/1e3
			s.p95 = s.p50
		}
		list = append(list, s)
	}
	return list
}

// maxGap is how long a single probe is taken to speak for, in milliseconds.
const maxGap = 60_000
