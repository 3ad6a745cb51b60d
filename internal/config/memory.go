package config

import (
	"net/netip"
	"strings"
)

// A Config of 10,000 names is mostly small strings and short slices. Both are cut from larger
// pieces: that is fewer allocations at start, and what is cut lives and dies with the Config anyway.
// The decoded file must not live on in any of them, so every string that is kept is copied.

// arena keeps strings.
type arena struct{ b strings.Builder }

// arenaChunk is the size of a piece, in bytes.
const arenaChunk = 16 << 10

// keep returns a copy of s.
func (a *arena) keep(s string) string {
	if a.b.Len()+len(s) > a.b.Cap() {
		if len(s) > arenaChunk/8 {
			return strings.Clone(s)
		}
		a.b.Reset() // the strings cut from it keep their piece
		a.b.Grow(arenaChunk)
	}
	start := a.b.Len()
	a.b.WriteString(s)
	return a.b.String()[start:]
}

// slab cuts slices of n elements from pieces that grow with use.
type slab[T any] struct {
	free []T
	next int
}

// maxSlab is the number of elements in the largest piece.
const maxSlab = 512

// take returns a slice of length and capacity n.
func (s *slab[T]) take(n int) []T {
	if n > len(s.free) {
		if n > maxSlab/8 {
			return make([]T, n)
		}
		s.next = min(max(2*s.next, n, 8), maxSlab)
		s.free = make([]T, s.next)
	}
	out := s.free[:n:n]
	s.free = s.free[n:]
	return out
}

type slabs struct {
	candidates slab[Candidate]
	addrs      slab[netip.Addr]
	hosts      slab[string]
}
