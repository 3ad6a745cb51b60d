package rank

import (
	"net/netip"
	"slices"
	"time"
)

// Decide makes the answer for one name from the health of its endpoints, by the rules of the
// contract, section 5, in their order:
//
//  1. Overrides: down and drain are never selected, up counts as healthy.
//  2. Eligibility: healthy, weight above 0, inside max_latency (eligible.go).
//  3. The tier: lowest with an eligible endpoint; one that comes back waits (tier.go).
//  4. The selection inside it: best or group (best.go, group.go).
//  5. Nothing eligible, or fewer healthy than min_healthy: on_all_down (alldown.go).
//  6. No verdict yet: Wait, NotReady.
//
// prev is the Memory of this name's previous Decision, or nil. now never goes back but for a
// clock that is set; a remembered time in the future counts as now. Nothing given is changed or
// kept, but for slices of prev, which are immutable.
func Decide(p *Policy, eps []Endpoint, prev *Memory, now time.Time) Decision {
	return decide(p, eps, prev, now, new(Room), true)
}

// Select is Decide for those who only act on the decision: the verdicts have neither rank nor
// reason, which are most of the work and matter to people alone. The verdicts and the lists of who
// is selected are made in room, so they are good until its next use; the Memory is good for ever
// unless the room is Fleeting.
func Select(p *Policy, eps []Endpoint, prev *Memory, now time.Time, room *Room) Decision {
	return decide(p, eps, prev, now, room, false)
}

// Room is memory that Select uses again and again; the zero value is ready. It belongs to one
// goroutine. A start decides thousands of names, and would leave a third of its garbage here.
type Room struct {
	verdicts []Verdict
	views    []view
	tiers    []TierWait
	in       []int           // who may be selected
	selected [2][]int        // by family
	addrs    [2][]netip.Addr // of the Memory's selections, by family

	// Fleeting is for who doesn't keep the Memory: its selections are made here, too.
	Fleeting bool
}

// nothing is the Memory of a name that was never decided.
var nothing Memory

func decide(p *Policy, eps []Endpoint, prev *Memory, now time.Time, room *Room, explain bool) Decision {
	if prev == nil {
		prev = &nothing
	}
	room.verdicts = slices.Grow(room.verdicts[:0], len(eps))[:len(eps)]
	clear(room.verdicts)
	room.views = slices.Grow(room.views[:0], len(eps))
	d := decider{p: p, eps: eps, prev: prev, now: now, room: room, views: room.views}
	d.out.At = now
	d.out.Endpoints = room.verdicts
	d.look()
	d.limitLatency()
	switch {
	case len(eps) == 0:
		d.everyFamily(Answer{Kind: NotReady, Reason: Reason{code: reasonNotReady}})
	case d.tooFew():
		d.allDown()
	case d.eligible == 0:
		d.wait()
	default:
		d.normal()
	}
	for i := range d.views {
		d.out.Endpoints[i].Eligible = d.views[i].eligible
	}
	if explain {
		d.explain()
	}
	return d.out
}

// decider is one run of Decide.
type decider struct {
	p    *Policy
	eps  []Endpoint
	prev *Memory
	now  time.Time
	room *Room

	views    []view // by endpoint
	eligible int    // how many are
	healthy  int    // usable ones
	unknown  int    // how many first verdicts are still to come
	out      Decision
}

// view is what one decision sees of one endpoint.
type view struct {
	latency  time.Duration // 0 = none
	family   Family
	usable   bool // not down or drain, has weight
	spare    bool // usable, and its address is in DNS: on_all_down may choose it
	healthy  bool // usable, and healthy or up
	unknown  bool // spare, not up, and without a verdict
	eligible bool
}

// look takes stock of the endpoints.
func (d *decider) look() {
	for i := range d.eps {
		e := &d.eps[i]
		v := view{latency: e.Health.Latency(d.p.Latency), family: familyOf(e.Key.Addr)}
		v.usable = e.Weight > 0 && e.Override != Down && e.Override != Drain
		v.spare = v.usable && !e.Gone
		state := e.Health.state()
		v.healthy = v.usable && (state == Healthy || e.Override == Up)
		v.unknown = v.spare && !v.healthy && state == Unknown
		v.eligible = v.healthy
		d.views = append(d.views, v)
		d.out.Endpoints[i].Latency = v.latency
		if v.healthy {
			d.healthy++
		}
		if v.unknown {
			d.unknown++
		}
	}
	d.eligible = d.healthy
}

// familyOf is the family of an address.
func familyOf(a netip.Addr) Family {
	if a.Is4() || a.Is4In6() {
		return V4
	}
	return V6
}

// everyFamily gives both families the same answer, with nothing selected and the last good
// selection remembered.
func (d *decider) everyFamily(a Answer) {
	for f := range d.out.Answers {
		d.out.Answers[f] = a
		d.out.Memory.Families[f].LastGood = d.prev.Families[f].LastGood
	}
}

// wait is for a name of which nothing is eligible and something is still unknown.
func (d *decider) wait() {
	d.everyFamily(Answer{Kind: Wait, Reason: Reason{code: reasonWait}})
	for f := range d.out.Answers {
		a := &d.out.Answers[f]
		a.Selected = d.spares(Family(f))
		if len(a.Selected) == 0 {
			*a = Answer{Kind: Empty, Reason: Reason{code: reasonNoFamily}}
		}
	}
}

// spares are the endpoints of a family that may be answered when nothing is known to be eligible,
// the healthy first, then the unknown, then the rest, each in file order (which no change of
// latency stirs).
func (d *decider) spares(f Family) []int {
	var all []int
	for class := range 3 {
		for i := range d.views {
			v := &d.views[i]
			own := 2
			if v.healthy {
				own = 0
			} else if v.unknown {
				own = 1
			}
			if v.spare && v.family == f && own == class {
				all = append(all, i)
			}
		}
	}
	return all
}

// scope is what shares a tier: both families together, or each apart.
type scope struct {
	together bool
	family   Family // when not together
}

func (s scope) has(f Family) bool { return s.together || s.family == f }

// normal selects among the eligible endpoints.
func (d *decider) normal() {
	d.settle()
	if !d.p.Apart {
		mem := d.tier(scope{together: true})
		for f := range d.out.Answers {
			d.answer(Family(f), mem)
		}
		return
	}
	for f := range d.out.Answers {
		if s := (scope{family: Family(f)}); d.any(s) {
			d.answer(s.family, d.tier(s))
		} else {
			d.out.Memory.Families[f].LastGood = d.prev.Families[f].LastGood
			d.none(s.family, -1)
		}
	}
}

// any tells whether an eligible endpoint is in scope.
func (d *decider) any(s scope) bool {
	for i := range d.views {
		if d.views[i].eligible && s.has(d.views[i].family) {
			return true
		}
	}
	return false
}

// settle keeps Memory.Settles: it begins with the first selection while first verdicts are to
// come, and ends with the last of them, or after hold.
func (d *decider) settle() {
	m := &d.out.Memory
	switch {
	case d.unknown == 0:
	case d.p.Hold <= 0: // there is nothing to leave out
	case !d.prev.Families[V4].Placed && !d.prev.Families[V6].Placed:
		m.Settles = d.now.Add(d.p.Hold)
	case d.unsettled():
		m.Settles = d.prev.Settles
	}
}

// unsettled tells whether hold may be left out: the incumbent was chosen from part of the
// endpoints, just because its probe was the first to end.
func (d *decider) unsettled() bool {
	s := d.prev.Settles
	return s.After(d.now) && !s.After(d.now.Add(d.p.Hold))
}

// answer selects one family's answer in the tier that won; mem is what is known of that tier.
func (d *decider) answer(f Family, mem FamilyMemory) {
	tier := mem.Tier
	d.out.Memory.Families[f] = mem
	in := d.room.in[:0]
	for i := range d.views {
		if v := &d.views[i]; v.eligible && v.family == f && d.eps[i].Tier == tier {
			in = append(in, i)
		}
	}
	d.room.in = in
	if len(in) == 0 {
		d.none(f, tier)
		return
	}
	a, m := &d.out.Answers[f], &d.out.Memory.Families[f]
	a.Tier = tier
	a.Selected = d.room.selected[f][:0]
	if d.p.Select == Group {
		d.group(f, in)
	} else {
		d.best(f, in)
	}
	d.room.selected[f] = a.Selected
	if old := &d.prev.Families[f]; old.Placed && old.Tier != tier {
		a.Reason.code, a.Reason.other = reasonTierUp, int32(old.Tier)
		if tier < old.Tier {
			a.Reason.code = reasonTierDown
		}
	}
	m.Selected = d.addrs(f, a.Selected, d.prev.Families[f].Selected)
	m.LastGood = m.Selected
	for _, i := range a.Selected {
		d.out.Endpoints[i].Selected = true
	}
}

// none answers for a family without an eligible endpoint where the other has one: NODATA, or a
// wait for its first verdicts. tier is the one that won, -1 for none of this family's own.
//
// What was last selected while healthy stays remembered, for families die one after the other, but where another tier
// has eligible ones of this family, which are left out in good times, too.
func (d *decider) none(f Family, tier int) {
	a := &d.out.Answers[f]
	elsewhere := false
	*a = Answer{Kind: Empty, Reason: Reason{code: reasonNoFamily, tier: int32(tier)}}
	for i := range d.views {
		v := &d.views[i]
		if v.family != f {
			continue
		}
		if a.Reason.code == reasonNoFamily {
			a.Reason.code = reasonNoneHere
		}
		elsewhere = elsewhere || v.eligible
		if v.unknown && (tier < 0 || d.eps[i].Tier == tier) {
			a.Kind, a.Reason.code = Wait, reasonWait
			a.Selected = append(a.Selected, i)
		}
	}
	if !elsewhere || a.Kind == Wait {
		d.out.Memory.Families[f].LastGood = d.prev.Families[f].LastGood
	}
}

// addrs are the addresses of endpoints; the slice remembered before is used again if it is the same.
func (d *decider) addrs(f Family, list []int, before []netip.Addr) []netip.Addr {
	same := len(list) == len(before)
	for k := 0; same && k < len(list); k++ {
		same = d.eps[list[k]].Key.Addr == before[k]
	}
	if same {
		return before
	}
	if !d.room.Fleeting {
		out := make([]netip.Addr, len(list))
		for k, i := range list {
			out[k] = d.eps[i].Key.Addr
		}
		return out
	}
	out := d.room.addrs[f][:0]
	for _, i := range list {
		out = append(out, d.eps[i].Key.Addr)
	}
	d.room.addrs[f] = out
	return out
}

// at is a remembered time, but never in the future.
func (d *decider) at(t time.Time) time.Time {
	if t.After(d.now) {
		return d.now
	}
	return t
}

// next notes that a hold ends at a time.
func (d *decider) next(t time.Time) { d.out.Next = earlier(d.out.Next, t) }

// faster orders endpoints by latency; those without one come last, ties in file order.
func (d *decider) faster(i, j int) int {
	a, b := d.views[i].latency, d.views[j].latency
	switch {
	case a == b:
		return i - j
	case a == 0:
		return 1
	case b == 0 || a < b:
		return -1
	}
	return 1
}

// fastest is the first of a non-empty list by faster.
func (d *decider) fastest(list []int) int { return slices.MinFunc(list, d.faster) }
