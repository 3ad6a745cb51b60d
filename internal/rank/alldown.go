package rank

import (
	"math"
	"net/netip"
	"slices"
)

// tooFew tells whether on_all_down applies: nothing is eligible and nothing unknown, or fewer
// than min_healthy are healthy. Endpoints whose first verdict is still to come are not down yet:
// they count for min_healthy until they are, or every start would begin with on_all_down.
func (d *decider) tooFew() bool {
	if d.eligible == 0 && d.unknown == 0 {
		return true
	}
	return d.p.MinHealthy > 0 && d.healthy+d.unknown < d.p.MinHealthy
}

// allDown applies on_all_down to both families. It chooses only among endpoints that are not
// down or drain, have weight, and whose address is still in DNS.
func (d *decider) allDown() {
	d.out.AllDown = true
	why := Reason{code: reasonAllDown, policy: d.p.OnAllDown}
	if d.eligible > 0 || d.unknown > 0 {
		why.code, why.count, why.other = reasonMinHealthy, int32(d.healthy), int32(d.p.MinHealthy)
	}
	kind := Empty
	switch d.p.OnAllDown {
	case Forward:
		kind = Pass
	case ServFail:
		kind = Fail
	}
	d.everyFamily(Answer{Kind: kind, Reason: why})
	switch d.p.OnAllDown {
	case LastGood:
		d.lastGood()
	case All:
		d.all()
	}
	for f := range d.out.Answers {
		for _, i := range d.out.Answers[f].Selected {
			d.out.Endpoints[i].Selected = true
		}
	}
}

// all answers every endpoint that may be.
func (d *decider) all() {
	for f := range d.out.Answers {
		d.give(Family(f), StaleAll, d.spares(Family(f)))
	}
}

// lastGood answers what was last selected while healthy, as far as it may be. Never a dead one
// while a healthy one exists, of either family: the healthy ones among the last good, or else
// the healthy ones. Where there never was any, or none may be answered any more: all.
func (d *decider) lastGood() {
	healthy := slices.ContainsFunc(d.views, func(v view) bool { return v.spare && v.healthy })
	var kept [2][]int
	for f := range kept {
		kept[f] = d.known(Family(f), d.prev.Families[f].LastGood, healthy)
	}
	switch {
	case healthy:
		d.fillHealthy(&kept)
	case len(kept[V4])+len(kept[V6]) == 0:
		d.all()
		return
	}
	// A family that was answered NODATA while another tier had eligible ones of it is so again,
	// rather than with what was left out even in good times.
	for f := range kept {
		d.give(Family(f), Stale, kept[f])
	}
}

// fillHealthy gives the families that have nothing kept the healthy endpoints of the lowest tier
// that has any; together: of the tier of what was kept of the other family, if there is such.
func (d *decider) fillHealthy(kept *[2][]int) {
	for f := range kept {
		if len(kept[f]) > 0 {
			continue
		}
		in := func(i int) bool { return d.views[i].family == Family(f) }
		if !d.p.Apart {
			other := kept[1-f]
			in = func(i int) bool { return len(other) == 0 || slices.Contains(other, i) }
		}
		kept[f] = d.healthyOnes(Family(f), d.lowestTier(in))
	}
}

// lowestTier is the lowest tier of the healthy endpoints that may be answered and are in.
func (d *decider) lowestTier(in func(int) bool) int {
	tier := math.MaxInt
	for i := range d.views {
		if v := &d.views[i]; v.spare && v.healthy && in(i) {
			tier = min(tier, d.eps[i].Tier)
		}
	}
	return tier
}

// known are the endpoints of remembered addresses that may be answered; only the healthy ones on
// demand.
func (d *decider) known(f Family, addrs []netip.Addr, healthy bool) []int {
	var list []int
	for _, a := range addrs {
		for i := range d.views {
			v := &d.views[i]
			if v.spare && v.family == f && (v.healthy || !healthy) && d.eps[i].Key.Addr == a {
				list = append(list, i)
			}
		}
	}
	return list
}

// healthyOnes are the healthy endpoints of a family and tier that may be answered, fastest first.
func (d *decider) healthyOnes(f Family, tier int) []int {
	var list []int
	for i := range d.views {
		if v := &d.views[i]; v.spare && v.healthy && v.family == f && d.eps[i].Tier == tier {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, d.faster)
	return list
}

// give makes a family's answer of these endpoints; of none: NODATA.
func (d *decider) give(f Family, k Kind, list []int) {
	a := &d.out.Answers[f]
	a.Selected = list
	if len(list) == 0 {
		return // Empty already
	}
	a.Kind = k
	a.Rotate = k == Stale && d.p.Select == Group
	if n := max(1, d.p.MaxAnswers); k == Stale && !a.Rotate && len(list) > n {
		a.Selected = list[:n]
	}
}
