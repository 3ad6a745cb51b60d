package rank

import "slices"

// explain fills in rank and reason of every endpoint's verdict.
func (d *decider) explain() {
	for f := range d.out.Answers {
		for k, i := range d.byRank(Family(f)) {
			d.out.Endpoints[i].Rank = k + 1
		}
	}
	for i := range d.out.Endpoints {
		d.out.Endpoints[i].Reason = d.reason(i)
	}
}

// reason tells why an endpoint is where it is.
func (d *decider) reason(i int) Reason {
	e, v := &d.eps[i], &d.views[i]
	r := Reason{
		state: e.Health.state(), override: e.Override, tier: int32(e.Tier), lat: v.latency,
		policy: d.p.OnAllDown, anyway: d.out.AllDown && d.out.Endpoints[i].Selected,
	}
	if h := e.Health; h != nil {
		r.last, r.count, r.since, r.warm = h.Last, int32(h.Misses), h.Since, h.Warm
	}
	switch {
	case e.Override == Down || e.Override == Drain:
		r.code = reasonDown
	case e.Weight <= 0:
		r.code = reasonNoWeight
	case !v.healthy && r.state == Unhealthy:
		r.code = reasonUnhealthy
	case !v.healthy:
		r.code = reasonUnknown
	case !v.eligible:
		r.code, r.limit = reasonTooSlow, d.p.MaxLatency
	case d.out.AllDown:
		r.code = reasonUnused
	default:
		d.rankReason(i, &r)
	}
	return r
}

// rankReason tells why an eligible endpoint is selected or not.
func (d *decider) rankReason(i int, r *Reason) {
	f := d.views[i].family
	a, m := &d.out.Answers[f], &d.out.Memory.Families[f]
	if int(r.tier) != m.Tier {
		d.tierReason(r, m)
		return
	}
	switch at := slices.Index(a.Selected, i); {
	case at >= 0 && a.Rotate:
		r.code, r.than = reasonInGroup, a.Reason.lat
	case at == 0:
		r.code = reasonBest
	case at > 0:
		r.code = reasonFurther
	case d.views[i].latency == 0:
		r.code = reasonNoFigure
	case a.Rotate:
		r.code, r.than, r.limit = reasonOutside, a.Reason.lat, d.p.GroupWithin
	default:
		d.slowerReason(i, a.Selected[0], r, m)
	}
}

// tierReason is for an endpoint of another tier than the one that answers.
func (d *decider) tierReason(r *Reason, m *FamilyMemory) {
	r.code, r.other = reasonHigher, int32(m.Tier)
	for _, w := range m.Tiers {
		if w.Tier == int(r.tier) {
			r.code, r.since, r.limit = reasonWaits, w.Since, d.p.Hold
		}
	}
}

// slowerReason is for an endpoint that the incumbent keeps out.
func (d *decider) slowerReason(i, incumbent int, r *Reason, m *FamilyMemory) {
	r.than = d.views[incumbent].latency
	switch {
	case d.beats(i, incumbent) && d.missing(i):
		r.code = reasonMissing
	case d.beats(i, incumbent):
		r.code, r.limit = reasonChallenge, d.p.Hold
		r.since = d.since(d.eps[i].Key.Addr, m.Faster)
	case r.lat < r.than:
		r.code, r.limit, r.ratio = reasonMargin, d.p.SwitchMin, d.p.SwitchRatio
	default:
		r.code = reasonSlower
	}
}
