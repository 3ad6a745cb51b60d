package answer

import (
	"sync"
	"sync/atomic"
)

// Counters are the answers given per endpoint, one per ID of SetSpec.IDs, for metrics. Each has one writer, a Rotor,
// and is summed by readers.
type Counters struct {
	mu     sync.Mutex
	rotors []*Rotor // guarded by mu
}

// NewRotor returns the rotation state and counters of one listener goroutine. It is kept for good, so that its counts are
// never lost: make one per listener, not one per connection.
func (c *Counters) NewRotor() *Rotor {
	r := new(Rotor)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rotors = append(c.rotors, r)
	return r
}

// Sum adds up what all rotors have counted since they were made; the index is the ID. IDs never counted may be missing
// at the end. Any goroutine may call it.
func (c *Counters) Sum() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum []uint64
	for _, r := range c.rotors {
		counts := r.counts.Load()
		if counts == nil {
			continue
		}
		if grow := len(*counts) - len(sum); grow > 0 {
			sum = append(sum, make([]uint64, grow)...)
		}
		for i := range *counts {
			sum[i] += (*counts)[i].Load()
		}
	}
	return sum
}

// Rotor is the rotation state and the counters of one listener: used by one goroutine at a time, but for Counters.Sum.
// It grows to what the tables need, so serving allocates only the first time after a reload.
type Rotor struct {
	next   [2][]uint32                     // per family and slot: position in the cycle; owned by the listener
	own    []atomic.Uint64                 // what counts points to; owned by the listener, which saves it two loads
	counts atomic.Pointer[[]atomic.Uint64] // written by the listener, read by Sum
}

// turn returns the position in a cycle of that length, and moves on.
func (r *Rotor) turn(family, slot, slots, length int) int {
	next := r.next[family]
	if slot >= len(next) {
		next = append(next, make([]uint32, slots-len(next))...)
		r.next[family] = next
	}
	p := next[slot]
	if int(p) >= length {
		p = 0 // the entry was changed for one with a shorter cycle, or the cycle is over
	}
	next[slot] = p + 1
	return int(p)
}

// count notes one answer for an ID.
func (r *Rotor) count(id uint32) {
	if int(id) >= len(r.own) {
		r.growCounts(int(id))
	}
	// The only writer needs no locked addition.
	n := &r.own[id]
	n.Store(n.Load() + 1)
}

// growCounts makes room for id. A reader that still has the old counters misses only what comes later.
func (r *Rotor) growCounts(id int) {
	grown := make([]atomic.Uint64, max(64, (id+1)*5/4))
	for i := range r.own {
		grown[i].Store(r.own[i].Load())
	}
	r.own = grown
	r.counts.Store(&grown)
}
