package daemon_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// candidateEnv makes this test binary a candidate.
const candidateEnv = "HARD_TEST_CANDIDATE"

// candidateSpec is what a candidate process does.
type candidateSpec struct {
	Listen    string
	Delay     time.Duration // of each reply
	CloseIdle time.Duration // closes connections without a request after this; 0: never
}

// candidateStats is what it tells about itself, at /stats.
type candidateStats struct {
	Idle   int64 // connections without a request now
	Closed int64 // closed without ever a request, so far
	Probes int64 // answered
}

func init() {
	if text := os.Getenv(candidateEnv); text != "" {
		fmt.Fprintln(os.Stderr, "candidate:", serveCandidate(text))
		os.Exit(1)
	}
}

func serveCandidate(text string) error {
	var spec candidateSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	l, err := net.Listen("tcp", spec.Listen)
	if err != nil {
		return err
	}
	go func() { // the parent's end is ours
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(l.Addr())
	var idle, closed, probes atomic.Int64
	srv := &http.Server{
		ReadHeaderTimeout: spec.CloseIdle,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stats" {
				_ = json.NewEncoder(w).Encode(candidateStats{idle.Load(), closed.Load(), probes.Load()})
				return
			}
			probes.Add(1)
			time.Sleep(spec.Delay)
			_, _ = io.WriteString(w, "ok\n")
		}),
	}
	states := make(chan func(map[net.Conn]bool))
	go func() {
		silent := map[net.Conn]bool{}
		for f := range states {
			f(silent)
			idle.Store(int64(len(silent)))
		}
	}()
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		states <- func(silent map[net.Conn]bool) {
			switch {
			case s == http.StateNew:
				silent[c] = true
			case s == http.StateClosed && silent[c]:
				closed.Add(1)
				fallthrough
			default:
				delete(silent, c)
			}
		}
	}
	return srv.Serve(l)
}

// process is a candidate in a process of its own.
type process struct {
	t    *testing.T
	spec candidateSpec
	cmd  *exec.Cmd
	in   io.Closer
}

func newProcess(t *testing.T, spec candidateSpec) *process {
	t.Helper()
	p := &process{t: t, spec: spec}
	p.start()
	t.Cleanup(p.kill)
	return p
}

// start runs it and waits until it listens; port 0 becomes the one it got.
func (p *process) start() {
	p.t.Helper()
	spec, err := json.Marshal(p.spec)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), candidateEnv+"="+string(spec))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.t.Fatalf("candidate %s did not start: %v", p.spec.Listen, err)
	}
	p.spec.Listen = strings.TrimSpace(line)
}

func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) ip() string {
	host, _, _ := net.SplitHostPort(p.spec.Listen)
	return host
}

func (p *process) stats() (s candidateStats) {
	r, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + p.spec.Listen + "/stats")
	if err != nil {
		return s
	}
	defer r.Body.Close()
	_ = json.NewDecoder(r.Body).Decode(&s)
	return s
}
