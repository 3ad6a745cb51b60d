package answer

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

func key(t testing.TB, text string) []byte {
	t.Helper()
	k, err := wire.AppendName(nil, text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestMatching(t *testing.T) {
	names := []string{"example.com", "*.example.com", "a.b.example.com", "*.b.example.com", `odd\.label.example.com`,
		`\000.example.com`, "*.deep.down.net", "UPPER.Example.", "*x.example.org", "a.*.example.org"}
	specs := make([]*Spec, len(names))
	for i, n := range names {
		specs[i] = spec(n)
	}
	tb := table(t, specs...)
	for _, c := range []struct {
		query string
		want  int
	}{
		{"example.com", 0},
		{"x.example.com", 1},
		{"x.y.z.example.com", 1},
		{"b.example.com", 1},   // an empty non-terminal: the longest match still wins
		{"a.b.example.com", 2}, // exact beats the wildcard beside it
		{"c.b.example.com", 3},
		{"x.a.b.example.com", 3},
		{"*.example.com", 1}, // a '*' that a client typed is just a label
		{`odd\.label.example.com`, 4},
		{"odd.label.example.com", 1},
		{`\000.example.com`, 5},
		{"deep.down.net", -1},
		{"x.deep.down.net", 6},
		{"down.net", -1},
		{"upper.example", 7},
		{"xexample.com", -1},
		{"com", -1},
		{".", -1},
		{"*x.example.org", 8}, // not a wildcard
		{"ax.example.org", -1},
		{"a.*.example.org", 9},
		{"a.b.example.org", -1},
		{"localhost", -1}, // special, not configured
	} {
		t.Run("R20 R87 "+c.query, func(t *testing.T) {
			e, slot := tb.Lookup(key(t, c.query))
			if slot != c.want || (e == nil) != (slot < 0) || e != nil && e != tb.entries[slot] {
				t.Errorf("slot %d, want %d", slot, c.want)
			}
		})
	}
	t.Run("R21 127 labels below a wildcard", func(t *testing.T) {
		long := strings.Repeat("a.", 125) + "com"
		tb := table(t, spec("*.com"))
		if _, slot := tb.Lookup(key(t, long)); slot != 0 {
			t.Error(slot)
		}
		tb = table(t, spec("*."+long[50:])) // below 101 labels
		if _, slot := tb.Lookup(key(t, long)); slot != 0 {
			t.Error(slot)
		}
	})
	t.Run("R21 R87 wildcards as deep as they can be", func(t *testing.T) {
		const all = 127 // labels of the longest name
		below := func(depth int) string { return strings.Repeat("a.", depth-1) + "a" }
		for depth := 1; depth < all; depth++ {
			tb := table(t, spec("*."+below(depth)))
			for labels := 1; labels <= all; labels++ {
				if _, slot := tb.Lookup(key(t, below(labels))); (slot == 0) != (labels > depth) {
					t.Fatalf("below %d labels: slot %d for %d labels", depth, slot, labels)
				}
			}
		}
	})
	t.Run("R87 a wildcard for everything", func(t *testing.T) {
		c := newClient(t, spec("*"), spec("a.example"))
		m, res := c.ask("www.example", dns.TypeAAAA)
		if res.Slot != 0 || m.Ns[0].Header().Name != "." {
			t.Error(m)
		}
		if _, res := c.ask(".", dns.TypeA); res.Action != Ask {
			t.Error("the root is not below itself")
		}
		if _, res := c.ask("a.example", dns.TypeA); res.Slot != 1 {
			t.Error("exact name")
		}
	})
	t.Run("R83 R87 a wildcard's SOA is its parent's", func(t *testing.T) {
		c := newClient(t, spec("*.example.com"))
		m, _ := c.ask("A.b.Example.com", dns.TypeAAAA)
		if m.Ns[0].Header().Name != "Example.com." || m.Ns[0].(*dns.SOA).Ns != "Example.com." {
			t.Error(m)
		}
		if m, _ := c.ask("A.b.Example.com", dns.TypeA); m.Answer[0].Header().Name != "A.b.Example.com." {
			t.Error(m)
		}
	})
}

func TestNewIndexErrors(t *testing.T) {
	for _, names := range [][]string{{"a", "A."}, {"*.a", "*.A"}, {""}, {"a..b"}, {strings.Repeat("a", 64)}} {
		if _, err := NewIndex(names); err == nil {
			t.Errorf("%q: no error", names)
		}
	}
	if _, err := NewIndex([]string{"a", "*.a", "localhost", "*.localhost"}); err != nil {
		t.Error(err)
	}
}

// TestIndexModel compares look-ups with the definition: the longest of all names that match.
func TestIndexModel(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "c", "*", "localhost", `\.`})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 5).Draw(t, "labels"), ".")
	})
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(name, 1, 40, rapid.ID[string]).Draw(t, "names")
		ix, err := NewIndex(names)
		if err != nil {
			t.Fatal(err)
		}
		query := name.Draw(t, "query")
		wireName, err := wire.AppendName(nil, query)
		if err != nil {
			t.Fatal(err)
		}
		want, best := -1, -1
		for i, n := range names {
			switch {
			case n == query && !isWildcard(n):
				want, best = i, len(query)+1
			case isWildcard(n) && len(n) > best && (n == "*" || strings.HasSuffix(query, n[1:])):
				want, best = i, len(n)
			}
		}
		got, _ := ix.find(wire.Hash(wireName), wireName)
		if got >= len(names) {
			got = -1
			if !strings.HasSuffix(query, "localhost") {
				t.Fatalf("%s is special", query)
			}
			return
		}
		if got != want {
			t.Fatalf("%s in %q: %d, want %d", query, names, got, want)
		}
	})
}

// TestTablesTogether swaps entries while others look them up; the race detector watches.
func TestTablesTogether(t *testing.T) {
	names, specs := tenThousand()
	tb := buildAll(t, names[:100], specs[:100])
	other := Build(specs[100])
	var packets [100][]byte
	for i := range packets {
		packets[i] = packet(t, names[i], dns.TypeA, false)
	}
	var c Counters
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			r := c.NewRotor()
			var q wire.Query
			buf := make([]byte, 512)
			for i := range 2000 {
				n := copy(buf, packets[i%100])
				if res := tb.Serve(&q, buf, n, wire.Transport{}, r); res.Action != Answer {
					t.Error(res)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 100 {
			next := tb.With([]Change{{Slot: i, Entry: other}})
			if next.entries[i] != other || tb.entries[i] == other || next.index != tb.index {
				t.Error("the old table was changed")
			}
			c.Sum()
		}
	})
	wg.Wait()
	total := uint64(0)
	for _, n := range c.Sum() {
		total += n
	}
	if total != 3*2000 {
		t.Errorf("%d answers counted", total)
	}
}

func TestCounters(t *testing.T) {
	var c Counters
	s := spec("n.example")
	s.Sets[0] = SetSpec{Addrs: many(3, false), IDs: []uint32{5, 500, 7}, Max: 2, EDE: NoEDE}
	tb := table(t, s)
	for range 2 {
		cl := &client{t: t, table: tb, rotor: c.NewRotor()}
		cl.ask("n.example", dns.TypeA)
		cl.ask("n.example", dns.TypeAAAA)
	}
	sum := c.Sum()
	if sum[5] != 2 || sum[500] != 2 || sum[7] != 0 {
		t.Error(fmt.Sprint(sum[5], sum[500], sum[7]))
	}
}

// Whoever is answered is counted, also where a rotated reply goes over the end of the list.
func TestRotationCounters(t *testing.T) {
	var c Counters
	s := spec("n.example")
	s.Sets[0] = SetSpec{Addrs: many(3, false), IDs: []uint32{5, 6, 7}, Weights: []int{1, 1, 1}, Max: 2, EDE: NoEDE}
	cl := &client{t: t, table: table(t, s), rotor: c.NewRotor()}
	given := map[string]uint64{}
	for range 3 {
		m, _ := cl.ask("n.example", dns.TypeA)
		for _, a := range addresses(m) {
			given[a]++
		}
	}
	sum := c.Sum()
	for i, a := range many(3, false) {
		if n := given[a.String()]; n != 2 || sum[5+i] != n {
			t.Errorf("%s given %d times, counted %d", a, n, sum[5+i])
		}
	}
	if sum[0] != 0 {
		t.Errorf("%d answers counted for nobody", sum[0])
	}
}

// Addresses of the other family are left out, and with them counters and weights, which are no longer in step.
func TestMixedFamilies(t *testing.T) {
	var c Counters
	for _, weights := range [][]int{nil, {1, 1}, {1, 1, 1}} {
		mixed := SetSpec{Addrs: addrs("192.0.2.1", "2001:db8::1", "192.0.2.2"), IDs: []uint32{1, 2, 3}, Weights: weights, Max: 3, EDE: NoEDE}
		one := SetSpec{Addrs: addrs("192.0.2.1", "2001:db8::1"), IDs: []uint32{1, 2}, Max: 3, EDE: NoEDE}
		cl := &client{t: t, table: table(t, &Spec{Name: "n.example", TTL: 1, Sets: [2]SetSpec{mixed, one}}), rotor: c.NewRotor()}
		for range 3 {
			if m, _ := cl.ask("n.example", dns.TypeA); !slices.Equal(addresses(m), []string{"192.0.2.1", "192.0.2.2"}) {
				t.Error(m)
			}
		}
		if m, _ := cl.ask("n.example", dns.TypeAAAA); !slices.Equal(addresses(m), []string{"2001:db8::1"}) {
			t.Error(m)
		}
	}
	if sum := c.Sum(); len(sum) != 0 {
		t.Errorf("counted %v", sum)
	}
}

func TestServeAllocatesNothing(t *testing.T) {
	s := spec("rotated.example")
	s.Sets[0] = SetSpec{Addrs: many(3, false), IDs: []uint32{1, 2, 3}, Weights: []int{3, 2, 1}, Max: 2, EDE: 3, EDEText: "x"}
	tb := table(t, s, spec("*.wild.example"))
	var packets [][]byte
	for _, name := range []string{"rotated.example", "a.b.wild.example", "miss.example", "localhost", "x.invalid"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeMX, dns.TypeAXFR} {
			packets = append(packets, packet(t, name, qtype, true), packet(t, name, qtype, false))
		}
	}
	var q wire.Query
	r := new(Counters).NewRotor()
	buf := make([]byte, wire.MaxUDP)
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range packets {
			tb.Serve(&q, buf, copy(buf, p), wire.Transport{}, r)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestEntryIsOneCacheLine: what a look-up costs with many names is the lines it waits for.
func TestEntryIsOneCacheLine(t *testing.T) {
	if size := reflect.TypeFor[Entry]().Size(); size != cacheLine {
		t.Errorf("%d bytes", size)
	}
	for name, s := range map[string]SetSpec{"none": plain(), "one": plain(addrs("192.0.2.1")...)} {
		if e := Build(&Spec{Name: "n.example", Sets: [2]SetSpec{s, plain(addrs("2001:db8::1")...)}}); e.rest != nil {
			t.Errorf("%s address of a family needs more than that", name)
		}
	}
}

func TestSlot(t *testing.T) {
	names := []string{"a.example", "*.a.example", "b.example", "."}
	ix, err := NewIndex(names)
	if err != nil {
		t.Fatal(err)
	}
	for want, name := range names {
		if got := ix.Slot(name); got != want {
			t.Errorf("%q: slot %d, want %d", name, got, want)
		}
	}
	// A name below a wildcard is not the wildcard, and a special-use name was not given.
	for _, name := range []string{"x.a.example", "*.b.example", "localhost", "*", "", "a..example", "c.example"} {
		if got := ix.Slot(name); got != -1 {
			t.Errorf("%q: slot %d", name, got)
		}
	}
}
