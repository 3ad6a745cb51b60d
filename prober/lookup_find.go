package prober

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"hard/internal/bug"
)

// begin starts a look-up; without a free slot it comes again shortly.
func (l *lookups) begin(f *family) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.queue.set(f.errand, l.now().add(5*time.Millisecond))
		return
	}
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		defer bug.Caught(l.log, "a look-up", "host", f.host.name)
		ctx, cancel := context.WithTimeout(l.ctx, lookupLimit)
		addrs, ttl, err := l.lookup.LookupAddrs(ctx, f.host.name, f.v6)
		cancel()
		<-l.slots
		if l.ctx.Err() == nil {
			l.do(func() { l.finish(f, addrs, ttl, err) })
		}
	}()
}

// finish takes the result of a look-up and plans the next one.
func (l *lookups) finish(f *family, addrs []netip.Addr, ttl time.Duration, err error) {
	if f.removed {
		return
	}
	now := l.now()
	if err != nil {
		if f.err == nil {
			l.log.Warn("look-up failed, keeping what is known", "host", f.host.name, "v6", f.v6, "error", err)
		}
		f.err = err
		wait := min(firstRetry<<min(f.fails, 10), lastRetry)
		f.fails++
		l.queue.set(f.errand, now.add(jittered(wait)))
	} else {
		if f.err != nil {
			l.log.Info("look-up works again", "host", f.host.name, "v6", f.v6)
		}
		if len(addrs) == 0 && ttl <= 0 {
			ttl = emptyTTL
		}
		f.addrs, f.ttl = unmapped(addrs), min(max(ttl, minTTL), maxTTL)
		f.resolved, f.err, f.fails = true, nil, 0
		l.queue.set(f.errand, now.add(jittered(f.ttl)))
	}
	for _, c := range f.host.users {
		l.refresh(c, now)
	}
}

// jittered takes up to 10 % off, so that look-ups spread and no TTL is exceeded.
func jittered(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

func unmapped(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		out[i] = a.Unmap()
	}
	return out
}

// refresh recomputes a candidate and tells the news, if there are any.
func (l *lookups) refresh(c *candidate, now moment) {
	addrs, ttl, err := c.resolve()
	for _, a := range addrs {
		delete(c.gone, a)
	}
	for _, a := range c.current {
		if _, already := c.gone[a]; !already && !slices.Contains(addrs, a) {
			c.gone[a] = now.add(max(2*ttl, minGrace))
		}
	}
	c.current = addrs
	next := moment(never)
	var gone []netip.Addr
	for a, until := range c.gone {
		if until <= now {
			delete(c.gone, a)
			continue
		}
		gone = append(gone, a)
		next = min(next, until)
	}
	slices.SortFunc(gone, netip.Addr.Compare)
	l.queue.remove(c.grace)
	if len(gone) > 0 {
		l.queue.set(c.grace, next)
	}
	l.tell(c, Found{Name: c.key.name, Candidate: c.key.label, Addrs: addrs, Gone: gone, Err: err, At: time.Now()})
}

// tell delivers what is new: other addresses, or the beginning or end of trouble. A candidate of
// which nothing is known yet is not news until its look-ups have an answer.
func (l *lookups) tell(c *candidate, f Found) {
	if !c.told && f.Err == nil && len(f.Addrs) == 0 && !c.settled() {
		return
	}
	if c.told && sameSet(f.Addrs, c.last.Addrs) && sameSet(f.Gone, c.last.Gone) && (f.Err == nil) == (c.last.Err == nil) {
		return
	}
	c.told, c.last = true, f
	l.news = append(l.news, f)
}

// settled tells whether every look-up of the candidate has had an answer.
func (c *candidate) settled() bool {
	for _, h := range c.hosts {
		for _, f := range h.families {
			if !f.resolved && f.err == nil {
				return false
			}
		}
	}
	return true
}

// resolve gathers the addresses of a candidate in the order of its host names, A before AAAA, with
// the longest TTL and the first error. A family that was not resolved for all of the names has
// the addresses of the earlier run too.
func (c *candidate) resolve() (addrs []netip.Addr, ttl time.Duration, err error) {
	add := func(a netip.Addr) {
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	pending := [2]bool{}
	for _, h := range c.hosts {
		for i, f := range h.families {
			for _, a := range f.addrs {
				add(a)
			}
			ttl = max(ttl, f.ttl)
			pending[i] = pending[i] || !f.resolved
			if err == nil {
				err = f.err
			}
		}
	}
	for _, a := range c.known {
		if a.Is4() && pending[0] || !a.Is4() && pending[1] {
			add(a)
		}
	}
	return addrs, ttl, err
}

// sameSet compares two lists without regard to order: servers rotate it.
func sameSet(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}
