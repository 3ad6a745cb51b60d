package rank

import (
	"net/netip"
	"slices"
	"time"
)

// limitLatency takes those endpoints out that are slower than max_latency. It never empties a
// name: if all are too slow, the limit is ignored. One without an estimate (forced up) is inside.
func (d *decider) limitLatency() {
	if d.p.MaxLatency <= 0 {
		return
	}
	var inside []netip.Addr
	for i := range d.views {
		if v := &d.views[i]; v.eligible && d.inside(v.latency, d.p.MaxLatency, 0, d.eps[i].Key.Addr, d.prev.Within) {
			inside = append(inside, d.eps[i].Key.Addr)
		}
	}
	if slices.Equal(inside, d.prev.Within) {
		inside = d.prev.Within
	}
	d.out.Memory.Within = inside
	if len(inside) == 0 {
		return
	}
	d.eligible = len(inside)
	for i := range d.views {
		if v := &d.views[i]; v.eligible && !slices.Contains(inside, d.eps[i].Key.Addr) {
			v.eligible = false
		}
	}
}

// inside tells whether a latency is at most base + limit, or, for an address that was inside
// before, at most base + limit x (1 + switch_ratio): at the limit nothing flaps.
func (d *decider) inside(latency, limit, base time.Duration, a netip.Addr, before []netip.Addr) bool {
	if latency <= base+limit {
		return true
	}
	wide := time.Duration(float64(limit) * (1 + d.p.SwitchRatio))
	return latency <= base+wide && slices.Contains(before, a)
}
