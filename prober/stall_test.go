package prober

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hard/internal/rank"
)

// TestMain lets the test binary be its own helper: a process that probes one port and prints the
// samples, so that a test can stop it or take its descriptors away.
func TestMain(m *testing.M) {
	if port := os.Getenv("PROBER_TEST_HELPER"); port != "" {
		helper(port)
		return
	}
	os.Exit(m.Run())
}

type printer struct{}

func (printer) Sample(s rank.Sample) {
	fmt.Printf("%v %v %q\n", uint8(s.Outcome), s.Delayed, s.Detail)
}
func (printer) Addresses(Found) {}

func helper(port string) {
	n, _ := strconv.ParseUint(port, 10, 16)
	p := New(Options{Sink: printer{}, Version: "test"})
	p.Start()
	timeout, _ := time.ParseDuration(os.Getenv("PROBER_TEST_TIMEOUT"))
	tg := target(httpCheck(uint16(n)), timeout)
	short := *tg.Pace
	short.Interval, short.FastInterval = 20*time.Millisecond, 20*time.Millisecond
	tg.Pace = &short
	if os.Getenv("PROBER_TEST_FILES") != "" {
		p.Probe(context.Background(), tg, false) // the reactor has its descriptors
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: 3})
	}
	p.SetName(tg.Key.Name, []Target{tg})
	bufio.NewReader(os.Stdin).ReadByte() // until the test ends
}

// startHelper runs the helper and returns its output, line by line.
func startHelper(t *testing.T, addr netip.AddrPort, timeout time.Duration, env ...string) (*exec.Cmd, chan string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, fmt.Sprint("PROBER_TEST_HELPER=", addr.Port()), fmt.Sprint("PROBER_TEST_TIMEOUT=", timeout))...)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	return cmd, lines
}

func nextLine(t *testing.T, lines chan string) string {
	t.Helper()
	select {
	case line := <-lines:
		return line
	case <-time.After(patience):
		t.Fatal("the helper is silent")
		return ""
	}
}

// stopFor stops the helper when it has asked and waits for a reply, which comes meanwhile, and returns what the helper says after
// that.
func stopFor(t *testing.T, cmd *exec.Cmd, long time.Duration, asked, answer chan bool, lines chan string) string {
	t.Helper()
	<-asked
	cmd.Process.Signal(syscall.SIGSTOP)
	eventually(t, "the helper to stand still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	answer <- true
	time.Sleep(long) // how long it is stopped; nothing is waited for
	for len(lines) > 0 {
		<-lines // said before
	}
	cmd.Process.Signal(syscall.SIGCONT)
	return nextLine(t, lines)
}

// A process that was stopped in the middle of a probe must not blame the candidate, neither for
// a timeout nor for a latency.
func TestStoppedProcessMarksItsProbes(t *testing.T) {
	for _, tt := range []struct {
		name          string
		timeout, stop time.Duration
		answer        bool
		want          rank.Outcome
	}{
		{"reply came meanwhile", 10 * time.Second, 700 * time.Millisecond, true, rank.OK},
		{"timeout passed meanwhile", 400 * time.Millisecond, 700 * time.Millisecond, false, rank.Timeout},
		{"reply came in time, and then the timeout passed", 4 * time.Second, 5 * time.Second, true, rank.OK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.stop > time.Second && os.Getenv("HARD_LONG") == "" {
				t.Skip("takes 5 s; set HARD_LONG=1")
			}
			asked, answer := make(chan bool, 1), make(chan bool, 1000)
			addr := serve(t, func(c net.Conn) {
				request(c)
				select {
				case asked <- true:
				default:
				}
				if tt.answer {
					<-answer
					c.Write([]byte(okReply))
				}
				untilClosed(c)
			})
			cmd, lines := startHelper(t, addr, tt.timeout)
			got := ""
			// On a busy machine a probe may end between the question and the stop.
			for try := 0; try < 5 && !strings.HasPrefix(got, fmt.Sprint(uint8(tt.want), " true ")); try++ {
				got = stopFor(t, cmd, tt.stop, asked, answer, lines)
			}
			if !strings.HasPrefix(got, fmt.Sprint(uint8(tt.want), " true ")) {
				t.Errorf("outcome, delayed, detail = %s, want %d true", got, uint8(tt.want))
			}
			// And then it is as ever: a probe that nobody delays is not marked. A busy machine
			// may delay some.
			for range 1000 {
				select {
				case answer <- true:
				default:
				}
				if got = nextLine(t, lines); strings.HasPrefix(got, fmt.Sprint(uint8(tt.want), " false ")) {
					return
				}
			}
			t.Errorf("still marked: %s", got)
		})
	}
}

// Without a free descriptor a probe is skipped and not counted against the candidate.
func TestNoDescriptors(t *testing.T) {
	_, lines := startHelper(t, serve(t, reply(okReply)), patience, "PROBER_TEST_FILES=1")
	if got := nextLine(t, lines); !strings.HasPrefix(got, fmt.Sprint(uint8(rank.Aborted))) || !strings.Contains(got, "skipped, this host is short of resources") {
		t.Error(got)
	}
}

func TestStallMeter(t *testing.T) {
	s := &stallMeter{}
	defer s.stop()
	mark := s.enter(time.Now())
	s.mu.Lock()
	s.expect = s.expect.Add(-time.Second) // as if its timer were that late
	s.mu.Unlock()
	if d := s.leave(mark); d < 900*time.Millisecond {
		t.Errorf("a stall that still goes on: %v", d)
	}
	eventually(t, "a stall before the probe counts for nothing", func() bool {
		mark = s.enter(time.Now())
		return s.leave(mark) <= 500*time.Millisecond // a true one in between is seen in one round only
	})
	eventually(t, "the end of the looking", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.armed
	})
}

func TestMarkDelayed(t *testing.T) {
	for _, tt := range []struct {
		outcome        rank.Outcome
		total, stalled time.Duration
		want           bool
	}{
		{rank.OK, 10 * time.Millisecond, 0, false},
		{rank.OK, 300 * time.Millisecond, 100 * time.Millisecond, false},
		{rank.OK, 300 * time.Millisecond, 160 * time.Millisecond, true},       // half of the latency is ours
		{rank.OK, 800 * time.Millisecond, 210 * time.Millisecond, true},       // a fifth of the timeout
		{rank.OK, 12 * time.Millisecond, 10 * time.Millisecond, false},        // too little to tell
		{rank.Timeout, time.Second, 100 * time.Millisecond, false},            //
		{rank.Timeout, time.Second, 300 * time.Millisecond, true},             //
		{rank.Timeout, 1300 * time.Millisecond, 0, true},                      // overslept
		{rank.Refused, time.Second, 900 * time.Millisecond, false},            // a fact at any time
		{rank.Protocol, 900 * time.Millisecond, 800 * time.Millisecond, true}, // tired of our silence
	} {
		pr := &probe{timeout: time.Second, samples: []rank.Sample{{Outcome: tt.outcome, Phases: rank.Phases{Total: tt.total}}}}
		pr.markDelayed(tt.stalled)
		if got := pr.samples[0].Delayed; got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// Start and stop leave no goroutine and no descriptor behind.
func TestStopLeavesNothing(t *testing.T) {
	s := newIdleServer(t)
	settled := func() (int, int) { return runtime.NumGoroutine(), descriptors(t) }
	cycle := func() {
		sink := newCollector()
		p := New(Options{Sink: sink, Lookup: &fakeDNS{ttl: time.Minute}})
		p.Start()
		p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h"}}})
		p.SetName("www.example.com", watched(s, 20))
		for range 20 {
			sink.next(t)
		}
		eventually(t, "all watched", func() bool { return p.Stats().Watching == 20 })
		if err := p.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		eventually(t, "the server's end", func() bool {
			return s.idle() == 0
		})
	}
	cycle()
	goroutines, files := settled()
	for range 5 {
		cycle()
	}
	eventually(t, "as many goroutines and descriptors as before", func() bool {
		g, f := settled()
		return g <= goroutines && f <= files
	})
}
