package rank

import (
	"slices"
	"time"
)

// tier finds the tier that answers for a scope in which something is eligible.
//
// The lowest tier with an eligible endpoint wins. One that comes back below the tier that answers
// takes over only after being eligible for hold; at once when the tier that answers has nothing
// left, and while first verdicts are still to come (then it doesn't come back, it is late).
func (d *decider) tier(s scope) FamilyMemory {
	before := d.placed(s)
	tiers := d.eligibleTiers(s, before)
	m := FamilyMemory{Placed: true, Tier: tiers[0].Tier}
	if before == nil || !slices.ContainsFunc(tiers, func(w TierWait) bool { return w.Tier == before.Tier }) {
		return m
	}
	for _, w := range tiers {
		if w.Tier == before.Tier || d.unsettled() || d.now.Sub(w.Since) >= d.p.Hold {
			m.Tier = w.Tier
			break
		}
		m.Tiers = append(m.Tiers, w)
		d.next(w.Since.Add(d.p.Hold))
	}
	return m
}

// placed is the memory of the tier that answered the scope before; nil when none did.
func (d *decider) placed(s scope) *FamilyMemory {
	for f := range d.prev.Families {
		if m := &d.prev.Families[f]; m.Placed && s.has(Family(f)) {
			return m
		}
	}
	return nil
}

// eligibleTiers are the tiers in scope that have an eligible endpoint, lowest first, each with the
// time since when that is known. The list is good until the next call.
func (d *decider) eligibleTiers(s scope, before *FamilyMemory) []TierWait {
	tiers := d.room.tiers[:0]
	for i := range d.views {
		if !d.views[i].eligible || !s.has(d.views[i].family) {
			continue
		}
		t := d.eps[i].Tier
		at, found := slices.BinarySearchFunc(tiers, t, func(w TierWait, t int) int { return w.Tier - t })
		if !found {
			tiers = slices.Insert(tiers, at, TierWait{t, d.tierSince(t, before)})
		}
	}
	d.room.tiers = tiers
	return tiers
}

func (d *decider) tierSince(t int, before *FamilyMemory) time.Time {
	if before != nil {
		for _, w := range before.Tiers {
			if w.Tier == t {
				return d.at(w.Since)
			}
		}
	}
	return d.now
}
