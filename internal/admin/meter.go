package admin

import (
	"sync"
	"time"

	"hard/internal/engine"
	"hard/internal/rank"
)

// Meter counts what passes by on its way to the history and is in nobody's state: probes by
// candidate, transitions by endpoint. It is fed from the engine's goroutine, so its lock is
// contended by nothing but a scrape.
type Meter struct {
	mu          sync.Mutex // guards all
	probes      map[engine.HostKey]*[rank.Aborted + 1]uint64
	transitions map[rank.Key]uint64
	allDown     map[allDownKey]uint64
	phases      [numPhases]phaseHistogram

	trail trail // has a lock of its own
}

type allDownKey struct{ name, policy string }

// NewMeter returns a Meter at zero.
func NewMeter() *Meter {
	return &Meter{
		probes:      make(map[engine.HostKey]*[rank.Aborted + 1]uint64),
		transitions: make(map[rank.Key]uint64),
		allDown:     make(map[allDownKey]uint64),
	}
}

// The phases of a probe, by index.
const (
	phaseConnect = iota
	phaseTLS
	phaseFirstByte
	phaseTotal
	numPhases
)

var phaseNames = [numPhases]string{"connect", "tls", "first_byte", "total"}

// phaseBounds are the upper bounds of the histograms' buckets.
var phaseBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

type phaseHistogram struct {
	counts [len(phaseBounds) + 1]uint64 // not cumulative
	sum    time.Duration
}

func (h *phaseHistogram) observe(d time.Duration) {
	i := 0
	for i < len(phaseBounds) && d > phaseBounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += d
}

// Sample counts one probe result.
func (m *Meter) Sample(s *rank.Sample) {
	m.trail.sample(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	k := engine.HostKey{Name: s.Key.Name, Candidate: s.Key.Candidate}
	n := m.probes[k]
	if n == nil {
		n = new([rank.Aborted + 1]uint64)
		m.probes[k] = n
	}
	n[min(s.Outcome, rank.Aborted)]++
	for i, d := range [numPhases]time.Duration{s.Phases.Connect, s.Phases.TLS, s.Phases.FirstByte, s.Phases.Total} {
		if d > 0 {
			m.phases[i].observe(d)
		}
	}
}

// Event counts a change of an endpoint's state, and a name that is all down from now on.
func (m *Meter) Event(e *engine.Event) {
	switch e.Kind {
	case "state":
		m.mu.Lock()
		m.transitions[e.Key]++
		m.mu.Unlock()
	case "all_down":
		if e.New != "" {
			m.mu.Lock()
			m.allDown[allDownKey{e.Key.Name, e.New}]++
			m.mu.Unlock()
		}
	}
}

// Answer notes a change of an answer, for the status page.
func (m *Meter) Answer(a *engine.AnswerChange) {
	m.trail.answered(a.Name, change{a.At, a.Family.String(), a.Reason, len(a.Addresses) > 0})
}

// Forget drops the counters of endpoints that no longer exist, so that a host whose candidates
// change their addresses every day does not grow series for ever.
func (m *Meter) Forget(keys []rank.Key) {
	m.trail.forget(keys)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.transitions, k)
	}
}

// keep drops the counters of names and candidates that the configuration no longer has.
func (m *Meter) keep(candidates map[engine.HostKey]bool) {
	m.trail.keep(candidates)
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.probes {
		if !candidates[k] {
			delete(m.probes, k)
		}
	}
	for k := range m.allDown {
		if !candidates[engine.HostKey{Name: k.name}] {
			delete(m.allDown, k)
		}
	}
}
