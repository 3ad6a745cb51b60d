package rank

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"
)

var testKey = Key{Name: "test.example", Candidate: "a", Addr: netip.MustParseAddr("192.0.2.1")}

// run feeds outcomes, one a second, and returns the state after each: "u" unknown, "h", "d" down.
func run(h *Health, pace *Pace, outcomes string) string {
	var out strings.Builder
	for i, word := range strings.Fields(outcomes) {
		o, err := ParseOutcome(word)
		if err != nil {
			panic(err)
		}
		Step(h, pace, probe(testKey, at(float64(i)), o, msec), nil)
		out.WriteByte("uhd"[h.State])
	}
	return out.String()
}

func TestRiseAndFall(t *testing.T) {
	tests := []struct {
		rule       string
		rise, fall int
		outcomes   string
		want       string
	}{
		{"the first result ever decides alone: up", 2, 2, "ok", "h"},
		{"the first result ever decides alone: down", 2, 2, "refused", "d"},
		{"fall failures in a row", 2, 3, "ok timeout refused ok reset tls status", "hhhhhhd"},
		{"fall = 1", 2, 1, "ok body", "hd"},
		{"rise successes in a row", 3, 2, "dns ok ok protocol ok ok ok", "ddddddh"},
		{"rise = 1", 1, 2, "dns ok", "dh"},
		{"aborted is not counted", 2, 2, "aborted ok aborted timeout aborted timeout", "uhhhhd"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var h Health
			p := defaultPace()
			p.Rise, p.Fall = tt.rise, tt.fall
			if got := run(&h, p, tt.outcomes); got != tt.want {
				t.Errorf("states %s, want %s", got, tt.want)
			}
		})
	}
}

func TestNotCounted(t *testing.T) {
	for what, spoil := range map[string]func(*Sample){
		"delayed": func(s *Sample) { s.Delayed = true },
		"a try":   func(s *Sample) { s.Final = false },
		"aborted": func(s *Sample) { s.Outcome = Aborted },
	} {
		h := Health{}
		run(&h, defaultPace(), "ok timeout")
		before := h
		s := probe(testKey, at(3), Refused, msec)
		spoil(s)
		if c := Step(&h, defaultPace(), s, nil); c.Changed() || h != before {
			t.Errorf("%s: counted: %+v", what, h)
		}
		s.Outcome = OK
		if spoil(s); Step(&h, defaultPace(), s, nil).Changed() || h != before {
			t.Errorf("%s success: counted: %+v", what, h)
		}
	}
}

func TestChangeTells(t *testing.T) {
	var h Health
	p := defaultPace()
	c := Step(&h, p, probe(testKey, at(0), OK, msec), nil)
	if c.Old != Unknown || c.New != Healthy || c.Reason != "first result: ok" || !h.Since.Equal(at(0)) {
		t.Errorf("%+v, since %v", c, h.Since)
	}
	s := probe(testKey, at(2), Timeout, time.Second)
	s.Detail = "no answer within 1 s"
	if c = Step(&h, p, s, nil); c.Changed() || c.Reason != "" {
		t.Errorf("first miss: %+v", c)
	}
	if !h.FirstMiss.Equal(at(2)) || !h.Soft {
		t.Errorf("first miss at %v, soft %v", h.FirstMiss, h.Soft)
	}
	s.At = at(3)
	c = Step(&h, p, s, nil)
	if c.New != Unhealthy || c.Reason != "2 failures in a row, the last: timeout: no answer within 1 s" {
		t.Errorf("%+v", c)
	}
	if !h.Since.Equal(at(4)) {
		t.Errorf("since %v", h.Since)
	}
}

func TestWarm(t *testing.T) {
	var h Health
	p := defaultPace()
	run(&h, p, "ok ok timeout")
	raw, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	var back Health
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if back != h {
		t.Fatalf("through JSON %+v became %+v", h, back)
	}
	back.Restored()
	if !back.Warm || back.State != Healthy || back.Latency(LatencyTotal) != h.Latency(LatencyTotal) {
		t.Fatalf("restored: %+v", back)
	}
	// A restored state is a known one: fall applies to it, and the old miss does not count.
	if got := run(&back, p, "timeout timeout"); got != "hd" {
		t.Errorf("states %s, want hd", got)
	}
	if back.Warm {
		t.Error("still warm after results of this run")
	}
	var fresh Health
	if fresh.Restored(); fresh.Warm {
		t.Error("an unknown state is called warm")
	}
	if got := run(&fresh, p, "timeout"); got != "d" {
		t.Errorf("first result ever: %s, want d", got)
	}
}

func TestHealthIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Health{}); size > 256 {
		t.Errorf("Health takes %d bytes", size)
	}
}

// estimate feeds latencies (ms) at an interval and returns the estimate after each.
func estimate(every time.Duration, values ...float64) []float64 {
	var h Health
	var out []float64
	for i, v := range values {
		s := probe(testKey, epoch.Add(time.Duration(i)*every), OK, time.Duration(v*float64(msec)))
		Step(&h, defaultPace(), s, nil)
		out = append(out, float64(h.Latency(LatencyTotal))/float64(msec))
	}
	return out
}

func repeat(v float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func TestLatencyEstimate(t *testing.T) {
	t.Run("the first ones count in full", func(t *testing.T) {
		if got := fmt.Sprint(estimate(time.Second, 100, 3, 4)); got != "[100 3 4]" {
			t.Error(got)
		}
		if got := fmt.Sprint(estimate(time.Second, 3, 100)); got != "[3 3]" {
			t.Error(got)
		}
	})
	t.Run("a single spike changes nothing", func(t *testing.T) {
		got := estimate(2*time.Second, append(repeat(10, 10), 5000, 10, 10, 10)...)
		for _, v := range got {
			if v != 10 {
				t.Fatalf("%v", got)
			}
		}
	})
	t.Run("a step is followed in two half-lives", func(t *testing.T) {
		const steps = 10 // 20 s at 2 s
		got := estimate(2*time.Second, append(repeat(10, 10), repeat(50, steps+1)...)...)
		if end := got[len(got)-1]; end < 10+40*0.7 {
			t.Errorf("after 20 s: %.1f ms", end)
		}
	})
	t.Run("half-life of 10 s", func(t *testing.T) {
		// The median sees the step at the second probe; five more at 2 s are one half-life.
		got := estimate(2*time.Second, append(repeat(10, 10), repeat(50, 6)...)...)
		if end := got[len(got)-1]; math.Abs(end-30) > 0.5 {
			t.Errorf("after one half-life: %.2f ms, want 30", end)
		}
	})
	t.Run("weights are bounded", func(t *testing.T) {
		for every, want := range map[time.Duration]float64{10 * msec: 0.05, time.Minute: 0.3} {
			got := estimate(every, append(repeat(10, 10), 50, 50)...)
			if end := got[len(got)-1]; math.Abs(end-(10+40*want)) > 1e-3 {
				t.Errorf("every %v: %.3f ms", every, end)
			}
		}
	})
}

func TestOnlySuccessesAreAveraged(t *testing.T) {
	var h Health
	for i, o := range []Outcome{OK, OK, OK, Timeout, OK} {
		took := 10 * msec
		if o != OK {
			took = time.Second
		}
		Step(&h, defaultPace(), probe(testKey, at(float64(i)), o, took), nil)
	}
	if h.Latency(LatencyTotal) != 10*msec || h.Latency(LatencyConnect) != 5*msec {
		t.Errorf("%+v", h.Latencies)
	}
}

func TestEstimateStartsAfreshAfterUnhealthy(t *testing.T) {
	var h Health
	for i := range 10 {
		Step(&h, defaultPace(), probe(testKey, at(float64(i)), OK, 500*msec), nil)
	}
	for i := range 2 {
		Step(&h, defaultPace(), probe(testKey, at(float64(10+i)), Refused, msec), nil)
	}
	if h.State != Unhealthy || h.Latency(LatencyTotal) != 500*msec {
		t.Fatalf("%+v", h)
	}
	Step(&h, defaultPace(), probe(testKey, at(13), OK, 9*msec), nil)
	Step(&h, defaultPace(), probe(testKey, at(14), OK, 7*msec), nil)
	if h.State != Healthy || h.Latency(LatencyTotal) != 7*msec {
		t.Errorf("%v, %v", h.State, h.Latency(LatencyTotal))
	}
}

func TestPhaseThatACheckLacksIsTheTotal(t *testing.T) {
	var h Health
	Step(&h, defaultPace(), &Sample{Key: testKey, At: at(0), Final: true, Phases: Phases{Total: 7 * msec}}, nil)
	for m := range h.Latencies.Modes {
		if h.Latency(LatencyMode(m)) != 7*msec {
			t.Errorf("%v: %v", LatencyMode(m), h.Latency(LatencyMode(m)))
		}
	}
	var static Health
	Step(&static, defaultPace(), &Sample{Key: testKey, At: at(0), Final: true}, nil)
	if static.State != Healthy || static.Latency(LatencyTotal) != 0 {
		t.Errorf("static: %+v", static)
	}
}

func TestInterval(t *testing.T) {
	p := defaultPace()
	active := PaceContext{NameHasEligible: true}
	tests := []struct {
		rule     string
		outcomes string
		ctx      PaceContext
		want     time.Duration
	}{
		{"unknown: fast", "", active, 250 * msec},
		{"steady", "ok", active, 2 * time.Second},
		{"between the first miss and fall: fast", "ok timeout", active, 250 * msec},
		{"down at the verdict: interval", "ok timeout timeout", active, 2 * time.Second},
		{"down: doubles", "ok timeout timeout timeout", active, 4 * time.Second},
		{"down: doubles with every failure", "refused" + strings.Repeat(" refused", 3), active, 16 * time.Second},
		{"down: up to backoff_max", "refused" + strings.Repeat(" refused", 4), active, 30 * time.Second},
		{"down: at backoff_max for ever", "refused" + strings.Repeat(" refused", 400), active, 30 * time.Second},
		{"between the first success and rise: fast", "ok timeout timeout timeout ok", active, 250 * msec},
		{"a success ends the back-off", "refused" + strings.Repeat(" refused", 40) + " ok refused", active, 2 * time.Second},
		{"no back-off while nothing is eligible", "refused" + strings.Repeat(" refused", 40), PaceContext{}, 2 * time.Second},
		{"idle", "ok", PaceContext{NameHasEligible: true, Idle: true}, 30 * time.Second},
		{"idle and a verdict pending: fast", "ok timeout", PaceContext{NameHasEligible: true, Idle: true}, 250 * msec},
		{"idle and all down: idle", "refused", PaceContext{Idle: true}, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			var h Health
			run(&h, p, tt.outcomes)
			if got := Interval(p, &h, tt.ctx); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	short := *p
	short.BackoffMax = time.Second // below interval
	h := Health{State: Unhealthy, Backoff: 9}
	if got := Interval(&short, &h, active); got != 2*time.Second {
		t.Errorf("backoff_max below interval: %v", got)
	}
}

func TestWords(t *testing.T) {
	for o := OK; o <= Aborted; o++ {
		if back, err := ParseOutcome(o.String()); err != nil || back != o {
			t.Errorf("%v: %v, %v", o, back, err)
		}
	}
	for _, soft := range []Outcome{Timeout, Unreachable, DNS} {
		if !soft.Soft() || soft.Proof() {
			t.Errorf("%v is not soft", soft)
		}
	}
	for _, hard := range []Outcome{OK, Refused, Reset, TLS, Status, Body, Protocol} {
		if hard.Soft() || !hard.Proof() {
			t.Errorf("%v is no proof", hard)
		}
	}
	if Aborted.Soft() || Aborted.Proof() {
		t.Error("aborted proves nothing and misses nothing")
	}
	for text, got := range map[string]string{
		"healthy": Healthy.String(), "drain": Drain.String(), "AAAA": V6.String(), "first_byte": LatencyFirstByte.String(),
		"group": Group.String(), "last_good": LastGood.String(), "nodata": NoData.String(), "not_ready": NotReady.String(),
	} {
		if text != got {
			t.Errorf("%q, want %q", got, text)
		}
	}
	if _, err := ParseState("well"); err == nil || err.Error() != `unknown state "well"` {
		t.Errorf("%v", err)
	}
	var s State
	if err := json.Unmarshal([]byte(`"unhealthy"`), &s); err != nil || s != Unhealthy {
		t.Errorf("%v, %v", s, err)
	}
	if got := State(200).String(); got != "200" {
		t.Errorf("%q", got)
	}
}

func TestMS(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 61 * time.Microsecond: "0.061 ms", 3100 * time.Microsecond: "3.1 ms", 10 * msec: "10 ms", 123456 * time.Microsecond: "123 ms",
		10 * time.Second: "10 s", 1500 * msec: "1.5 s", time.Hour: "1h0m0s", -2 * msec: "-2 ms",
	} {
		if got := ms(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
