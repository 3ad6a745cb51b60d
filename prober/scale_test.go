package prober

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"hard/internal/rank"
)

// manyTargets are endpoints with checks of their own, in names of their own.
func manyTargets(p *Prober, port uint16, n int, every time.Duration) {
	pc := pace(time.Second)
	pc.Interval = every
	for i := range n {
		check := httpCheck(port)
		check.Fingerprint = uint64(i)
		name := fmt.Sprint("n", i, ".example.com")
		p.SetName(name, []Target{{Key: rank.Key{Name: name, Candidate: "a", Addr: loopback}, Check: check, Pace: pc}})
	}
}

type drop struct{}

func (drop) Sample(rank.Sample) {}
func (drop) Addresses(Found)    {}

// 4,000 endpoints once a second: the server's work, in the same process, makes it harder.
func TestScaleLag(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("takes 12 s; set HARD_LONG=1")
	}
	p := newProber(t, Options{Sink: drop{}})
	p.Start()
	manyTargets(p, serve(t, reply(okReply)).Port(), 4000, time.Second)
	time.Sleep(2 * time.Second) // the first probes
	before := p.Stats()
	time.Sleep(10 * time.Second)
	s := p.Stats()
	probes, late := uint64(0), uint64(0)
	for i := range s.Lag.Counts {
		n := s.Lag.Counts[i] - before.Lag.Counts[i]
		probes += n
		if i >= len(s.Lag.Bounds) || s.Lag.Bounds[i] > 50*time.Millisecond {
			late += n
		}
	}
	t.Logf("%d probes, %d more than 50 ms late, mean lag %v", probes, late, (s.Lag.Sum-before.Lag.Sum)/time.Duration(probes))
	if probes == 0 { // no test fails on a time: how late they were is for the eye
		t.Errorf("nothing was probed: %+v", s)
	}
}

// 10,000 endpoints in under 128 MiB, and each of them probed.
func TestScaleMemory(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("takes some seconds; set HARD_LONG=1")
	}
	p := newProber(t, Options{Sink: drop{}})
	p.Start()
	manyTargets(p, serve(t, reply(okReply)).Port(), 10000, 10*time.Second)
	eventually(t, "the first probes of all", func() bool { return p.Stats().Outcomes[rank.OK] >= 10000 })
	// The heap that lives, not the process's peak: that is of all tests before this one.
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d MiB of heap live, the test's server included", m.HeapAlloc>>20)
	if m.HeapAlloc > 128<<20 {
		t.Errorf("%d MiB for 10,000 endpoints and their server", m.HeapAlloc>>20)
	}
}
