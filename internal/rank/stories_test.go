package rank

import (
	"net/netip"
	"slices"
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

// selectionStories are for the points 1 to 4.
var selectionStories = []story{
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
		rule: "4: ... the fastest, of those whose hold ends together",
		eps:  []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms", "10.0.0.3 healthy 60ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 20ms; 10.0.0.3 10ms", "normal 10.0.0.1", ""},
			{11, "", "normal 10.0.0.3", ""},
		},
	},
	{
		rule:   "4: max_answers: a new first pushes the others back, the last one out",
		policy: func(p *Policy) { p.MaxAnswers = 2 },
		eps:    []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 51ms", "10.0.0.3 healthy 90ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1 10.0.0.2", ""},
			{1, "10.0.0.3 10ms", "normal 10.0.0.1 10.0.0.2", ""},
			{11, "", "normal 10.0.0.3 10.0.0.1", ""},
		},
	},
	{
		rule: "4: a challenger that misses a probe has not been faster for hold",
		eps:  []string{"10.0.0.1 healthy 90ms", "10.0.0.2 healthy 95ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 10ms", "normal 10.0.0.1", ""},
			{9, "10.0.0.2 misses=1", "normal 10.0.0.1", ""},
			{9.25, "10.0.0.2 misses=0", "normal 10.0.0.1", ""},
			{11.5, "", "normal 10.0.0.1", ""},
			{19.24, "", "normal 10.0.0.1", ""},
			{19.25, "", "normal 10.0.0.2", ""},
		},
	},
	{
		rule: "4: the incumbent is no worse for a miss, and neither is who is forced up",
		eps:  []string{"10.0.0.1 healthy 90ms", "10.0.0.2 unhealthy 10ms up misses=9"},
		steps: []step{
			{0, "10.0.0.2 down", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 up; 10.0.0.1 misses=1", "normal 10.0.0.1", ""},
			{11, "", "normal 10.0.0.2", ""},
		},
	},
	{
		rule:   "4: group: one without a latency is out beside those with one, in among its like",
		policy: func(p *Policy) { p.Select = Group },
		eps:    []string{"10.0.0.1 healthy 12ms", "10.0.0.2 up", "10.0.0.3 up"},
		steps:  []step{{0, "", "normal 10.0.0.1", ""}, {1, "10.0.0.1 drain", "normal 10.0.0.2 10.0.0.3", ""}},
	},
	{
		rule:   "4: group: all within group_within of the best, weight 0 never",
		policy: func(p *Policy) { p.Select = Group },
		eps:    []string{"10.0.0.1 healthy 12ms", "10.0.0.2 healthy 5ms", "10.0.0.3 healthy 16ms", "10.0.0.4 healthy 6ms weight=0"},
		steps:  []step{{0, "", "normal 10.0.0.1 10.0.0.2", ""}, {1, "10.0.0.2 drain", "normal 10.0.0.1 10.0.0.3", ""}},
	},
}

func TestStories(t *testing.T) {
	for _, s := range slices.Concat(selectionStories, allDownStories) {
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

// TestTwoSpikes: two slow probes among three lift the estimate for longer than hold. They are over
// when the challenger's hold is, and the answer stays. One that stays slow is left as ever.
func TestTwoSpikes(t *testing.T) {
	for _, spikes := range []int{2, 100} {
		p := &Policy{Select: Best, MaxAnswers: 1, SwitchRatio: 0.2, SwitchMin: 2 * msec, Hold: 10 * time.Second}
		pace := &Pace{Interval: 2 * time.Second, Rise: 2, Fall: 2}
		eps := []Endpoint{
			{Key: Key{Name: "n", Addr: netip.MustParseAddr("192.0.2.1")}, Weight: 1, Health: new(Health)},
			{Key: Key{Name: "n", Addr: netip.MustParseAddr("192.0.2.2")}, Weight: 1, Health: new(Health)},
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var memory *Memory
		challenged, moved := false, false
		for i := range 60 {
			now = now.Add(2 * time.Second)
			for k := range eps {
				lat := time.Duration(27+2*k) * msec
				if k == 0 && i >= 20 && i < 20+spikes {
					lat = 150 * msec
				}
				Step(eps[k].Health, pace, &Sample{Key: eps[k].Key, At: now, Phases: Phases{Total: lat}, Final: true}, nil)
			}
			d := Decide(p, eps, memory, now)
			if !d.Next.IsZero() && !d.Next.After(now) {
				t.Fatalf("probe %d: Next is %v, not after now", i, d.Next)
			}
			for _, c := range d.Memory.Families[V4].Faster {
				challenged = challenged || now.Sub(c.Since) >= p.Hold
			}
			moved = moved || d.Answers[V4].Selected[0] == 1
			memory = &d.Memory
		}
		if spikes == 2 && !challenged {
			t.Error("the spikes did not outlast hold: the test shows nothing")
		}
		if want := spikes > 2; moved != want {
			t.Errorf("%d slow probes: moved is %v", spikes, moved)
		}
	}
}
