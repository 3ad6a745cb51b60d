package prober

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hard/internal/rank"
)

// Single troubles on the model network, with exact demands; TestAnswerQuality has whole hours.

// TestHalfDead: half of all sites fall silent at once while the others answer. That is no fault of
// our own network, and every name fails over within the bounds of detection.
func TestHalfDead(t *testing.T) {
	dead := []netip.Addr{siteAddr(0, 0), siteAddr(0, 1), siteAddr(1, 0), siteAddr(2, 0)}
	script := []trouble{{from: time.Minute, to: 3 * time.Minute, what: silent, hits: dead}}
	w, r, c := play(t, script, 1, 2*time.Minute, "")
	for i := range c.Names {
		n := &c.Names[i]
		s := w.judge(qualityNames()[n.Name], r.answers[n.Name], 2*time.Minute, n.Policy)
		if n.Name == "each.example" { // all of its sites are dead: on_all_down
			continue
		}
		if _, worst, _, _ := s.spells(silent); worst > silentWorst+100*time.Millisecond {
			t.Errorf("%s: a dead address was answered for %v", n.Name, worst)
		}
		last := r.answers[n.Name][len(r.answers[n.Name])-1]
		if w.at(last.at, last.addr).dead {
			t.Errorf("%s: still answers %v, which is dead", n.Name, last.addr)
		}
	}
	wantEvents(t, r, "all_down", "each.example")
	wantEvents(t, r, "guard")
}

// TestAllRefuse: all candidates of one name refuse while the others are well. on_all_down is
// applied to that name, and to no other.
func TestAllRefuse(t *testing.T) {
	for _, kind := range []effect{refuses, hangs} {
		script := []trouble{{from: time.Minute, to: 3 * time.Minute, what: kind, hits: qualityNames()["pair.example"]}}
		_, r, _ := play(t, script, 1, 2*time.Minute, "on_all_down = \"servfail\"\n")
		wantEvents(t, r, "all_down", "pair.example")
		wantEvents(t, r, "guard")
		list := r.answers["pair.example"]
		if last := list[len(list)-1]; last.addr.IsValid() || last.at > time.Minute+silentWorst+100*time.Millisecond {
			t.Errorf("%v: not all_down in time: %v", kind, list)
		}
		if list := r.answers["all.example"]; len(list) != 1 {
			t.Errorf("another name's answer changed: %v", list)
		}
	}
}

// TestSilentDeathTakesTwoTimeouts: with the default fall = 2, the local-fault guard must not make
// a real death wait for a third timeout.
func TestSilentDeathTakesTwoTimeouts(t *testing.T) {
	for _, kind := range []effect{hangs, silent} {
		w, r, _ := play(t, []trouble{{from: time.Minute, to: time.Hour, what: kind, hits: []netip.Addr{siteAddr(0, 0)}}}, 1, 90*time.Second, "")
		timeouts := 0
		for _, s := range r.samples {
			if s.Key == (rank.Key{Name: "all.example", Candidate: siteAddr(0, 0).String(), Addr: siteAddr(0, 0)}) && s.Outcome == rank.Timeout {
				timeouts++
				if list := r.answers["all.example"]; timeouts == 2 && list[len(list)-1].at > s.End().Sub(w.begin)+time.Millisecond {
					t.Errorf("%v: the second timeout ended at %v, the answer changed at %v", kind, s.End().Sub(w.begin), list[len(list)-1].at)
				}
			}
		}
		if timeouts < 2 {
			t.Errorf("only %d timeouts", timeouts)
		}
	}
}

// TestDeathsInCompany: two near sites die and come back 174 times, while probes of all others run now and then. Those prove nothing
// of what came after they began, so a proof must be sought until it is there: else one death in seventy took a third timeout or more.
func TestDeathsInCompany(t *testing.T) {
	deaths, late := 0, 0
	for seed := range uint64(2) {
		var script []trouble
		rng := rand.New(rand.NewPCG(seed, 8))
		for from := time.Minute; from < 59*time.Minute; from += 40 * time.Second {
			at := from + between(rng, 0, 4*time.Second)
			script = append(script, trouble{from: at, to: at + 8*time.Second, what: silent, hits: region(0)})
		}
		w, r, c := play(t, script, seed, time.Hour, "")
		for i := range c.Names {
			n := &c.Names[i]
			s := w.judge(qualityNames()[n.Name], r.answers[n.Name], time.Hour, n.Policy)
			for _, d := range s.deadFor[silent] {
				deaths++
				if d > silentWorst+100*time.Millisecond {
					late++
				}
			}
		}
	}
	t.Logf("%d deaths of answers, %d of them seen late", deaths, late)
	if deaths < 300 || late > 2 { // one that is late is so for two names
		t.Errorf("%d deaths of answers, %d of them seen late", deaths, late)
	}
}

// TestBackOffDoubles: the whole way from the policy to the probes. From the down verdict on, the gaps between the
// starts of an endpoint's probes double from interval to backoff_max, within the jitter.
func TestBackOffDoubles(t *testing.T) {
	const down = 20 * time.Second
	w, r, _ := play(t, []trouble{{from: down, to: time.Hour, what: refuses, hits: []netip.Addr{siteAddr(1, 0)}}}, 1, 3*time.Minute, "")
	var gaps []float64 // in seconds, without those of fast_interval, before the verdict
	var last time.Duration
	for _, s := range r.samples {
		if at := s.At.Sub(w.begin); s.Key.Name == "pair.example" && s.Key.Addr == siteAddr(1, 0) && at > down {
			if gap := (at - last).Seconds(); last > 0 && (len(gaps) > 0 || gap > 1) {
				gaps = append(gaps, gap)
			}
			last = at
		}
	}
	want := []float64{2, 4, 8, 16, 30, 30, 30}
	if len(gaps) < len(want) {
		t.Fatalf("only %d probes: %v", len(gaps), gaps)
	}
	for i, w := range want {
		if g := gaps[i]; g < 0.85*w || g > 1.15*w {
			t.Errorf("gap %d is %v s, want about %v s: %v", i, g, w, gaps)
		}
	}
}

// TestOwnCutIsSeen: a minute without our own network is declared and ended; nothing else happens.
func TestOwnCutIsSeen(t *testing.T) {
	for _, kind := range []effect{cut, unreachable} {
		script := []trouble{{from: time.Minute, to: 2 * time.Minute, what: kind}}
		w, r, _ := play(t, script, 1, 3*time.Minute, "")
		var phases []string
		for _, e := range r.events {
			switch at := e.At.Sub(w.begin); {
			case e.Kind == "guard":
				phases = append(phases, e.New)
				if e.New == "fault" && at > time.Minute+2*silentWorst || e.New == "calm" && at > 2*time.Minute+silentWorst {
					t.Errorf("%v only at %v", e.New, at)
				}
			case at > time.Minute-time.Second:
				t.Errorf("at %v: %+v", at, e)
			}
		}
		if strings.Join(phases, " ") != "fault calm" {
			t.Errorf("the guard: %v", phases)
		}
		for name, list := range r.answers {
			if len(list) != 1 {
				t.Errorf("%s: the answer changed: %v", name, list)
			}
		}
	}
}

// wantEvents sees that there are events of a kind for just these names.
func wantEvents(t *testing.T, r *result, kind string, names ...string) {
	t.Helper()
	got := map[string]bool{}
	for _, e := range r.events {
		if e.Kind == kind {
			got[e.Key.Name] = true
		}
	}
	for _, n := range names {
		if !got[n] {
			t.Errorf("no %s event for %s", kind, n)
		}
		delete(got, n)
	}
	if len(got) > 0 {
		t.Errorf("%s events that should not be: %v", kind, got)
	}
}
