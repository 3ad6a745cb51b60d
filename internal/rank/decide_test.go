package rank

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// step is one moment of a story: changes, then what is answered.
type step struct {
	at   float64
	set  string // changes, separated by ";"
	a    string
	aaaa string // "" = not looked at
}

type story struct {
	rule   string // the sentence of the contract, section 5
	policy func(*Policy)
	eps    []string
	steps  []step
}

var stories = []story{
	{
		rule: "1: down and drain are never selected",
		eps:  []string{"10.0.0.1 healthy 1ms down", "10.0.0.2 healthy 2ms drain", "10.0.0.3 healthy 30ms"},
		steps: []step{
			{0, "", "normal 10.0.0.3", ""},
			{1, "10.0.0.2 auto; 10.0.0.3 drain", "normal 10.0.0.2", ""},
		},
	},
	{
		rule:  "1: up counts as healthy; one without a latency ranks last",
		eps:   []string{"10.0.0.1 unknown up", "10.0.0.2 healthy 90ms"},
		steps: []step{{0, "", "normal 10.0.0.2", ""}, {1, "10.0.0.2 unhealthy", "normal 10.0.0.1", ""}},
	},
	{
		rule:  "2: weight above 0",
		eps:   []string{"10.0.0.1 healthy 1ms weight=0", "10.0.0.2 healthy 9ms"},
		steps: []step{{0, "", "normal 10.0.0.2", ""}, {1, "10.0.0.2 unhealthy", "stale 10.0.0.2", ""}},
	},
	{
		rule:   "2: latency at most max_latency, but it never empties a name",
		policy: func(p *Policy) { p.MaxLatency = 100 * msec },
		eps:    []string{"10.0.0.1 healthy 150ms tier=0", "10.0.0.2 healthy 20ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.2", ""},
			{1, "10.0.0.2 unhealthy", "normal 10.0.0.1", ""},
		},
	},
	{
		rule:   "2: once in, out only beyond max_latency x (1 + switch_ratio)",
		policy: func(p *Policy) { p.MaxLatency = 100 * msec; p.Hold = 0 },
		eps:    []string{"10.0.0.1 healthy 100ms", "10.0.0.2 healthy 20ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.1 119ms", "normal 10.0.0.1", ""},
			{2, "10.0.0.1 121ms", "normal 10.0.0.2", ""},
			{3, "10.0.0.1 119ms", "normal 10.0.0.2", ""},
			{4, "10.0.0.1 100ms", "normal 10.0.0.1", ""},
		},
	},
	{
		rule:   "2: so too for the group",
		policy: func(p *Policy) { p.Select = Group },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 15ms", "10.0.0.3 healthy 16ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1 10.0.0.2", ""},
			{1, "10.0.0.2 17ms", "normal 10.0.0.1 10.0.0.2", ""},
			{2, "10.0.0.2 18ms", "normal 10.0.0.1", ""},
			{3, "10.0.0.2 17ms", "normal 10.0.0.1", ""},
			{4, "10.0.0.2 15ms; 10.0.0.3 14ms", "normal 10.0.0.1 10.0.0.2 10.0.0.3", ""},
		},
	},
	{
		rule: "3: the lowest tier that has an eligible endpoint, however slow",
		eps:  []string{"10.0.0.1 healthy 1ms tier=2", "10.0.0.2 healthy 200ms tier=1", "10.0.0.3 unhealthy tier=0"},
		steps: []step{
			{0, "", "normal 10.0.0.2", ""},
			{1, "10.0.0.2 unhealthy", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "3: a lower tier that comes back takes over after being eligible for hold",
		eps:  []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.1 unhealthy", "normal 10.0.0.2", ""},
			{5, "10.0.0.1 healthy", "normal 10.0.0.2", ""},
			{14.999, "", "normal 10.0.0.2", ""},
			{15, "", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "3: the wait for hold starts anew when the lower tier fails in between",
		eps:  []string{"10.0.0.1 unhealthy 5ms", "10.0.0.2 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.2", ""},
			{1, "10.0.0.1 healthy", "normal 10.0.0.2", ""},
			{10, "10.0.0.1 unhealthy", "normal 10.0.0.2", ""},
			{10.5, "10.0.0.1 healthy", "normal 10.0.0.2", ""},
			{20.4, "", "normal 10.0.0.2", ""},
			{20.5, "", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "3: ... at once if nothing else is eligible",
		eps:  []string{"10.0.0.1 unhealthy 5ms", "10.0.0.2 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.2", ""},
			{5, "10.0.0.1 healthy", "normal 10.0.0.2", ""},
			{6, "10.0.0.2 unhealthy", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "3: together: the lowest tier with one of either family; a family with none there: NODATA",
		eps:  []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 5ms", "fd00::2 healthy 5ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
			{2, "10.0.0.1 unhealthy", "nodata", "normal fd00::2"},
		},
	},
	{
		rule:   "3: apart: each family by itself",
		policy: func(p *Policy) { p.Apart = true },
		eps:    []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 5ms", "fd00::2 healthy 5ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "fd00::1 unhealthy", "normal 10.0.0.1", "normal fd00::2"},
			{2, "fd00::2 unhealthy", "normal 10.0.0.1", "nodata"},
			{3, "fd00::1 healthy; 10.0.0.1 unhealthy", "nodata", "normal fd00::1"},
		},
	},
	{
		rule:  "3: a name with one family only answers NODATA for the other",
		eps:   []string{"10.0.0.1 healthy 5ms"},
		steps: []step{{0, "", "normal 10.0.0.1", "nodata"}},
	},
	{
		rule: "4: best: a challenger takes over after being faster by both margins for hold, not before",
		eps:  []string{"10.0.0.1 healthy 10ms", "10.0.0.2 healthy 20ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{100, "10.0.0.2 5ms", "normal 10.0.0.1", ""},
			{109.999, "", "normal 10.0.0.1", ""},
			{110, "", "normal 10.0.0.2", ""},
		},
	},
	{
		rule: "4: ... continuously",
		eps:  []string{"10.0.0.1 healthy 10ms", "10.0.0.2 healthy 5ms"},
		steps: []step{
			{0, "10.0.0.2 20ms", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 5ms", "normal 10.0.0.1", ""},
			{9, "10.0.0.2 9ms", "normal 10.0.0.1", ""},
			{10, "10.0.0.2 5ms", "normal 10.0.0.1", ""},
			{19, "", "normal 10.0.0.1", ""},
			{20, "", "normal 10.0.0.2", ""},
		},
	},
	{
		rule: "4: by switch_ratio and switch_min, both",
		eps:  []string{"10.0.0.1 healthy 100ms", "10.0.0.2 healthy 200ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 81ms", "normal 10.0.0.1", ""},                  // 19 ms, but 19 % only
			{60, "", "normal 10.0.0.1", ""},                              //
			{61, "10.0.0.1 4ms; 10.0.0.2 2100us", "normal 10.0.0.1", ""}, // 47 %, but 1.9 ms only
			{120, "", "normal 10.0.0.1", ""},
			{121, "10.0.0.2 2ms", "normal 10.0.0.1", ""},
			{131, "", "normal 10.0.0.2", ""},
		},
	},
	{
		rule: "4: an ineligible incumbent goes at once, to the fastest",
		eps:  []string{"10.0.0.1 healthy 10ms", "10.0.0.2 healthy 30ms", "10.0.0.3 healthy 20ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.1 unhealthy", "normal 10.0.0.3", ""},
			{2, "10.0.0.1 healthy", "normal 10.0.0.3", ""},
			{3, "10.0.0.3 drain", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "4: of several challengers each waits out its own hold, the fastest ripe one takes over",
		eps:  []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms", "10.0.0.3 healthy 60ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 20ms", "normal 10.0.0.1", ""},
			{6, "10.0.0.3 10ms", "normal 10.0.0.1", ""},
			{11, "", "normal 10.0.0.2", ""},
			{20.9, "", "normal 10.0.0.2", ""},
			{21, "", "normal 10.0.0.3", ""},
		},
	},
	{
		rule:   "4: max_answers: the best first, then the next by latency, sticky",
		policy: func(p *Policy) { p.MaxAnswers = 2 },
		eps:    []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 30ms", "10.0.0.3 healthy 10ms"},
		steps: []step{
			{0, "", "normal 10.0.0.3 10.0.0.2", ""},
			{1, "10.0.0.1 29ms", "normal 10.0.0.3 10.0.0.2", ""},
			{50, "", "normal 10.0.0.3 10.0.0.2", ""},
			{60, "10.0.0.1 20ms", "normal 10.0.0.3 10.0.0.2", ""},
			{70, "", "normal 10.0.0.3 10.0.0.1", ""},
			{71, "10.0.0.3 unhealthy", "normal 10.0.0.1 10.0.0.2", ""},
			{72, "10.0.0.1 unhealthy", "normal 10.0.0.2", ""},
		},
	},
	{
		rule:   "4: group: all within group_within of the best, weight 0 never",
		policy: func(p *Policy) { p.Select = Group },
		eps:    []string{"10.0.0.1 healthy 12ms", "10.0.0.2 healthy 5ms", "10.0.0.3 healthy 16ms", "10.0.0.4 healthy 6ms weight=0"},
		steps:  []step{{0, "", "normal 10.0.0.1 10.0.0.2", ""}, {1, "10.0.0.2 drain", "normal 10.0.0.1 10.0.0.3", ""}},
	},
	{
		rule: "5: last_good: those last selected while healthy",
		eps:  []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms", "fd00::1 healthy 5ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "nodata"},
			{1, "10.0.0.2 unhealthy; fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
			{2, "10.0.0.1 unhealthy", "stale 10.0.0.1", "nodata"},
			{3, "10.0.0.2 healthy", "normal 10.0.0.2", "nodata"},
			{4, "10.0.0.2 unhealthy", "stale 10.0.0.2", "nodata"},
			{5, "10.0.0.2 gone", "stale_all 10.0.0.1", "stale_all fd00::1"},
		},
	},
	{
		rule:  "5: last_good: if there never were any, all",
		eps:   []string{"10.0.0.1 unhealthy", "10.0.0.2 unhealthy", "10.0.0.3 unhealthy gone", "10.0.0.4 unhealthy weight=0", "10.0.0.5 unhealthy down", "10.0.0.6 healthy drain"},
		steps: []step{{0, "", "stale_all 10.0.0.1 10.0.0.2", "nodata"}},
	},
	{
		rule:   "5: none that may be answered: NODATA",
		policy: func(p *Policy) { p.OnAllDown = All },
		eps:    []string{"10.0.0.1 healthy drain", "10.0.0.2 unhealthy gone"},
		steps:  []step{{0, "", "nodata", "nodata"}},
	},
	{
		rule:   "5: all ignores max_answers",
		policy: func(p *Policy) { p.OnAllDown = All },
		eps:    []string{"10.0.0.1 unhealthy 9ms", "10.0.0.2 unhealthy 5ms tier=1", "fd00::1 unhealthy"},
		steps:  []step{{0, "", "stale_all 10.0.0.1 10.0.0.2", "stale_all fd00::1"}},
	},
	{
		rule:   "5: forward",
		policy: func(p *Policy) { p.OnAllDown = Forward },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "forward", "forward"}},
	},
	{
		rule:   "5: nodata",
		policy: func(p *Policy) { p.OnAllDown = NoData },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "nodata", "nodata"}},
	},
	{
		rule:   "5: servfail",
		policy: func(p *Policy) { p.OnAllDown = ServFail },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "servfail", "servfail"}},
	},
	{
		rule:   "5: fewer than min_healthy counts as all down",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 2, Forward },
		eps:    []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 9ms", "10.0.0.3 healthy drain"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "fd00::1 unhealthy", "forward", "forward"},
			{2, "10.0.0.3 auto", "normal 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "5: last_good: never a dead one while a healthy one exists",
		policy: func(p *Policy) { p.MinHealthy = 2 },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms", "10.0.0.3 healthy 9ms tier=1", "fd00::1 healthy 5ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "10.0.0.2 unhealthy; 10.0.0.3 unhealthy; fd00::1 unhealthy", "stale 10.0.0.1", "nodata"},
			{2, "10.0.0.1 unhealthy; 10.0.0.3 healthy", "stale 10.0.0.3", "nodata"},
			{3, "10.0.0.3 unhealthy; fd00::1 healthy", "nodata", "stale fd00::1"},
			{4, "fd00::1 unhealthy", "stale 10.0.0.1", "stale fd00::1"},
		},
	},
	{
		rule:   "5: all under min_healthy: the healthy first",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 3, All },
		eps:    []string{"10.0.0.1 unhealthy", "10.0.0.2 healthy 9ms", "10.0.0.3 unknown"},
		steps:  []step{{0, "10.0.0.3 unhealthy", "stale_all 10.0.0.2 10.0.0.1 10.0.0.3", ""}},
	},
	{
		rule: "6: before the first verdict a query waits, then all",
		eps:  []string{"10.0.0.1 unknown", "10.0.0.2 unhealthy", "10.0.0.3 unknown drain", "fd00::1 unknown"},
		steps: []step{
			{0, "", "wait 10.0.0.1 10.0.0.2", "wait fd00::1"},
			{0.1, "10.0.0.1 unhealthy", "wait 10.0.0.1 10.0.0.2", "wait fd00::1"},
			{0.2, "fd00::1 unhealthy", "stale_all 10.0.0.1 10.0.0.2", "stale_all fd00::1"},
		},
	},
	{
		rule: "6: a family whose own first verdict is still to come waits",
		eps:  []string{"10.0.0.1 healthy 5ms", "fd00::1 unknown", "fd00::2 unknown tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "wait fd00::1"},
			{1, "fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "6: endpoints without a verdict are not down: min_healthy waits for them",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 2, ServFail },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 unknown"},
		steps:  []step{{0, "", "normal 10.0.0.1", ""}, {1, "10.0.0.2 unhealthy", "servfail", ""}},
	},
	{
		rule: "first verdicts: whose probe ends first does not keep a faster one waiting for hold",
		eps:  []string{"10.0.0.1 unknown", "10.0.0.2 unknown", "10.0.0.3 unknown tier=1"},
		steps: []step{
			{0, "10.0.0.3 healthy 1ms", "normal 10.0.0.3", ""},
			{0.5, "10.0.0.1 healthy 50ms", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 healthy 10ms", "normal 10.0.0.2", ""},
			{2, "10.0.0.1 1ms", "normal 10.0.0.2", ""}, // from now on hold counts
			{11.9, "", "normal 10.0.0.2", ""},
			{12, "", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "first verdicts: ... but no longer than hold",
		eps:  []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms", "10.0.0.3 unknown"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{10, "10.0.0.2 10ms", "normal 10.0.0.1", ""},
			{20, "", "normal 10.0.0.2", ""},
		},
	},
}

func TestStories(t *testing.T) {
	for _, s := range stories {
		t.Run(s.rule, func(t *testing.T) {
			p := defaults()
			if s.policy != nil {
				s.policy(p)
			}
			n := newName(t, p, s.eps...)
			for _, step := range s.steps {
				for _, line := range strings.Split(step.set, ";") {
					if strings.TrimSpace(line) != "" {
						n.set(line)
					}
				}
				n.want(step.at, step.a)
				if step.aaaa != "" {
					n.want6(step.aaaa)
				}
			}
		})
	}
}

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
