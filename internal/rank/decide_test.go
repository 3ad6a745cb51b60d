package rank

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestNoEndpointIsNotReady(t *testing.T) {
	n := newName(t, defaults())
	n.want(0, "not_ready")
	n.want6("not_ready")
	if n.last.AllDown {
		t.Error("a name without addresses counts as all down")
	}
}

func TestLastGoodOutlivesARestart(t *testing.T) {
	n := newName(t, defaults(), "10.0.0.1 healthy 5ms", "10.0.0.2 healthy 6ms")
	n.want(0, "normal 10.0.0.1")
	raw, err := json.Marshal(n.memory)
	if err != nil {
		t.Fatal(err)
	}
	n.memory = Memory{}
	if err := json.Unmarshal(raw, &n.memory); err != nil {
		t.Fatal(err)
	}
	n.set("10.0.0.1 unhealthy")
	n.set("10.0.0.2 unhealthy")
	n.want(1, "stale 10.0.0.1")
}

func TestMemoryThroughJSON(t *testing.T) {
	p := defaults()
	p.MaxLatency, p.MaxAnswers = time.Second, 2
	n := newName(t, p, "10.0.0.1 healthy 50ms tier=1", "10.0.0.2 healthy 60ms tier=1", "10.0.0.3 healthy 70ms tier=1",
		"10.0.0.4 unhealthy 1ms", "fd00::1 healthy 1ms tier=1")
	n.decide(0)
	n.set("10.0.0.3 5ms")
	n.set("10.0.0.4 healthy")
	n.decide(1)
	raw, err := json.Marshal(n.memory)
	if err != nil {
		t.Fatal(err)
	}
	var back Memory
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	m := &n.memory.Families[V4]
	if len(m.Tiers) == 0 || len(m.Faster) == 0 || len(m.Nearer) == 0 || len(n.memory.Within) == 0 {
		t.Fatalf("the memory does not have everything in it: %s", raw)
	}
	if !back.Equal(&n.memory) {
		t.Errorf("went in as %+v, came back as %+v", n.memory, back)
	}
	back.Families[V4].Faster[0].Since = at(2)
	if back.Equal(&n.memory) {
		t.Error("Equal does not see a different time")
	}
}

// A clock that was set back must not make a hold last for ever.
func TestRememberedFutureCountsAsNow(t *testing.T) {
	n := newName(t, defaults(), "10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms")
	n.want(1000, "normal 10.0.0.1")
	n.set("10.0.0.2 10ms")
	n.want(1001, "normal 10.0.0.1")
	n.want(5, "normal 10.0.0.1")
	n.want(14.9, "normal 10.0.0.1")
	n.want(15, "normal 10.0.0.2")

	n = newName(t, defaults(), "10.0.0.1 unhealthy", "10.0.0.2 healthy 60ms tier=1")
	n.want(1000, "normal 10.0.0.2")
	n.set("10.0.0.1 healthy 5ms")
	n.want(1001, "normal 10.0.0.2")
	n.want(5, "normal 10.0.0.2")
	n.want(15, "normal 10.0.0.1")
}

func TestReasons(t *testing.T) {
	p := defaults()
	p.MaxLatency = 500 * msec
	n := newName(t, p,
		"10.0.0.1 healthy 3100us", "10.0.0.2 healthy 2ms", "10.0.0.3 healthy 40ms", "10.0.0.4 healthy 2ms tier=1",
		"10.0.0.5 unhealthy", "10.0.0.6 drain", "10.0.0.7 healthy weight=0", "10.0.0.8 unknown", "10.0.0.9 down",
		"10.0.0.10 healthy 900ms", "10.0.0.11 up", "10.0.0.12 unhealthy 100us", "fd00::1 unhealthy")
	*n.endpoint("10.0.0.5").Health = Health{State: Unhealthy, Last: Timeout, Misses: 2, Since: at(-3)}
	n.set("10.0.0.2 drain") // or it would be selected, at 2 ms
	n.decide(0)
	n.set("10.0.0.2 auto")
	n.set("10.0.0.12 healthy")
	n.memory.Settles = time.Time{} // the unknown one must not open the way for challengers here
	n.decide(1)
	want := map[string]string{
		"10.0.0.1":  "healthy, 3.1 ms, tier 0: selected (best)",
		"10.0.0.2":  "healthy, 2 ms, tier 0: 1.1 ms faster than the incumbent, less than switch_min 2 ms",
		"10.0.0.3":  "healthy, 40 ms, tier 0: not faster than the incumbent, 3.1 ms",
		"10.0.0.4":  "healthy, 2 ms, tier 1: not needed, tier 0 has an eligible endpoint",
		"10.0.0.5":  "unhealthy since 2026-11-20T11:59:57.000Z: 2 failures in a row, the last: timeout",
		"10.0.0.6":  "drained by operator",
		"10.0.0.7":  "weight 0: never selected",
		"10.0.0.8":  "unknown: no verdict yet",
		"10.0.0.9":  "forced down by operator",
		"10.0.0.10": "healthy, 900 ms, tier 0: above max_latency 500 ms",
		"10.0.0.11": "forced up by operator, tier 0: no latency to rank it by",
		"10.0.0.12": "healthy, 0.1 ms, tier 0: 3 ms faster than the incumbent since 2026-11-20T12:00:01.000Z, takes over after hold 10 s",
	}
	for i, v := range n.last.Endpoints {
		label := n.eps[i].Key.Candidate
		if w := want[label]; w != "" && v.Reason.String() != w {
			t.Errorf("%s:\n got %q\nwant %q", label, v.Reason, w)
		}
	}
	if got := n.last.Answers[V6].Reason.String(); !strings.Contains(got, "no eligible endpoint of this family") {
		t.Errorf("AAAA: %q", got)
	}
	raw, err := json.Marshal(n.last.Endpoints[0].Reason)
	if err != nil || string(raw) != `"healthy, 3.1 ms, tier 0: selected (best)"` {
		t.Errorf("as JSON: %s, %v", raw, err)
	}
	var back Reason
	if err := json.Unmarshal(raw, &back); err != nil || back.String() != want["10.0.0.1"] {
		t.Errorf("back from JSON: %q, %v", back, err)
	}
}

func TestAnswerReasonsTellTheChange(t *testing.T) {
	n := newName(t, defaults(), "10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms", "10.0.0.3 healthy 1ms tier=1")
	reason := func(want string) {
		t.Helper()
		if got := n.last.Answers[V4].Reason.String(); got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
	}
	n.decide(0)
	reason("best of tier 0, 50 ms")
	n.set("10.0.0.2 10ms")
	n.decide(1)
	reason("tier 0: the incumbent stays, 50 ms")
	n.decide(11)
	reason("10 ms against 50 ms of 10.0.0.1 since 2026-11-20T12:00:01.000Z: took over after hold 10 s")
	n.set("10.0.0.2 unhealthy")
	n.decide(12)
	reason("10.0.0.2 is not eligible any more; best of tier 0, 50 ms")
	n.set("10.0.0.1 unhealthy")
	n.decide(13)
	reason("tier 1: tier 0 has no eligible endpoint")
	n.set("10.0.0.1 healthy")
	n.decide(14)
	if got, want := n.last.Endpoints[0].Reason.String(), "healthy, 50 ms, tier 0: tier 0 waits since 2026-11-20T12:00:14.000Z, takes over from tier 1 after hold 10 s"; got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	n.decide(24)
	reason("tier 0 took over from tier 1")
	for _, l := range []string{"10.0.0.1 unhealthy", "10.0.0.3 unhealthy"} {
		n.set(l)
	}
	n.decide(25)
	reason("no eligible endpoint: on_all_down = last_good")
	n.set("10.0.0.1 healthy")
	n.p.MinHealthy = 2
	n.decide(26)
	reason("1 healthy, less than min_healthy 2: on_all_down = last_good")
	if got, want := n.last.Endpoints[0].Reason.String(), "healthy, 50 ms, tier 0: too few are healthy; selected by on_all_down = last_good"; got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestRanks(t *testing.T) {
	n := newName(t, defaults(), "10.0.0.1 healthy 50ms", "10.0.0.2 healthy 10ms", "10.0.0.3 healthy 1ms tier=1",
		"10.0.0.4 healthy 2ms tier=1", "10.0.0.5 unhealthy", "fd00::1 healthy 9ms")
	n.decide(0)
	n.set("10.0.0.1 1ms") // a challenger ranks behind the incumbent until it takes over
	n.decide(1)
	var got []int
	for _, v := range n.last.Endpoints {
		got = append(got, v.Rank)
	}
	if want := []int{2, 1, 3, 4, 0, 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("ranks are %v, want %v", got, want)
	}
}

func TestLatencyMode(t *testing.T) {
	p := defaults()
	n := newName(t, p, "10.0.0.1 healthy", "10.0.0.2 healthy")
	set := func(i int, total, connect, first time.Duration) {
		m := &n.eps[i].Health.Latencies.Modes
		m[LatencyTotal].Value, m[LatencyConnect].Value, m[LatencyFirstByte].Value = total, connect, first
	}
	set(0, 50*msec, 5*msec, 40*msec)
	set(1, 60*msec, 9*msec, 30*msec)
	for mode, want := range []string{"normal 10.0.0.1", "normal 10.0.0.1", "normal 10.0.0.2"} {
		p.Latency = LatencyMode(mode)
		n.memory = Memory{}
		n.want(0, want)
	}
}
