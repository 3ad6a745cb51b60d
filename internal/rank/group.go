package rank

import "slices"

// group selects all within group_within of the fastest, in file order, so that latencies that
// change their order inside the group leave the answer alone. in are the eligible endpoints of
// the family in its tier, at least one. Without any estimate among them, all are in.
func (d *decider) group(f Family, in []int) {
	old, a := &d.prev.Families[f], &d.out.Answers[f]
	best := d.views[d.fastest(in)].latency
	before := old.Selected
	if !old.Placed {
		before = nil
	}
	for _, i := range in {
		lat := d.views[i].latency
		if (lat == 0 && best > 0) || !d.inside(lat, d.p.GroupWithin, best, d.eps[i].Key.Addr, before) {
			continue
		}
		a.Selected = append(a.Selected, i)
	}
	a.Kind, a.Rotate = Normal, true
	a.Reason = Reason{
		code: reasonGroup, tier: int32(a.Tier), lat: best, count: int32(len(a.Selected)), limit: d.p.GroupWithin,
	}
}

// byRank orders the endpoints of a family for people: the answer's order first (of a group: by
// latency), then by tier and latency.
func (d *decider) byRank(f Family) []int {
	var list []int
	for i := range d.views {
		if d.views[i].eligible && d.views[i].family == f {
			list = append(list, i)
		}
	}
	a := &d.out.Answers[f]
	slices.SortFunc(list, func(i, j int) int {
		if a.Kind == Normal && !a.Rotate {
			if pi, pj := place(a.Selected, i), place(a.Selected, j); pi != pj {
				return pi - pj
			}
		}
		if d.eps[i].Tier != d.eps[j].Tier {
			// The tier that answers may be the higher one while a lower waits.
			if ti, tj := d.tierPlace(a, i), d.tierPlace(a, j); ti != tj {
				return ti - tj
			}
			return d.eps[i].Tier - d.eps[j].Tier
		}
		return d.faster(i, j)
	})
	return list
}

// place is the position in the answer, behind all for those not in it.
func place(selected []int, i int) int {
	if at := slices.Index(selected, i); at >= 0 {
		return at
	}
	return len(selected)
}

// tierPlace puts the tier that answers first.
func (d *decider) tierPlace(a *Answer, i int) int {
	if a.Kind == Normal && d.eps[i].Tier == a.Tier {
		return 0
	}
	return 1
}
