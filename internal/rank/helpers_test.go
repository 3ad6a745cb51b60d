package rank

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// tb is what tests, benchmarks and rapid have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

const msec = time.Millisecond

// epoch is when every test begins; at(s) is s seconds later.
var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// defaults are the contract's.
func defaults() *Policy {
	return &Policy{
		GroupWithin: 10 * msec, SwitchRatio: 0.2, SwitchMin: 2 * msec, Hold: 10 * time.Second, MaxAnswers: 1,
	}
}

func defaultPace() *Pace {
	return &Pace{
		Interval: 2 * time.Second, FastInterval: 250 * msec, IdleInterval: 30 * time.Second,
		BackoffMax: 30 * time.Second, Timeout: time.Second, Rise: 2, Fall: 2,
	}
}

// name is one name under test: its endpoints, and what the last decision left.
type name struct {
	t      tb
	p      *Policy
	eps    []Endpoint
	memory Memory
	last   Decision
}

// newName makes a name from lines like "10.0.0.1 healthy 3ms tier=1 weight=0 misses=1 drain gone"; the
// address is the label.
func newName(t tb, p *Policy, lines ...string) *name {
	n := &name{t: t, p: p}
	for _, l := range lines {
		fields := strings.Fields(l)
		a := netip.MustParseAddr(fields[0])
		n.eps = append(n.eps, Endpoint{
			Key: Key{Name: "test.example", Candidate: fields[0], Addr: a}, Weight: 100, Health: new(Health),
		})
		n.set(l)
	}
	return n
}

// set changes one endpoint by a line as in newName.
func (n *name) set(line string) {
	fields := strings.Fields(line)
	e := n.endpoint(fields[0])
	for _, f := range fields[1:] {
		if err := setField(e, f); err != nil {
			n.t.Fatalf("%s: %v", line, err)
		}
	}
}

func setField(e *Endpoint, f string) error {
	if s, err := ParseState(f); err == nil {
		e.Health.State = s
		return nil
	}
	if o, err := ParseOverride(f); err == nil {
		e.Override = o
		return nil
	}
	if d, err := time.ParseDuration(f); err == nil {
		for i := range e.Health.Latencies.Modes {
			e.Health.Latencies.Modes[i].Value = d
		}
		return nil
	}
	switch key, value, _ := strings.Cut(f, "="); key {
	case "tier":
		_, err := fmt.Sscan(value, &e.Tier)
		return err
	case "weight":
		_, err := fmt.Sscan(value, &e.Weight)
		return err
	case "misses":
		_, err := fmt.Sscan(value, &e.Health.Misses)
		return err
	case "gone":
		e.Gone = value != "false"
		return nil
	}
	return fmt.Errorf("what is %q?", f)
}

func (n *name) endpoint(label string) *Endpoint {
	for i := range n.eps {
		if n.eps[i].Key.Candidate == label {
			return &n.eps[i]
		}
	}
	n.t.Fatalf("no endpoint %s", label)
	return nil
}

// decide decides at a time and takes the memory over.
func (n *name) decide(s float64) *Decision {
	n.last = Decide(n.p, n.eps, &n.memory, at(s))
	n.memory = n.last.Memory
	return &n.last
}

// show is the answer of one family as text: "normal 10.0.0.1 10.0.0.2".
func (n *name) show(f Family) string {
	a := &n.last.Answers[f]
	words := []string{a.Kind.String()}
	for _, i := range a.Selected {
		words = append(words, n.eps[i].Key.Candidate)
	}
	return strings.Join(words, " ")
}

// want decides at a time and compares the A answer.
func (n *name) want(s float64, want string) {
	n.t.Helper()
	n.decide(s)
	if got := n.show(V4); got != want {
		n.t.Fatalf("at %v s: A is %q, want %q\n%s", s, got, want, n.explain())
	}
}

// want6 compares the AAAA answer of the last decision.
func (n *name) want6(want string) {
	n.t.Helper()
	if got := n.show(V6); got != want {
		n.t.Fatalf("AAAA is %q, want %q\n%s", got, want, n.explain())
	}
}

func (n *name) explain() string {
	var b strings.Builder
	for f := range n.last.Answers {
		fmt.Fprintf(&b, "%v: %s (%v)\n", Family(f), n.show(Family(f)), n.last.Answers[f].Reason)
	}
	for i, v := range n.last.Endpoints {
		fmt.Fprintf(&b, "  %s rank %d: %v\n", n.eps[i].Key.Candidate, v.Rank, v.Reason)
	}
	return b.String()
}

// probe makes a final sample that ended at a time, after taking so long.
func probe(key Key, end time.Time, o Outcome, took time.Duration) *Sample {
	return &Sample{Key: key, At: end.Add(-took), Outcome: o, Phases: Phases{Connect: took / 2, FirstByte: took, Total: took}, Final: true}
}
