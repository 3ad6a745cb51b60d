package past

import (
	"net/netip"
	"slices"
	"time"

	"hard/internal/rank"
)

// track follows one name.
type track struct {
	report   NameReport
	ends     map[netip.Addr]*end
	at       time.Time // integrated until then
	families [2]struct {
		then, now answered
		since     time.Time // both have been the same, or not, since then
		at        time.Time // of the last change
	}
}

// answered is an answer with what is known of its addresses.
type answered struct {
	addrs   []netip.Addr
	ends    []*end
	settled []netip.Addr // as of the last millisecond that is over
	seen    bool
}

// settle counts a change that outlived its millisecond.
func (a *answered) settle(s *Side, counts bool) {
	if a.seen && counts && !slices.Equal(a.addrs, a.settled) {
		s.Switches++
	}
	a.settled, a.seen = a.addrs, true
}

// end is an endpoint as its probes saw it, whatever the thresholds.
type end struct {
	dead    bool
	latency time.Duration // of the last good probe
}

func (t *track) note(text string) {
	if !slices.Contains(t.report.Notes, text) {
		t.report.Notes = append(t.report.Notes, text)
	}
}

// set puts an answer in force, with what is known of its addresses.
func (t *track) set(a *answered, addrs []netip.Addr) {
	a.addrs, a.ends = addrs, make([]*end, len(addrs))
	for i, addr := range addrs {
		a.ends[i] = t.end(addr)
	}
}

func (t *track) end(addr netip.Addr) *end {
	e := t.ends[addr]
	if e == nil {
		e = new(end)
		t.ends[addr] = e
	}
	return e
}

// change is called before an answer changes: it ends the span of a difference.
func (t *track) change(f rank.Family, at time.Time, r *replay) {
	x := &t.families[f]
	if !at.After(x.at) {
		return
	}
	x.then.settle(&t.report.Then, x.at.After(r.o.Since))
	x.now.settle(&t.report.Now, x.at.After(r.o.Since))
	x.at = at
	from := later(x.since, r.o.Since)
	x.since = at
	if !at.After(from) || slices.Equal(x.then.addrs, x.now.addrs) {
		return
	}
	t.report.Differs += at.Sub(from)
	d := Difference{from, at, t.report.Name, f, x.then.addrs, x.now.addrs}
	if n := len(r.report.Differences); n > 0 {
		l := &r.report.Differences[n-1]
		if l.Name == d.Name && l.Family == f && l.To.Equal(from) && slices.Equal(l.Then, d.Then) && slices.Equal(l.Now, d.Now) {
			l.To = at
			return
		}
	}
	r.report.Differences = append(r.report.Differences, d)
}

// until adds up the time up to an instant.
func (t *track) until(at time.Time, r *replay) {
	from := later(t.at, r.o.Since)
	if at.After(t.at) {
		t.at = at
	}
	if !at.After(from) {
		return
	}
	d := at.Sub(from)
	for f := range t.families {
		t.report.Then.add(&t.families[f].then, d)
		t.report.Now.add(&t.families[f].now, d)
	}
}

func (s *Side) add(a *answered, d time.Duration) {
	if len(a.ends) == 0 {
		return
	}
	s.Answered += d
	dead, known, sum := 0, 0, time.Duration(0)
	for _, e := range a.ends {
		switch {
		case e.dead:
			dead++
		case e.latency > 0:
			known++
			sum += e.latency
		}
	}
	s.Dead += d * time.Duration(dead) / time.Duration(len(a.ends))
	if known > 0 {
		s.known += d
		s.weight += d.Seconds() * (sum / time.Duration(known)).Seconds()
	}
}
