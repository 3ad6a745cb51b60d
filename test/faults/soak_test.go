package faults

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"hard/test/faulty"
)

// TestSoak runs the program for as long as HARD_SOAK says, as 24h (in short when it says nothing), with
// clients over UDP and TCP, forwards, a candidate that dies and returns, reloads, overrides and scrapes,
// and samples what it holds. HARD_SOAK_PAUSE, as 20ms, slows the clients down. No reply may be lost or wrong; memory, goroutines and descriptors stay flat.
func TestSoak(t *testing.T) {
	t.Parallel()
	length, err := time.ParseDuration(os.Getenv("HARD_SOAK"))
	if err != nil {
		length = time.Second // enough to see that the soak itself works
	}
	pause, _ := time.ParseDuration(os.Getenv("HARD_SOAK_PAUSE"))
	s := newShop(t, nil)
	s.Program = faulty.Plain(t) // its memory is the question
	s.Config(faulty.Head(s.up.Addr) + static + probed("api.example", s.near, s.far) + statics(100))
	s.ready()
	s.Wants("forwards work", faulty.Forwarded())
	idle := s.Usage()
	questions := []faulty.Question{ours(), s.api(s.near, s.far), faulty.Forwarded(), ours().TCP(), faulty.Forwarded().TCP(),
		faulty.Ours("n99.large.example", "10.0.99.1", "10.64.99.1")}
	for i := range questions {
		questions[i].Pause = pause
	}
	a := s.Ask(questions...)
	every := min(length/20, 30*time.Second)
	var samples []faulty.Usage
	began := time.Now()
	for round := 0; time.Since(began) < length || len(samples) < 12; round++ {
		switch round % 4 {
		case 0:
			s.near.Kill()
			s.Wants("the other candidate", s.api(s.far))
		case 1:
			s.near.Start()
			s.Wants("the nearer candidate", s.api(s.near))
		case 2:
			if out, code := s.Verb("reload"); code != 0 {
				t.Errorf("reload: %s", out)
			}
		case 3:
			if out, code := s.Verb("set", "static.example", "up", "-for", "1m"); code != 0 {
				t.Errorf("set: %s", out)
			}
		}
		time.Sleep(every / 4) // the soak's pace
		samples = append(samples, s.Usage())
	}
	a.Clean()
	part := len(samples) / 4
	first, last := middle(samples[part:2*part]), middle(samples[len(samples)-part:])
	t.Logf("%v, %d samples", time.Since(began).Round(time.Second), len(samples))
	t.Logf("second quarter, medians: %v", first)
	t.Logf("last quarter, medians: %v", last)
	if last.Goroutines > first.Goroutines+10 {
		t.Error("goroutines grow")
	}
	// Before that the sockets towards upstreams, hundreds that are kept for 20 s, may be growing to their number.
	if length > time.Minute && last.Descriptors > first.Descriptors+100 {
		t.Error("descriptors grow")
	}
	if last.AnonKiB > first.AnonKiB+first.AnonKiB/4+8<<10 {
		t.Errorf("memory grows: %d KiB, then %d", first.AnonKiB, last.AnonKiB)
	}
	s.Settles(idle)
	if length > time.Minute {
		s.SettlesFully(idle)
		t.Logf("idle before: %v", idle)
		t.Logf("idle afterwards: %v", s.Usage())
	}
	s.Store("ok")
	if st := s.Status().Store; st.Dropped["probe"] > 0 || st.WriteErrors > 0 {
		t.Errorf("%+v", st)
	}
	faulty.Intact(t, s.DB)
	if n := fmt.Sprint(s.Metric("hard_panics_total")); n != "0" {
		t.Errorf("%s panics", n)
	}
}

// middle has the median of each number.
func middle(list []faulty.Usage) (u faulty.Usage) {
	of := func(get func(*faulty.Usage) *int) {
		var v []int
		for i := range list {
			v = append(v, *get(&list[i]))
		}
		slices.Sort(v)
		*get(&u) = v[len(v)/2]
	}
	of(func(u *faulty.Usage) *int { return &u.Descriptors })
	of(func(u *faulty.Usage) *int { return &u.Threads })
	of(func(u *faulty.Usage) *int { return &u.ResidentKiB })
	of(func(u *faulty.Usage) *int { return &u.AnonKiB })
	of(func(u *faulty.Usage) *int { return &u.Goroutines })
	return u
}
