package config

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// manyNames is a configuration of n names, about 100 bytes each.
func manyNames(n int) []byte {
	var b strings.Builder
	b.WriteString("[defaults]\ncheck = \"static:\"\n")
	for i := range n {
		fmt.Fprintf(&b, "[name.\"host-%06d.service.example.com\"]\ncandidates = [\"10.%d.%d.%d\", \"2001:db8::%x:%x\"]\n",
			i, i>>16, i>>8&255, i&255, i>>16, i&0xffff)
	}
	return []byte(b.String())
}

func BenchmarkParse10k(b *testing.B) {
	data := manyNames(10_000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if c, r := Parse("bench.toml", data); c == nil {
			b.Fatal(r.Err())
		}
	}
}

// TestMemory holds what stays of a parse: neither the text nor the decoded tree.
func TestMemory(t *testing.T) {
	const n = 10_000
	data := manyNames(n)
	before := heap()
	c, r := Parse("many.toml", data)
	if c == nil {
		t.Fatal(r.Err())
	}
	perName := float64(heap()-before) / n
	t.Logf("%.0f bytes per name with two candidates", perName)
	if perName > 600 {
		t.Errorf("%.0f bytes kept per name: the file or its tree is still alive", perName)
	}
	if c.Names[0].Policy != c.Names[n-1].Policy || c.Names[0].Pace != c.Names[n-1].Pace ||
		c.Names[0].Candidates[0].Check != c.Names[n-1].Candidates[1].Check {
		t.Error("equal policies, paces or checks are not shared")
	}
	runtime.KeepAlive(data)
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestLinear holds 100,000 names to ten times the allocations of 10,000. Time is only told.
func TestLinear(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("skipped: HARD_LONG=1 is not set")
	}
	cost := func(n int) (allocs, bytes uint64) {
		data := manyNames(n)
		runtime.GC()
		var a, b runtime.MemStats
		runtime.ReadMemStats(&a)
		start := time.Now()
		c, r := Parse("many.toml", data)
		took := time.Since(start)
		runtime.ReadMemStats(&b)
		if c == nil || len(c.Names) != n {
			t.Fatal(r.Err())
		}
		t.Logf("%d names: %v", n, took)
		return b.Mallocs - a.Mallocs, b.TotalAlloc - a.TotalAlloc
	}
	a1, b1 := cost(10_000)
	a10, b10 := cost(100_000)
	t.Logf("allocations %d and %d, bytes %d and %d", a1, a10, b1, b10)
	if a10 > 11*a1 || b10 > 12*b1 {
		t.Error("the cost of a name grows with the number of names")
	}
}
