package answer

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// TestRotation: over any window as long as the sum of the reduced weights each address is first exactly as often as its
// weight says, and each reply has different addresses, as many as wanted.
func TestRotation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 12), 1, 8).Draw(rt, "weights")
		factor := rapid.IntRange(1, 50).Draw(rt, "factor")
		limit := rapid.IntRange(1, len(weights)).Draw(rt, "max")
		skip := rapid.IntRange(0, 30).Draw(rt, "skip")
		scaled := make([]int, len(weights))
		for i, w := range weights {
			scaled[i] = w * factor
		}
		all := many(len(weights), false)
		s := spec("n.example")
		s.Sets[0] = SetSpec{Addrs: all, Weights: scaled, Max: limit, EDE: NoEDE}
		c := newClient(t, s)
		for range skip {
			c.ask("n.example", dns.TypeA)
		}
		reducedWeights, total := reduced(scaled)
		firsts := make([]int, len(weights))
		for range total {
			m, _ := c.ask("n.example", dns.TypeA)
			got := addresses(m)
			if len(got) != limit {
				rt.Fatalf("%d addresses", len(got))
			}
			for i := range got {
				if slices.Contains(got[:i], got[i]) {
					rt.Fatalf("twice in %v", got)
				}
			}
			firsts[slices.IndexFunc(all, func(a netip.Addr) bool { return a.String() == got[0] })]++
		}
		if !slices.Equal(firsts, reducedWeights) {
			rt.Fatalf("first %v times, want %v", firsts, reducedWeights)
		}
	})
}

func TestRotationIsSmooth(t *testing.T) {
	if got := cycle([]int{5, 1, 1}); !slices.Equal(got, []uint16{0, 0, 1, 0, 2, 0, 0}) {
		t.Error(got)
	}
	if got := cycle([]int{100, 100, 100}); !slices.Equal(got, []uint16{0, 1, 2}) {
		t.Error(got)
	}
}

func TestRotationOfHugeWeights(t *testing.T) {
	w, total := reduced([]int{1 << 40, 1<<40 - 1, 1})
	if total < maxCycle || total > maxCycle+3 || w[2] != 1 || w[0]+w[1]+w[2] != total {
		t.Error(w, total)
	}
}

// TestRotationChanges: a shorter cycle takes over in the middle of a longer one; listeners rotate each by itself.
func TestRotationChanges(t *testing.T) {
	set := func(n int) *Spec {
		s := spec("n.example")
		s.Sets[0] = SetSpec{Addrs: many(n, false), Weights: slices.Repeat([]int{1}, n), Max: 1, EDE: NoEDE}
		return s
	}
	c := newClient(t, set(5))
	for range 4 {
		c.ask("n.example", dns.TypeA)
	}
	c.table = c.table.With([]Change{{Slot: 0, Entry: Build(set(2))}})
	var got []string
	for range 4 {
		m, _ := c.ask("n.example", dns.TypeA)
		got = append(got, addresses(m)...)
	}
	if want := []string{"192.0.0.0", "192.0.0.1", "192.0.0.0", "192.0.0.1"}; !slices.Equal(got, want) {
		t.Error(got)
	}
	c.rotor = new(Counters).NewRotor()
	if m, _ := c.ask("n.example", dns.TypeA); addresses(m)[0] != "192.0.0.0" {
		t.Error("a new listener starts anew")
	}
}
