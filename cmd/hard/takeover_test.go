package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/handover"
	"hard/store"
)

// service is a place where one instance of hard follows the other: a configuration, a database
// and an address.
type service struct {
	t    *testing.T
	bin  string
	dir  string
	at   netip.AddrPort
	file string
	live string // the address of the candidate that works
}

// serviceName has two candidates, of which one works: who begins without the state of the one
// before would not know which.
const serviceName = "api.example.com"

func newService(t *testing.T) *service {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hard") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, bin: bin, dir: dir, file: filepath.Join(dir, "har.toml"), at: ownPlace()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.live = "127.0.0.1"
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	s.write(fmt.Sprintf(`
[listen]
dns = [%q]
http = ""
control = %q
[upstream]
servers = [%q]
[store]
path = %q
[name.%q]
candidates = ["127.0.0.2", "127.0.0.1"]
check = "http://:%d/"
interval = "200ms"
timeout = "200ms"
[name."static.example.com"]
candidates = ["192.0.2.10"]
check = "static:"
[name."*.wild.example.com"]
candidates = ["192.0.2.11"]
check = "static:"
`, s.at, filepath.Join(dir, "c.sock"), loadUpstream(t), filepath.Join(dir, "db", "hard.db"), serviceName, l.Addr().(*net.TCPAddr).Port))
	return s
}

// places numbers the addresses that ownPlace has given out.
var places atomic.Uint32

// ownPlace is an address that nobody else has: a loopback address of this process and a port that
// the kernel gives to nobody who asks for any. (A port that was free a moment ago may be taken the
// next, as tests of other packages run beside these.)
func ownPlace() netip.AddrPort {
	n := places.Add(1)
	pid := os.Getpid()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(64 + pid>>8&63), byte(pid), byte(1 + n%250)}), 5353)
}

func (s *service) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) names() map[string]string {
	return map[string]string{serviceName: s.live, "static.example.com": "192.0.2.10", "a.wild.example.com": "192.0.2.11"}
}

// instance is one process of hard.
type instance struct {
	s     *service
	cmd   *exec.Cmd
	log   *safeBuffer
	ended chan struct{} // closed when it has ended
	err   error         // then
}

// start runs hard; prepare may change the command.
func (s *service) start(prepare func(*exec.Cmd), args ...string) *instance {
	s.t.Helper()
	r := &instance{s: s, cmd: exec.Command(s.bin, append(args, s.file)...), log: new(safeBuffer), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.Env = append(os.Environ(), "LOG_LEVEL=", "HARD_CONFIG=", "NOTIFY_SOCKET=")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if prepare != nil {
		prepare(r.cmd)
	}
	if err := r.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	s.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
		if s.t.Failed() {
			s.t.Logf("log of %d:\n%s", r.cmd.Process.Pid, r.log)
		}
	})
	return r
}

// serving waits until the process serves.
func (r *instance) serving() *instance {
	r.s.t.Helper()
	eventually(r.s.t, "hard serves", func() bool {
		select {
		case <-r.ended:
			r.s.t.Fatalf("it ended: %v\n%s", r.err, r.log)
		default:
		}
		return strings.Contains(r.log.String(), "msg=serving")
	})
	return r
}

// ends waits until the process has ended, by itself, with an exit code.
func (r *instance) ends(code int) {
	r.s.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.s.t.Fatalf("pid %d doesn't end:\n%s", r.cmd.Process.Pid, r.log)
	}
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.s.t.Fatalf("it ended with %d (%v), want %d:\n%s", got, r.err, code, r.log)
	}
}

func (r *instance) alive() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

func (r *instance) stop() {
	r.s.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.s.t.Fatal(err)
	}
	r.ends(0)
}

// knows waits until the first verdicts are there.
func (s *service) knows() {
	s.t.Helper()
	c := dns.Client{Timeout: patience}
	eventually(s.t, "the live candidate is answered", func() bool {
		m, _, err := c.Exchange(new(dns.Msg).SetQuestion(serviceName+".", dns.TypeA), s.at.String())
		return err == nil && len(m.Answer) == 1 && m.Answer[0].(*dns.A).A.String() == s.live
	})
}

// TestTakeover: 10,000 queries a second, some of them forwarded, and TCP connections, go on while
// one instance takes over from the other, three times or, with HARD_LONG, a hundred times. No query
// is lost or wrongly answered, every instance that was replaced ends with 0, and the history has no
// hole.
func TestTakeover(t *testing.T) {
	rounds := 3
	if os.Getenv("HARD_LONG") != "" {
		rounds = 100
	}
	s := newService(t)
	now := s.start(nil).serving()
	s.knows()
	l := newLoad(t, s.at, 10000, s.names())
	began := time.Now()
	var old []*instance
	for i := 0; i < rounds && time.Since(began) < 2*time.Minute; i++ {
		next := s.start(nil, "-takeover").serving()
		old = append(old, now)
		now = next
		l.answers(500)
	}
	l.stop()
	took := time.Since(began)
	for _, r := range old {
		r.ends(0)
	}
	t.Logf("%d takeovers in %v: %d queries (%.0f a second), %d TCP connections, %d of them again", len(old), took.Round(time.Millisecond),
		l.asked.Load(), float64(l.asked.Load())/took.Seconds(), l.conns.Load(), l.again.Load())
	now.stop()
	s.wholeHistory(append(old, now))
}

// wholeHistory checks that every instance has written its beginning and its end. On a busy machine one may be replaced before it
// gets the database from the one before it: then it must have said so.
func (s *service) wholeHistory(runs []*instance) {
	s.t.Helper()
	without := 0
	for _, r := range runs {
		if strings.Contains(r.log.String(), "not all history could be written") {
			without++
		}
	}
	r, err := store.OpenReader(filepath.Join(s.dir, "db", "hard.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	count := map[string]int{}
	events, err := r.Events(context.Background(), store.Filter{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		count[e.Kind]++
	}
	whole := len(runs) - without
	if min(count["start"], count["stop"]) < whole || max(count["start"], count["stop"]) > len(runs) || without > len(runs)/2 {
		s.t.Errorf("%d starts and %d stops in the history of %d runs, %d of which could not write all", count["start"], count["stop"], len(runs), without)
	}
}

// TestTakeoverFails: a successor that fails before it serves changes nothing.
func TestTakeoverFails(t *testing.T) {
	s := newService(t)
	now := s.start(nil).serving()
	s.knows()
	l := newLoad(t, s.at, 2000, s.names())
	good, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}

	s.write(string(good) + "\nnonsense = 1\n")
	s.start(nil, "-takeover").ends(1)

	// A port that somebody has: it fails with the sockets in its hands.
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.write(strings.Replace(string(good), "dns = [", fmt.Sprintf("dns = [%q, ", taken.LocalAddr()), 1))
	s.start(nil, "-takeover").ends(1)
	s.write(string(good))

	// It is killed with the sockets in its hands, or says nothing more.
	for range 3 {
		var tk *handover.Takeover
		eventually(t, "the sockets are handed over", func() bool {
			tk, err = handover.Take(t.Context(), handover.Path(filepath.Join(s.dir, "c.sock")), "test")
			return err == nil
		})
		if len(tk.Files) < 2 || len(tk.State) == 0 {
			t.Errorf("%d sockets, %d bytes of state", len(tk.Files), len(tk.State))
		}
		tk.Close()
	}
	if !now.alive() {
		t.Fatal("the instance has left")
	}
	// A second instance that doesn't ask for it fails, as ever (R97).
	second := s.start(nil)
	second.ends(1)
	if text := second.log.String(); !strings.Contains(text, s.at.String()) || !strings.Contains(text, fmt.Sprintf("pid %d", now.cmd.Process.Pid)) {
		t.Errorf("R97: the message names neither the address nor who has it: %s", text)
	}
	// And after all that, one that succeeds.
	next := s.start(nil, "-takeover").serving()
	now.ends(0)
	l.stop()
	next.stop()
}

// TestTakeoverOfNobody: without a running instance, -takeover is a start as any other.
func TestTakeoverOfNobody(t *testing.T) {
	s := newService(t)
	r := s.start(nil, "-takeover").serving()
	s.knows()
	r.stop()
}

// TestTakeoverSockets: a successor with fewer or more processors reads from all sockets it got, and
// an established TCP connection is served until it is idle.
func TestTakeoverSockets(t *testing.T) {
	s := newService(t)
	procs := func(n int) func(*exec.Cmd) {
		return func(c *exec.Cmd) { c.Env = append(c.Env, fmt.Sprintf("GOMAXPROCS=%d", n)) }
	}
	now := s.start(procs(4)).serving()
	s.knows()
	conn, err := dns.DialTimeout("tcp", s.at.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	say := func() error {
		if err := conn.WriteMsg(new(dns.Msg).SetQuestion("static.example.com.", dns.TypeA)); err != nil {
			return err
		}
		m, err := conn.ReadMsg()
		if err == nil && len(m.Answer) != 1 {
			err = fmt.Errorf("answer: %v", m)
		}
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	l := newLoad(t, s.at, 5000, s.names())
	for _, n := range []int{1, 6, 2} {
		next := s.start(procs(n), "-takeover").serving()
		if n == 1 {
			if err := say(); err != nil {
				t.Errorf("over an established connection, after the takeover: %v", err)
			}
		}
		now.ends(0)
		now = next
	}
	l.stop()
	if _, err := conn.ReadMsg(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection ends with %v, not in order", err)
	}
	now.stop()
}
