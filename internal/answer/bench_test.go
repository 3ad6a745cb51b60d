package answer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

func packet(tb testing.TB, name string, qtype uint16, edns bool) []byte {
	tb.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	if edns {
		m.SetEdns0(1232, false)
	}
	b, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// tenThousand are specs as the benchmarks of whole servers have them.
func tenThousand() (names []string, specs []*Spec) {
	for i := range 10000 {
		name := fmt.Sprintf("host-%d.api.example.com", i)
		names = append(names, name)
		specs = append(specs, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{
			{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})}, Max: 1, EDE: NoEDE,
				IDs: []uint32{uint32(2 * i)}},
			{Addrs: []netip.Addr{netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})}, Max: 1,
				EDE: NoEDE, IDs: []uint32{uint32(2*i + 1)}},
		}})
	}
	return names, specs
}

func buildAll(tb testing.TB, names []string, specs []*Spec) *Table {
	tb.Helper()
	ix, err := NewIndex(names)
	if err != nil {
		tb.Fatal(err)
	}
	entries := make([]*Entry, len(specs))
	for i, s := range specs {
		entries[i] = Build(s)
	}
	return NewTable(ix, entries)
}

func benchmarkServe(b *testing.B, qtype uint16, edns bool, format string, want Action) {
	t := build10000(b)
	packets := make([][]byte, 4096)
	for i := range packets {
		packets[i] = packet(b, fmt.Sprintf(format, i*7919%10000), qtype, edns)
	}
	var (
		q   wire.Query
		buf = make([]byte, wire.MaxUDP)
		c   Counters
		r   = c.NewRotor()
		i   int
	)
	r.growCounts(20000)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		n := copy(buf, packets[i&4095])
		i++
		if res := t.Serve(&q, buf, n, wire.Transport{}, r); res.Action != want {
			b.Fatal("wrong action", res)
		}
	}
}

func BenchmarkServe(b *testing.B) {
	b.Run("A", func(b *testing.B) { benchmarkServe(b, dns.TypeA, false, "host-%d.api.example.com", Answer) })
	b.Run("AAAA-EDNS", func(b *testing.B) { benchmarkServe(b, dns.TypeAAAA, true, "host-%d.api.example.com", Answer) })
	b.Run("miss", func(b *testing.B) { benchmarkServe(b, dns.TypeA, true, "www-%d.other.example.com", Ask) })
}

func BenchmarkBuild10000(b *testing.B) {
	names, specs := tenThousand()
	b.ReportAllocs()
	for b.Loop() {
		buildAll(b, names, specs)
	}
}

func BenchmarkWith(b *testing.B) {
	t := build10000(b)
	change := []Change{{Slot: 5, Entry: t.entries[6]}}
	b.ReportAllocs()
	for b.Loop() {
		t.With(change)
	}
}

func build10000(tb testing.TB) *Table {
	names, specs := tenThousand()
	return buildAll(tb, names, specs)
}

// BenchmarkServeCold is Serve as a listener does it: batches of queries for 10,000 names, A and AAAA, in random order,
// and between two batches something else (in a listener, the kernel) has used the caches. cold-ns/query counts the
// batches alone.
func BenchmarkServeCold(b *testing.B) {
	const batch, size = 32, 96
	t := build10000(b)
	var packets [][]byte
	for i := range 10000 {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			packets = append(packets, packet(b, fmt.Sprintf("host-%d.api.example.com", i), qtype, false))
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
	var (
		q     wire.Query
		bufs  [batch][wire.MinUDP + size]byte
		c     Counters
		r     = c.NewRotor()
		other = make([]uint64, 1<<20/8)
		sum   uint64
		spent time.Duration
		next  int
	)
	r.growCounts(20000)
	b.ReportAllocs()
	for b.Loop() {
		for i := range other {
			sum += other[i]
			other[i] = sum
		}
		var lens [batch]int
		for i := range batch {
			lens[i] = copy(bufs[i][:], packets[next])
			next = (next + 1) % len(packets)
		}
		began := time.Now()
		for i := range batch {
			if res := t.Serve(&q, bufs[i][:], lens[i], wire.Transport{}, r); res.Action != Answer {
				b.Fatal("wrong action", res)
			}
		}
		spent += time.Since(began)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*batch), "cold-ns/query")
}
