package rank

import "time"

// When the wall clock is set, the remembered times must move along.

func shift(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}

// Shift moves all times of the health by d.
func (h *Health) Shift(d time.Duration) {
	h.Since, h.Checked, h.FirstMiss = shift(h.Since, d), shift(h.Checked, d), shift(h.FirstMiss, d)
	h.Latencies.At = shift(h.Latencies.At, d)
}

// Shifted is the memory with all its times moved by d.
func (m *Memory) Shifted(d time.Duration) Memory {
	out := *m
	out.Settles = shift(m.Settles, d)
	for i := range out.Families {
		f := &out.Families[i]
		f.Faster, f.Nearer = shiftChallengers(f.Faster, d), shiftChallengers(f.Nearer, d)
		tiers := f.Tiers
		f.Tiers = nil
		for _, t := range tiers {
			f.Tiers = append(f.Tiers, TierWait{t.Tier, shift(t.Since, d)})
		}
	}
	return out
}

func shiftChallengers(list []Challenger, d time.Duration) (out []Challenger) {
	for _, c := range list {
		out = append(out, Challenger{c.Addr, shift(c.Since, d)})
	}
	return out
}

// Shift moves all times of the guard by d.
func (g *Guard) Shift(d time.Duration) {
	for _, t := range []*time.Time{&g.since, &g.proof, &g.heard, &g.cleared, &g.seek, &g.sought, &g.polled} {
		*t = shift(*t, d)
	}
	for _, m := range g.missing {
		m.firstMiss, m.proof = shift(m.firstMiss, d), shift(m.proof, d)
	}
}
