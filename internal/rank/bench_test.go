package rank

import (
	"fmt"
	"testing"
	"time"
)

func benchmarkDecide(b *testing.B, n int) {
	lines := make([]string, n)
	for i := range lines {
		family := fmt.Sprintf("10.0.%d.%d", i/200, i%200+1)
		if i%4 == 3 {
			family = fmt.Sprintf("fd00::%x", i+1)
		}
		lines[i] = fmt.Sprintf("%s healthy %dms tier=%d", family, 5+i, i/(n/2+1))
	}
	name := newName(b, defaults(), lines...)
	name.decide(0)
	now := at(1)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		d := Decide(name.p, name.eps, &name.memory, now)
		name.memory = d.Memory
	}
}

func BenchmarkDecide4(b *testing.B)  { benchmarkDecide(b, 4) }
func BenchmarkDecide10(b *testing.B) { benchmarkDecide(b, 10) }
func BenchmarkDecide40(b *testing.B) { benchmarkDecide(b, 40) }

func BenchmarkStep(b *testing.B) {
	var h Health
	p := defaultPace()
	s := probe(testKey, epoch, OK, 3*msec)
	b.ReportAllocs()
	for b.Loop() {
		s.At = s.At.Add(2 * time.Second)
		Step(&h, p, s, nil)
	}
}
