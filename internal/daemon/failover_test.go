package daemon_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// How long is a dead candidate's address still given out? Candidates are processes of their own
// here, so that they can be killed and stopped. The tests fail when an answer does not change;
// how long it took is reported (go test -v), not judged: docs/answer-quality.md has the figures.

// fleet is a daemon with one name for each victim, which two slower candidates back up.
type fleet struct {
	*house
	victims []*process
	backups []string
}

func (f *fleet) name(i int) string { return fmt.Sprintf("n%d.example", i) }

// newFleet starts it; net is the second octet of its addresses, extra are settings of all names.
func newFleet(t *testing.T, net, n int, closeIdle time.Duration, extra string) *fleet {
	t.Helper()
	first := newProcess(t, candidateSpec{Listen: fmt.Sprintf("127.%d.1.1:0", net), Delay: 20 * time.Millisecond})
	_, port, _ := strings.Cut(first.spec.Listen, ":")
	second := newProcess(t, candidateSpec{Listen: fmt.Sprintf("127.%d.1.2:%s", net, port), Delay: 40 * time.Millisecond})
	f := &fleet{backups: []string{first.ip(), second.ip()}}
	var b strings.Builder
	fmt.Fprintf(&b, `
UPSTREAM "127.0.1.57:9"
[defaults]
check = "http://:%s/healthz"
%s
`, port, extra)
	for i := range n {
		v := newProcess(t, candidateSpec{Listen: fmt.Sprintf("127.%d.2.%d:%s", net, i+1, port), CloseIdle: closeIdle})
		f.victims = append(f.victims, v)
		fmt.Fprintf(&b, "[name.%q]\ncandidates = [%q, %q, %q]\n", f.name(i), v.ip(), first.ip(), second.ip())
	}
	f.house = start(t, b.String())
	eventually(t, "all have had their first verdict", func() bool {
		known := make(map[string]bool)
		for _, m := range healthyLine.FindAllStringSubmatch(f.logs.String(), -1) {
			known[m[1]] = true
		}
		return len(known) == n*(1+len(f.backups))
	})
	f.settled()
	return f
}

var healthyLine = regexp.MustCompile(`msg="endpoint is healthy" (name=\S+ candidate=\S+)`)

// settled waits until every name is answered with its victim.
func (f *fleet) settled() {
	f.t.Helper()
	for i, v := range f.victims {
		f.answers(f.name(i), dns.TypeA, v.ip())
	}
}

// gone returns after how long each of some victims was no longer answered, as a client sees it.
func (f *fleet) gone(since time.Time, victims ...int) []time.Duration {
	f.t.Helper()
	var out []time.Duration
	c, err := dns.Dial("udp", f.Addrs()[0].String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	for len(victims) > 0 {
		victims = slices.DeleteFunc(victims, func(i int) bool {
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				f.t.Fatal(err)
			}
			if err := c.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(f.name(i)), dns.TypeA)); err != nil {
				f.t.Fatal(err)
			}
			r, err := c.ReadMsg()
			if err != nil {
				f.t.Fatal(err)
			}
			got := addresses(r)
			if slices.Contains(got, f.victims[i].ip()) {
				return false
			}
			// Which of them is the nearer one is for a machine with time to tell.
			if len(got) != 1 || !slices.Contains(f.backups, got[0]) {
				f.t.Errorf("%s answers %v, want one of %v", f.name(i), got, f.backups)
			}
			out = append(out, time.Since(since))
			return true
		})
		if time.Since(since) > patience {
			f.t.Fatalf("%d dead candidates are still answered after %v", len(victims), patience)
		}
		time.Sleep(200 * time.Microsecond) // the poll's pace
	}
	return out
}

// figures reports times beside a goal.
func figures(t *testing.T, what string, times []time.Duration, median, worst time.Duration) {
	slices.Sort(times)
	n := len(times)
	at := func(q float64) time.Duration { return times[min(n-1, int(q*float64(n)))].Round(10 * time.Microsecond) }
	t.Logf("%s: %d deaths, median %v, p99 %v, worst %v (goal: %v, %v)", what, n, at(0.5), at(0.99), at(1), median, worst)
}

func all(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func long() bool { return os.Getenv("HARD_LONG") != "" }

// TestFailoverDefaults: candidates are killed or stopped; nothing but names is configured.
func TestFailoverDefaults(t *testing.T) {
	n, rounds := 3, 1
	if long() {
		n, rounds = 20, 3
	}
	for _, d := range []struct {
		what          string
		net           int
		signal        syscall.Signal
		median, worst time.Duration
	}{
		{"killed", 71, syscall.SIGKILL, 1250 * time.Millisecond, 2600 * time.Millisecond},
		{"stopped", 72, syscall.SIGSTOP, 3300 * time.Millisecond, 4600 * time.Millisecond},
	} {
		t.Run(d.what, func(t *testing.T) {
			if d.signal == syscall.SIGSTOP && !long() {
				t.Skip("skipped: takes over 5 s (HARD_LONG=1)")
			}
			var times []time.Duration
			for round := range rounds {
				t.Run(fmt.Sprint(round), func(t *testing.T) {
					f := newFleet(t, d.net, n, 0, "")
					for _, v := range f.victims { // past the start, each at its own place in the interval
						eventually(t, "probed three times", func() bool { return !long() || v.stats().Probes >= 3 })
					}
					if long() {
						time.Sleep(rand.N(2 * time.Second)) // a moment that knows nothing of the schedule
					}
					since := time.Now()
					for _, v := range f.victims {
						v.signal(d.signal)
					}
					times = append(times, f.gone(since, all(n)...)...)
				})
			}
			figures(t, "defaults, "+d.what, times, d.median, d.worst)
		})
	}
}

// TestFailoverWatch: with watch = true a killed candidate is out at once, and no probe can have
// been due by then.
func TestFailoverWatch(t *testing.T) {
	n, rounds := 3, 1
	if long() {
		n, rounds = 20, 6
	}
	// Quick to come back, so that there are many deaths; what a death needs is not changed.
	f := newFleet(t, 73, n, 0, "watch = true\nbackoff_max = \"2s\"\nhold = \"0s\"\n")
	var times []time.Duration
	for round := range rounds {
		if round > 0 {
			for _, v := range f.victims {
				v.start()
			}
			f.settled()
		}
		for i, v := range f.victims {
			eventually(t, "the connection is held", func() bool { return v.stats().Idle > 1 }) // one is the question's
			since := time.Now()
			v.kill()
			times = append(times, f.gone(since, i)...)
		}
	}
	figures(t, "watch, killed", times, 5*time.Millisecond, 50*time.Millisecond)
}

// TestWatchIdleCloser: a server that closes idle connections time and again is as healthy as any.
func TestWatchIdleCloser(t *testing.T) {
	f := newFleet(t, 74, 1, 100*time.Millisecond, "watch = true\n")
	v := f.victims[0]
	eventually(t, "five idle connections were closed", func() bool {
		if r := f.ask("udp", 0, f.name(0), dns.TypeA); !slices.Equal(addresses(r), []string{v.ip()}) {
			t.Fatalf("the answer changed: %v", r)
		}
		return v.stats().Closed >= 5
	})
	for _, line := range strings.Split(f.logs.String(), "\n") {
		if strings.Contains(line, "endpoint is unhealthy") {
			t.Error(line)
		}
	}
}
