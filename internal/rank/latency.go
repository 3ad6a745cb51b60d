package rank

import (
	"math"
	"time"
)

// The latency estimate is an exponentially weighted moving average, by time, over the median of
// the last three successful probes.
//
//   - The median is what a single spike cannot pass: one slow probe among three changes nothing.
//   - The average has a half-life of 10 s, which is the default of hold: at an interval of 2 s a
//     real step is seen at the second probe and is followed by 70 % after two half-lives.
//   - One probe's weight is held between 0.05 and 0.3. So probes closer than 0.74 s shorten the
//     half-life (to 13.5 probes: fast probing is asked for by people who want fast answers), and
//     probes further apart than 5.1 s lengthen it (to 1.9 probes: no single probe rules).
//   - Until three probes are there, the smaller of two, or the only one, is the estimate itself.
//     Delay is one-sided, and a first connection pays for cold caches and ARP.
const (
	latencyHalfLife  = 10 * time.Second
	latencyMinWeight = 0.05
	latencyMaxWeight = 0.3
)

// Latencies are the smoothed estimates of one endpoint in all three modes, so that a reload that
// changes `latency` has a history to rank by. Plain data.
type Latencies struct {
	At     time.Time   // end of the last successful probe
	Probes uint8       // successful probes seen, 3 meaning three or more
	Modes  [3]Estimate // by LatencyMode
}

// Estimate is the smoothed latency of one mode.
type Estimate struct {
	Value  time.Duration    // 0 means there is none
	Recent [3]time.Duration // of the last three successful probes, newest first
}

// add takes one successful probe. A phase that the check does not have (first_byte of a bare TCP
// connect, connect of a program) is ranked by the total; one without any duration is not averaged.
func (l *Latencies) add(s *Sample) {
	if s.Phases.Total <= 0 {
		return
	}
	weight := latencyWeight(s.End().Sub(l.At))
	l.At = s.End()
	if l.Probes < 3 {
		l.Probes++
		weight = 1
	}
	phases := [3]time.Duration{
		LatencyTotal:     s.Phases.Total,
		LatencyConnect:   s.Phases.Connect,
		LatencyFirstByte: s.Phases.FirstByte,
	}
	for i := range l.Modes {
		x := phases[i]
		if x <= 0 {
			x = s.Phases.Total
		}
		l.Modes[i].add(x, l.Probes, weight)
	}
}

// add moves the estimate towards the median of the last three by weight.
func (e *Estimate) add(x time.Duration, probes uint8, weight float64) {
	e.Recent[2], e.Recent[1], e.Recent[0] = e.Recent[1], e.Recent[0], x
	switch probes {
	case 1:
	case 2:
		x = min(e.Recent[0], e.Recent[1])
	default:
		x = median(e.Recent[0], e.Recent[1], e.Recent[2])
	}
	e.Value += time.Duration(math.Round(float64(x-e.Value) * weight))
	e.Value = max(e.Value, 1)
}

// latencyWeight is the weight of a probe that ended so long after the one before it.
func latencyWeight(since time.Duration) float64 {
	w := 1 - math.Exp2(-float64(since)/float64(latencyHalfLife))
	return min(max(w, latencyMinWeight), latencyMaxWeight)
}

func median(a, b, c time.Duration) time.Duration {
	return max(min(a, b), min(max(a, b), c))
}
