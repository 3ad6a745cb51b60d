package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

// These tests run the real program on port 53 of a network namespace of its own, which has a
// loopback interface and nothing else, and look at it through the C library.

// patience bounds every wait.
const patience = 30 * time.Second

// host is a network namespace that plays a machine.
type host struct {
	t    *testing.T
	name string
	dir  string
	hard string // the program
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hard-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "hard")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return bin, os.Chmod(dir, 0o755)
})

// newHost makes the namespace, or skips the test and says why it can't.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: making a network namespace needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("skipped: no ip program (Debian: iproute2)")
	}
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, name: fmt.Sprintf("hard-%d-%s", os.Getpid(), strings.ToLower(t.Name()[4:min(len(t.Name()), 12)])), dir: t.TempDir(), hard: bin}
	if out, err := exec.Command("ip", "netns", "add", h.name).CombinedOutput(); err != nil {
		t.Skipf("skipped: no network namespace to be had here: %v: %s", err, out)
	}
	etc := filepath.Join("/etc/netns", h.name)
	t.Cleanup(func() {
		exec.Command("ip", "netns", "del", h.name).Run()
		os.RemoveAll(etc)
	})
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	h.write(filepath.Join(etc, "resolv.conf"), "nameserver 127.0.0.1\n")
	h.run("ip", "link", "set", "lo", "up")
	// An address besides 127.0.0.1, without which getaddrinfo's AI_ADDRCONFIG asks for nothing.
	h.run("ip", "addr", "add", "198.51.100.1/32", "dev", "lo")
	return h
}

func (h *host) write(file, text string) {
	h.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// command is a program inside the namespace.
func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name}, args...)...)
}

func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// start runs a program in the background; the returned buffer has its standard error.
func (h *host) start(env []string, args ...string) (*exec.Cmd, *safeBuffer) {
	h.t.Helper()
	cmd := h.command(args...)
	cmd.Env = append(os.Environ(), env...)
	buf := new(safeBuffer)
	cmd.Stdout, cmd.Stderr = buf, buf
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("%v:\n%s", args, buf)
		}
	})
	return cmd, buf
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond) // the poll's pace
	}
}

// outside is the rest of the world of a host, run by this very test binary inside the namespace:
// two candidates and an upstream resolver.
func outside() {
	for addr, delay := range map[string]time.Duration{"127.0.2.1:80": 0, "127.0.2.2:80": 20 * time.Millisecond} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			panic(err)
		}
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(delay)
			io.WriteString(w, "ok")
		}))
	}
	pc, err := net.ListenPacket("udp", "127.0.2.53:53")
	if err != nil {
		panic(err)
	}
	go dns.ActivateAndServe(nil, pc, dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if q.Question[0].Qtype == dns.TypeA {
			rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.99")
			if err == nil {
				m.Answer = append(m.Answer, rr)
			}
		}
		w.WriteMsg(m)
	}))
	fmt.Println("outside is ready")
	io.Copy(io.Discard, os.Stdin)
	select {}
}

func TestMain(m *testing.M) {
	if os.Getenv("HARD_TEST_OUTSIDE") != "" {
		outside()
	}
	testscript.Main(m, map[string]func(){"hard": func() {
		completeTime = patience
		main()
	}})
}

const hostConfig = `
[listen]
http = ""
control = ""
[upstream]
servers = ["resolv.conf:UPSTREAMS"]
[store]
path = "DB"
[name."api.example.com"]
candidates = ["127.0.2.1", "127.0.2.2"]
check = "http://api.example.com/healthz"
interval = "100ms"
fast_interval = "50ms"
`

// serve starts the world and hard on port 53.
func (h *host) serve(prefix ...string) *safeBuffer {
	h.t.Helper()
	_, world := h.start([]string{"HARD_TEST_OUTSIDE=1"}, os.Args[0])
	eventually(h.t, "the world outside is ready", func() bool { return strings.Contains(world.String(), "ready") })
	_, log := h.start(nil, append(prefix, h.hard, "-c", h.config())...)
	eventually(h.t, "hard serves", func() bool { return strings.Contains(log.String(), "msg=serving") })
	return log
}

func (h *host) config() string {
	up, file := filepath.Join(h.dir, "upstreams"), filepath.Join(h.dir, "har.toml")
	h.write(up, "nameserver 127.0.0.1\nnameserver 127.0.2.53\n")
	h.write(file, strings.NewReplacer("UPSTREAMS", up, "DB", filepath.Join(h.dir, "hard.db")).Replace(hostConfig))
	return file
}

// TestHostGetent is what README tells a person to do: hard on port 53, /etc/resolv.conf at
// 127.0.0.1, and the C library gets the nearest candidate, and other names from the upstream.
func TestHostGetent(t *testing.T) {
	h := newHost(t)
	if _, err := exec.LookPath("getent"); err != nil {
		t.Skip("skipped: no getent here")
	}
	log := h.serve()
	eventually(t, "getent finds the nearest", func() bool {
		out, _ := h.command("getent", "ahostsv4", "api.example.com").CombinedOutput()
		return strings.HasPrefix(string(out), "127.0.2.1 ")
	})
	if out := h.run("getent", "ahostsv4", "elsewhere.example.org"); !strings.HasPrefix(out, "192.0.2.99 ") {
		t.Errorf("forwarded: %s", out)
	}
	if out := h.run("getent", "hosts", "localhost"); !strings.Contains(out, "localhost") {
		t.Errorf("localhost: %s", out)
	}
	// R92: /etc/hosts is the stub's, and comes before us.
	h.write(filepath.Join("/etc/netns", h.name, "hosts"), "127.0.0.1 localhost\n192.0.2.7 api.example.com\n")
	if out := h.run("getent", "ahostsv4", "api.example.com"); !strings.HasPrefix(out, "192.0.2.7 ") {
		t.Errorf("R92: an entry in /etc/hosts: %s", out)
	}
	if strings.Contains(log.String(), "beside") {
		t.Error("a warning about other nameservers where there are none")
	}
}

// TestHostBeside, fault 36: other nameservers beside us are worth a warning.
func TestHostBeside(t *testing.T) {
	h := newHost(t)
	h.write(filepath.Join("/etc/netns", h.name, "resolv.conf"), "nameserver 127.0.0.1\nnameserver 127.0.2.53\n")
	log := h.serve()
	eventually(t, "the log warns", func() bool {
		return strings.Contains(log.String(), "beside us") && strings.Contains(log.String(), "127.0.2.53")
	})
}

// TestHostWithoutIPv6, fault 32: [::1] can't be had; IPv4 is served and the log says so.
func TestHostWithoutIPv6(t *testing.T) {
	h := newHost(t)
	if out, err := h.command("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1").CombinedOutput(); err != nil {
		t.Skipf("skipped: IPv6 can't be switched off here: %v: %s", err, out)
	}
	log := h.serve()
	if !strings.Contains(log.String(), "[::1]:53") || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("the log doesn't say that [::1]:53 is missing:\n%s", log)
	}
	eventually(t, "IPv4 is served", func() bool {
		out, _ := h.command("getent", "ahostsv4", "api.example.com").CombinedOutput()
		return strings.HasPrefix(string(out), "127.0.2.1 ")
	})
}

// TestHostNoPrivilege, fault 38: without the right to bind port 53 the program ends with 1, says what would
// help, and has touched nothing.
func TestHostNoPrivilege(t *testing.T) {
	h := newHost(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("skipped: no setpriv here (Debian: util-linux)")
	}
	if err := os.Chmod(h.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir := h.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o777)
	}
	out, err := h.command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all",
		h.hard, "-c", h.config()).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("exit: %v, want 1: %s", err, out)
	}
	for _, want := range []string{"127.0.0.1:53", "cap_net_bind_service", "ip_unprivileged_port_start"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no word of %s: %s", want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(h.dir, "hard.db")); err == nil {
		t.Error("a database was made")
	}
}

// TestHostPortTaken, fault 37: somebody else has port 53.
func TestHostPortTaken(t *testing.T) {
	h := newHost(t)
	h.serve()
	out, err := h.command(h.hard, "-c", h.config()).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "127.0.0.1:53") {
		t.Errorf("%v: %s", err, out)
	}
}
