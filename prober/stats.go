package prober

import (
	"sync/atomic"
	"time"

	"hard/internal/rank"
)

// lagBounds are the upper bounds of the lag histogram's buckets; the last bucket has none.
var lagBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second,
}

// Stats are the prober's figures since its start.
type Stats struct {
	Scheduled int // probes on the schedule; endpoints with identical checks of one address share one
	Running   int // probes in flight
	Waiting   int // due, but held back by the limit of probes in flight
	Watching  int // idle connections held
	Lag       Lag
	Delayed   uint64                   // samples that our own process delayed
	Outcomes  [rank.Aborted + 1]uint64 // samples by outcome, extra tries included
}

// ByOutcome are the outcomes that there were so far, by the word for each; the caller's.
func (s *Stats) ByOutcome() map[string]uint64 {
	words := make(map[string]uint64)
	for i, n := range s.Outcomes {
		if n > 0 {
			words[rank.Outcome(i).String()] = n
		}
	}
	return words
}

// Lag is the histogram of how late probes started.
type Lag struct {
	Bounds []time.Duration // upper bounds, ascending; read only
	Counts []uint64        // one more than Bounds: the last are those above all
	Sum    time.Duration
	Max    time.Duration
}

// Stats returns the present figures. Safe from any goroutine.
func (p *Prober) Stats() Stats {
	p.mu.Lock()
	s := Stats{Scheduled: len(p.jobs), Running: p.running, Waiting: p.ready.len()}
	for _, j := range p.jobs {
		if j.watch != nil && j.watch.up {
			s.Watching++
		}
	}
	p.mu.Unlock()
	c := &p.counters
	s.Lag = c.lag.read()
	s.Delayed = c.delayed.Load()
	for i := range s.Outcomes {
		s.Outcomes[i] = c.outcomes[i].Load()
	}
	return s
}

// counters are written by the running probes and summed by nobody: one word each.
type counters struct {
	lag      lagMeter
	delayed  atomic.Uint64
	outcomes [rank.Aborted + 1]atomic.Uint64
}

func (c *counters) count(s *rank.Sample) {
	c.outcomes[s.Outcome].Add(1)
	if s.Delayed {
		c.delayed.Add(1)
	}
}

// lagMeter is a histogram. Its one writer at a time holds Prober.mu.
type lagMeter struct {
	counts   [len(lagBounds) + 1]atomic.Uint64
	sum, max atomic.Int64
}

func (l *lagMeter) observe(d time.Duration) {
	i := 0
	for i < len(lagBounds) && d > lagBounds[i] {
		i++
	}
	l.counts[i].Add(1)
	l.sum.Add(int64(d))
	if int64(d) > l.max.Load() {
		l.max.Store(int64(d))
	}
}

func (l *lagMeter) read() Lag {
	r := Lag{Bounds: lagBounds[:], Counts: make([]uint64, len(l.counts)), Sum: time.Duration(l.sum.Load()), Max: time.Duration(l.max.Load())}
	for i := range l.counts {
		r.Counts[i] = l.counts[i].Load()
	}
	return r
}
