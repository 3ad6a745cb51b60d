package resolver

import (
	"net/netip"
	"slices"
	"time"
)

// ListenChange is a change of the listen addresses that can no longer fail.
// Either Commit or Abort must be called, once.
type ListenChange struct {
	r     *Resolver
	next  []*endpoint // all
	fresh []*endpoint // those that are bound but not in use yet
}

// PrepareListen binds the addresses that are not served yet. An address that
// is configured as before keeps its sockets.
func (r *Resolver) PrepareListen(addrs []netip.AddrPort) (*ListenChange, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.left {
		return nil, errStopped
	}
	c := &ListenChange{r: r}
	old := slices.Clone(r.endpoints)
	for _, a := range addrs {
		if i := slices.IndexFunc(old, func(e *endpoint) bool { return e.want == a }); i >= 0 {
			c.next = append(c.next, old[i])
			old = slices.Delete(old, i, i+1)
			continue
		}
		r.closeRetiredLocked(a)
		e, err := r.bindIfPossible(a)
		if err != nil {
			c.Abort()
			return nil, err
		}
		if e != nil {
			c.next = append(c.next, e)
			c.fresh = append(c.fresh, e)
		}
	}
	if len(c.next) == 0 {
		return nil, errNoAddress
	}
	return c, nil
}

// retireAfter is how long the sockets of an address that is given up stay open
// for the replies to forwarded queries: longer than total_timeout usually is.
const retireAfter = 5 * time.Second

// Commit puts the change into force. Queries that came in by an address that is
// given up still get their replies.
func (c *ListenChange) Commit() {
	r := c.r
	r.mu.Lock()
	if r.stopped || r.left {
		r.mu.Unlock()
		c.Abort()
		return
	}
	var gone []*endpoint
	for _, e := range r.endpoints {
		if !slices.Contains(c.next, e) {
			gone = append(gone, e)
		}
	}
	r.endpoints = c.next
	if r.started {
		for _, e := range c.fresh {
			e.start()
		}
	}
	r.retired = append(r.retired, gone...)
	r.mu.Unlock()
	for _, e := range gone {
		e.stopReading()
		e.setRetire(time.AfterFunc(retireAfter, func() { r.closeRetired(e) }))
	}
}

func (r *Resolver) closeRetired(e *endpoint) {
	e.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = slices.DeleteFunc(r.retired, func(x *endpoint) bool { return x == e })
}

// closeRetiredLocked frees want, if it was given up just before.
func (r *Resolver) closeRetiredLocked(want netip.AddrPort) {
	r.retired = slices.DeleteFunc(r.retired, func(e *endpoint) bool {
		if e.want == want {
			e.close()
		}
		return e.want == want
	})
}

// Abort gives the sockets of the change back.
func (c *ListenChange) Abort() {
	for _, e := range c.fresh {
		e.close()
	}
}
