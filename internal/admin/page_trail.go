package admin

import (
	"sync"
	"time"

	"hard/internal/engine"
	"hard/internal/rank"
)

// trailLen is how many probes of an endpoint are remembered: four minutes at the default
// interval, 2 KiB. What is older is read from the history.
const trailLen = 120

// tick is one counted probe.
type tick struct {
	at      int64 // Unix milliseconds
	us      int32 // total latency in microseconds, at most half an hour
	outcome rank.Outcome
}

// ok tells whether the probe was good; only then is its latency one.
func (t tick) ok() bool { return t.outcome == rank.OK }

// ring are the latest probes of one endpoint.
type ring struct {
	ticks []tick // grows up to trailLen
	next  int    // where the next one goes, once full
}

func (r *ring) add(t tick) {
	if len(r.ticks) < trailLen {
		r.ticks = append(r.ticks, t)
		return
	}
	r.ticks[r.next] = t
	r.next = (r.next + 1) % trailLen
}

// appendLast appends the n latest, oldest first.
func (r *ring) appendLast(to []tick, n int) []tick {
	have := len(r.ticks)
	for i := max(0, have-n); i < have; i++ {
		to = append(to, r.ticks[(r.next+i)%have])
	}
	return to
}

// change is the latest change of one name's answer.
type change struct {
	at  time.Time
	typ string // A or AAAA
	why string
	any bool // the answer has an address
}

// trail is the recent past in memory, for the status page: it must show a failover at once, and
// also where there is no history. It is fed by the engine and read by page requests.
type trail struct {
	mu      sync.Mutex // guards all
	rings   map[rank.Key]*ring
	changes map[string]change // by name
}

func (t *trail) sample(s *rank.Sample) {
	if !s.Counted() {
		return
	}
	k := tick{at: s.At.UnixMilli(), us: int32(min(s.Phases.Total, 30*time.Minute) / time.Microsecond), outcome: s.Outcome}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rings[s.Key]
	if r == nil {
		if t.rings == nil {
			t.rings = make(map[rank.Key]*ring)
		}
		r = new(ring)
		t.rings[s.Key] = r
	}
	r.add(k)
}

// answered notes a change; an older one than what is known changes nothing, and of two families at one
// instant the one that has something to answer is told.
func (t *trail) answered(name string, c change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.changes[name]; ok && (c.at.Before(known.at) || c.at.Equal(known.at) && known.any && !c.any) {
		return
	}
	if t.changes == nil {
		t.changes = make(map[string]change)
	}
	t.changes[name] = c
}

func (t *trail) last(name string) (change, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.changes[name]
	return c, ok
}

// ticks appends the n latest probes of an endpoint to a buffer, oldest first.
func (t *trail) ticks(buf []tick, k rank.Key, n int) []tick {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rings[k]; r != nil {
		return r.appendLast(buf, n)
	}
	return buf
}

func (t *trail) forget(keys []rank.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		delete(t.rings, k)
	}
}

// keep drops the names that the configuration no longer has.
func (t *trail) keep(candidates map[engine.HostKey]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.changes {
		if !candidates[engine.HostKey{Name: name}] {
			delete(t.changes, name)
		}
	}
	for k := range t.rings {
		if !candidates[engine.HostKey{Name: k.Name, Candidate: k.Candidate}] {
			delete(t.rings, k)
		}
	}
}
