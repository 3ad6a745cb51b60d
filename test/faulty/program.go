package faulty

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hard/internal/admin"
)

// Hard is the real program with a directory of its own. Its exported fields may be changed
// between runs.
type Hard struct {
	T       testing.TB
	In      *Namespace
	Program string         // default: Program(T)
	Prefix  []string       // what it is run by: strace, prlimit, setpriv ...; must exec it
	Env     []string       // beyond the test's own
	Args    []string       // beyond -c FILE
	Output  *os.File       // standard error; nil: kept for Log
	DNS     netip.AddrPort // where it listens
	Dir     string         // for all its files
	File    string         // the configuration
	DB      string
	Socket  string

	MayPanic    bool // the test lets it panic
	MayEndBadly bool // the test kills it, or breaks what a stop needs: its end is not looked at
	MayStopLate bool // there is so much to stop and to write that a busy machine may take longer than a stop may last

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its end; valid after done
	log  *Log
}

// Log keeps what the program said.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is io.Writer's.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// New makes a program that is not started yet. In the configuration, LISTEN stands for its
// address, DB for its database, SOCKET for its control socket and DIR for its directory.
func New(t testing.TB, in *Namespace, config string) *Hard {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &Hard{T: t, In: in, DNS: Addr(), Dir: dir, File: filepath.Join(dir, "har.toml"), log: new(Log),
		DB: filepath.Join(dir, "db", "hard.db"), Socket: filepath.Join(dir, "c.sock")}
	t.Cleanup(func() {
		h.Stop()
		_ = os.RemoveAll(dir)
	})
	h.Config(config)
	return h
}

// Start makes a program and runs it until it serves.
func Start(t testing.TB, in *Namespace, config string) *Hard {
	t.Helper()
	h := New(t, in, config)
	h.Run()
	return h
}

// Head is the beginning of most configurations.
func Head(upstream netip.AddrPort) string {
	return fmt.Sprintf(`
[listen]
dns = ["LISTEN"]
http = ""
control = "SOCKET"
[upstream]
servers = ["%s"]
[store]
path = "DB"
`, upstream)
}

// Config writes the configuration, in place.
func (h *Hard) Config(text string) {
	h.T.Helper()
	text = strings.NewReplacer("LISTEN", h.DNS.String(), "DB", h.DB, "SOCKET", h.Socket, "DIR", h.Dir).Replace(text)
	if err := os.WriteFile(h.File, []byte(text), 0o644); err != nil {
		h.T.Fatal(err)
	}
}

// Begin starts the process and does not wait for anything.
func (h *Hard) Begin() {
	h.T.Helper()
	if h.Program == "" {
		h.Program = Program(h.T)
	}
	args := append(append([]string{}, h.Prefix...), h.Program, "-c", h.File)
	if os.Getuid() == 0 && !slices.Contains(h.Prefix, "--reuid") && !slices.Contains(h.Args, "-user") {
		args = append(args, "-user", "root") // a user hard of this host could not read the tests' files
	}
	cmd := h.In.Command(append(args, h.Args...)...)
	cmd.Env = append(append(os.Environ(), "HARD_CONFIG=", "LOG_LEVEL=", "GORACE=atexit_sleep_ms=0"), h.Env...)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	if h.Output != nil {
		cmd.Stdout, cmd.Stderr = h.Output, h.Output
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // should the tests end hard
	done, started := make(chan struct{}), make(chan error)
	h.cmd, h.done = cmd, done
	go func() {
		runtime.LockOSThread() // the signal comes when the thread ends that had started the process
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			h.err = cmd.Wait()
			close(done)
		}
	}()
	if err := <-started; err != nil {
		h.cmd = nil
		h.T.Fatal(err)
	}
}

// Run starts the process and waits until it answers.
func (h *Hard) Run() {
	h.T.Helper()
	h.Begin()
	h.Serving()
}

// There waits until files exist: the process answers before it has made its socket and its database.
func (h *Hard) There(files ...string) {
	h.T.Helper()
	for _, f := range files {
		Eventually(h.T, f+" is there", func() bool { _, err := os.Stat(f); return err == nil })
	}
}

// Serving waits until the process answers a query: for localhost, which needs nobody.
func (h *Hard) Serving() {
	h.T.Helper()
	deadline := time.Now().Add(Patience)
	for {
		if h.answers() {
			return
		}
		select {
		case <-h.done:
			h.T.Fatalf("it ended: %v\n%s", h.err, h.log)
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			h.T.Fatalf("it does not serve within %v\n%s", Patience, h.log)
		}
	}
}

func (h *Hard) answers() bool {
	conn, err := net.Dial("udp", "127.0.0.1:9")
	_ = h.In.Do(func() error {
		if conn != nil {
			_ = conn.Close()
		}
		conn, err = net.Dial("udp", h.DNS.String())
		return err
	})
	if err != nil {
		return false
	}
	defer conn.Close()
	// localhost A, ID 1.
	query := "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
	if _, err := io.WriteString(conn, query); err != nil {
		return false
	}
	_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond)) // then it is asked again
	n, err := conn.Read(make([]byte, 512))
	return err == nil && n > 12
}

// PID is the process's number.
func (h *Hard) PID() int { return h.cmd.Process.Pid }

// Signal sends a signal.
func (h *Hard) Signal(s syscall.Signal) {
	h.T.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.T.Fatalf("signal %v: %v", s, err)
	}
}

// Kill ends the process by SIGKILL and waits until it is gone.
func (h *Hard) Kill() {
	_ = h.cmd.Process.Kill()
	<-h.done
	h.cmd = nil
}

// Wait waits for the end of the process by itself and gives its exit code; -1: by a signal.
func (h *Hard) Wait() int {
	h.T.Helper()
	select {
	case <-h.done:
	case <-time.After(Patience):
		_ = h.cmd.Process.Signal(syscall.SIGQUIT)
		<-h.done
		h.T.Fatalf("it does not end within %v\n%s", Patience, h.log)
	}
	h.cmd = nil
	return exitCode(h.err)
}

// Stop ends the process in order and looks at how it ended.
func (h *Hard) Stop() {
	h.T.Helper()
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(syscall.SIGCONT)
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	code := h.Wait()
	text := h.log.String()
	if !h.MayEndBadly {
		if code != 0 {
			h.T.Errorf("it ended with %d", code)
		}
		for _, bad := range []string{"not all of it in order", "panic"} {
			if strings.Contains(text, bad) && !(bad == "panic" && h.MayPanic) && !(bad != "panic" && h.MayStopLate) {
				h.T.Errorf("the log says %q", bad)
			}
		}
	}
	for _, bad := range []string{"DATA RACE", "fatal error:", "\ngoroutine 1 ["} {
		if strings.Contains(text, bad) {
			h.T.Errorf("the log says %q", bad)
		}
	}
	if h.T.Failed() {
		if len(text) > 40000 {
			text = text[:20000] + "\n...\n" + text[len(text)-20000:]
		}
		h.T.Logf("log of hard:\n%s", text)
	}
}

// Log is what all runs said so far.
func (h *Hard) Log() string { return h.log.String() }

// Says waits until the log has a text, counted from a position in it.
func (h *Hard) Says(text string, from int) {
	h.T.Helper()
	Eventually(h.T, "the log says "+strconv.Quote(text), func() bool { return strings.Contains(h.Log()[from:], text) })
}

// client talks to the control socket.
func (h *Hard) get(path string) ([]byte, error) {
	h.T.Helper()
	select {
	case <-h.done:
		h.T.Fatalf("it has ended: %v\n%s", h.err, h.log)
	default:
	}
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket)
		}}}
	r, err := c.Get("http://hard" + path)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// Status is GET /v1/status. While it can't be had it is asked for again.
func (h *Hard) Status() (s admin.Status) {
	h.T.Helper()
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var b []byte
		if b, err = h.get("/v1/status"); err == nil {
			if err = json.Unmarshal(b, &s); err == nil {
				return s
			}
		}
	}
	h.T.Fatalf("status: %v\n%s", err, h.log)
	return s
}

// Metric is the sum of a metric over all its labels; those of labels that contain all of some
// texts, as `outcome="ok"`, if any are given.
func (h *Hard) Metric(name string, labels ...string) (sum float64) {
	h.T.Helper()
	var b []byte
	Eventually(h.T, "metrics", func() (ok bool) {
		var err error
		b, err = h.get("/metrics")
		return err == nil
	})
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			ok = ok && strings.Contains(rest, l)
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64); ok && err == nil {
			sum += v
		}
	}
	return sum
}

// Verb runs one of the program's verbs and gives its output and exit code.
func (h *Hard) Verb(args ...string) (string, int) {
	h.T.Helper()
	out, err := exec.Command(h.Program, append([]string{"-s", h.Socket}, args...)...).CombinedOutput()
	return string(out), exitCode(err)
}
