package resolver

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whatever is added and removed, each attempt is due once, not before its time
// and within a tick of the first look after it.
func TestWheel(t *testing.T) {
	var w wheel
	w.init()
	rng := rand.New(rand.NewPCG(1, 2))
	now := int64(time.Hour)
	waiting := make(map[*attempt]bool)
	for range 20000 {
		switch rng.IntN(4) {
		case 0, 1:
			at := &attempt{slot: -1}
			w.add(at, now+rng.Int64N(int64(8*time.Second)))
			waiting[at] = true
		case 2:
			for at := range waiting { // any
				w.remove(at)
				delete(waiting, at)
				break
			}
		case 3:
			now += rng.Int64N(int64(50 * time.Millisecond))
			for at := w.due(now); at != nil; at = w.due(now) {
				if !waiting[at] || at.due > now {
					t.Fatalf("due at %d, now %d, waiting %v", at.due, now, waiting[at])
				}
				delete(waiting, at)
			}
			for at := range waiting {
				if at.due+2*int64(tick) < now {
					t.Fatalf("missed: due %v ago", time.Duration(now-at.due))
				}
			}
		}
		if w.n != len(waiting) {
			t.Fatalf("%d in the wheel, want %d", w.n, len(waiting))
		}
	}
}

// Below the rate every one is fresh; well above it none; below again, again.
func TestBucket(t *testing.T) {
	var b bucket
	now := int64(1)
	run := func(n int, gap time.Duration) (yes int) {
		for range n {
			now += int64(gap)
			if b.take(now, 100, 100) {
				yes++
			}
		}
		return yes
	}
	if n := run(500, 20*time.Millisecond); n != 500 {
		t.Errorf("at 50 a second %d of 500", n)
	}
	run(300, time.Millisecond)
	if n := run(5000, 200*time.Microsecond); n != 0 {
		t.Errorf("at 5000 a second %d of 5000", n)
	}
	run(200, 20*time.Millisecond)
	if n := run(100, 20*time.Millisecond); n != 100 {
		t.Errorf("at 50 a second again %d of 100", n)
	}
}
