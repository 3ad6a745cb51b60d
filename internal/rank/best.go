package rank

import (
	"net/netip"
	"slices"
	"time"
)

// best selects the incumbent, or who beat it for hold, and up to max_answers - 1 others.
// in are the eligible endpoints of the family in its tier, at least one.
func (d *decider) best(f Family, in []int) {
	old, m, a := &d.prev.Families[f], &d.out.Memory.Families[f], &d.out.Answers[f]
	first, why := d.first(old, m, in)
	why.tier, why.lat = int32(a.Tier), d.views[first].latency
	a.Kind, a.Reason = Normal, why
	a.Selected = append(a.Selected, first)
	if d.p.MaxAnswers > 1 && len(in) > 1 {
		a.Selected = d.further(old, m, in, a.Selected)
	}
}

// first is the endpoint that is answered first, and why it is that one.
func (d *decider) first(old, m *FamilyMemory, in []int) (int, Reason) {
	if !old.Placed || len(old.Selected) == 0 {
		return d.fastest(in), Reason{code: reasonFirst}
	}
	incumbent := d.index(in, old.Selected[0])
	if incumbent < 0 {
		return d.fastest(in), Reason{code: reasonIneligible, addr: old.Selected[0]}
	}
	var ripe int
	m.Faster, ripe = d.challenge(in, incumbent, old.Faster, nil)
	if ripe < 0 {
		d.hold(m.Faster)
		return incumbent, Reason{code: reasonKept}
	}
	why := Reason{
		code: reasonTookOver, than: d.views[incumbent].latency, addr: old.Selected[0],
		since: d.since(d.eps[ripe].Key.Addr, m.Faster), limit: d.p.Hold,
	}
	if d.unsettled() {
		why.code = reasonEarly
	}
	// Whoever is faster than the new incumbent, too, has been so only from now on.
	m.Faster, _ = d.challenge(in, ripe, nil, nil)
	d.hold(m.Faster)
	return ripe, why
}

// further fills selected, which has its first, up to max_answers. It is as sticky as the first:
// members stay in their order while they are eligible, and the slowest one leaves only for
// somebody who has been faster by both margins for hold.
func (d *decider) further(old, m *FamilyMemory, in, selected []int) []int {
	room := min(d.p.MaxAnswers, len(in))
	for _, a := range old.Selected {
		if i := d.index(in, a); old.Placed && i >= 0 && !slices.Contains(selected, i) && len(selected) < room {
			selected = append(selected, i)
		}
	}
	for len(selected) < room {
		selected = append(selected, d.fastest(without(in, selected)))
	}
	for {
		slowest := slices.MaxFunc(selected[1:], d.faster)
		var ripe int
		m.Nearer, ripe = d.challenge(in, slowest, old.Nearer, selected)
		if ripe < 0 {
			d.hold(m.Nearer)
			return selected
		}
		selected[slices.Index(selected, slowest)] = ripe
	}
}

// challenge lists who of in is faster than the incumbent by both margins, each with the time
// since when, as far as before tells; and the fastest of those who have been so for hold, or -1.
func (d *decider) challenge(in []int, incumbent int, before []Challenger, except []int) (list []Challenger, ripe int) {
	ripe = -1
	for _, i := range in {
		if i == incumbent || slices.Contains(except, i) || !d.beats(i, incumbent) || d.missing(i) {
			continue
		}
		c := Challenger{d.eps[i].Key.Addr, d.since(d.eps[i].Key.Addr, before)}
		list = append(list, c)
		due := d.unsettled() || (d.now.Sub(c.Since) >= d.p.Hold && d.stillSlow(incumbent, i))
		if due && (ripe < 0 || d.faster(i, ripe) < 0) {
			ripe = i
		}
	}
	return list, ripe
}

// missing tells whether an endpoint's last probe failed, short of a verdict. Such a one has not been
// faster just now, whatever its successes say: its hold begins anew. Under 10 to 30 % of loss that
// saves a quarter of the switches, back to where packets are still being lost.
func (d *decider) missing(i int) bool {
	e := &d.eps[i]
	return e.Override != Up && e.Health != nil && e.Health.Misses > 0
}

// beats tells whether endpoint i is faster than the incumbent by switch_ratio and switch_min.
// Any latency beats none.
func (d *decider) beats(i, incumbent int) bool {
	return d.lower(d.views[i].latency, d.views[incumbent].latency)
}

// stillSlow tells whether the incumbent's last probes, too, were slower than the challenger's
// estimate by both margins. Two spikes among three probes can lift the estimate so far that it
// stays above for hold, long after the incumbent is as fast as ever.
func (d *decider) stillSlow(incumbent, challenger int) bool {
	return d.lower(d.views[challenger].latency, d.eps[incumbent].Health.recent(d.p.Latency))
}

// lower tells whether latency a is below b by switch_ratio and switch_min.
func (d *decider) lower(a, b time.Duration) bool {
	switch {
	case a == 0 || a == b:
		return false
	case b == 0:
		return true
	}
	return b-a >= d.p.SwitchMin && float64(a) <= float64(b)*(1-d.p.SwitchRatio)
}

// since is since when an address has been a challenger: from now on if it wasn't one before.
func (d *decider) since(a netip.Addr, before []Challenger) time.Time {
	for i := range before {
		if before[i].Addr == a {
			return d.at(before[i].Since)
		}
	}
	return d.now
}

// hold notes when the first of the challengers may take over. One whose hold is over waits for
// the incumbent's next probe.
func (d *decider) hold(list []Challenger) {
	for i := range list {
		if at := list[i].Since.Add(d.p.Hold); at.After(d.now) {
			d.next(at)
		}
	}
}

// index finds the endpoint of an address in a list; -1 when it isn't there.
func (d *decider) index(list []int, a netip.Addr) int {
	for _, i := range list {
		if d.eps[i].Key.Addr == a {
			return i
		}
	}
	return -1
}

// without is list less some of its members.
func without(list, some []int) []int {
	out := make([]int, 0, len(list))
	for _, i := range list {
		if !slices.Contains(some, i) {
			out = append(out, i)
		}
	}
	return out
}
