package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// staticBinary builds the program as it is shipped.
func staticBinary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "hard")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return bin
}

// openDirs lets everybody pass through the test's directories.
func openDirs(t *testing.T, dir string) {
	t.Helper()
	for ; dir != "/" && dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

const userConfig = `
[listen]
dns = [LISTEN]
http = ""
control = "DIR/run/c.sock"
[upstream]
servers = ["127.0.2.53"]
[store]
path = "DIR/db/hard.db"
[name."static.example.com"]
candidates = ["192.0.2.10"]
check = "static:"
[name."exec.example.com"]
candidates = ["127.0.0.1"]
check = { url = "exec:/bin/sh", args = ["-c", "cat /proc/self/status > DIR/child/status"] }
`

// TestUser: started by root, hard binds port 53 and becomes somebody else, in every thread, for good,
// with the right to bind ports and nothing else; a reload binds another low port; the database and
// the control socket, root's from an earlier run, are the new user's; a check has no right at all.
func TestUser(t *testing.T) {
	if os.Getenv("HARD_LONG") == "" {
		t.Skip("skipped: builds the program once more; HARD_LONG=1 runs it")
	}
	h := newHost(t)
	h.hard = staticBinary(t)
	testUser(t, h)
}

// TestUserCgo: the same with a program that was built as the Go tool does where there is a C compiler: its threads are libc's.
func TestUserCgo(t *testing.T) {
	testUser(t, newHost(t))
}

func testUser(t *testing.T, h *host) {
	openDirs(t, h.dir)
	openDirs(t, filepath.Dir(h.hard))
	file := filepath.Join(h.dir, "har.toml")
	write := func(listen string) {
		h.write(file, strings.NewReplacer("DIR", h.dir, "LISTEN", listen).Replace(userConfig))
	}
	write(`"127.0.0.1:53"`)
	child := filepath.Join(h.dir, "child")
	if err := os.Mkdir(child, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(child, 0o777); err != nil {
		t.Fatal(err)
	}
	asks := func(addr string) {
		t.Helper()
		eventually(t, addr+" answers", func() bool {
			out, _ := h.command("dig", "+short", "+tries=1", "+time=1", "@127.0.0.1", "-p", addr, "static.example.com").Output()
			return strings.TrimSpace(string(out)) == "192.0.2.10"
		})
	}
	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("skipped: no dig (Debian: bind9-dnsutils)")
	}

	// An earlier run as root has made the directories.
	first, log := h.start(nil, h.hard, "-user", "root", "-c", file)
	eventually(t, "hard serves as root", func() bool { return strings.Contains(log.String(), "msg=serving") })
	if strings.Contains(log.String(), "running as root") {
		t.Error("-user root is not silent")
	}
	eventually(t, "the check has run", func() bool { _, err := os.Stat(filepath.Join(child, "status")); return err == nil })
	_ = first.Process.Signal(syscall.SIGTERM)
	_, _ = first.Process.Wait()
	if err := os.Remove(filepath.Join(child, "status")); err != nil {
		t.Fatal(err)
	}

	cmd, log := h.start(nil, h.hard, "-user", "65534:65534", "-c", file)
	eventually(t, "hard serves", func() bool { return strings.Contains(log.String(), "msg=serving") })
	asks("53")
	checkThreads(t, cmd.Process.Pid)
	checkNice(t, cmd.Process.Pid)

	write(`"127.0.0.1:53", "127.0.0.1:54"`)
	if out := h.run(h.hard, "reload", "-c", file); out == "" {
		t.Error("the reload says nothing")
	}
	asks("54")
	checkThreads(t, cmd.Process.Pid)

	status := func() string { b, _ := os.ReadFile(filepath.Join(child, "status")); return string(b) }
	eventually(t, "a check has run", func() bool { return strings.Contains(status(), "NoNewPrivs") })
	wantStatus(t, "the check", status(), map[string]string{
		"Uid": "65534", "CapInh": "0", "CapPrm": "0", "CapEff": "0", "CapAmb": "0", "NoNewPrivs": "1",
	})
	if text := ownMetrics(t, filepath.Join(h.dir, "run", "c.sock")); !strings.Contains(text, "process_open_fds ") {
		t.Error("it can't look into its own /proc/self")
	}
	for _, f := range []string{"db", "db/hard.db", "db/hard.db-wal", "run", "run/c.sock"} {
		fi, err := os.Stat(filepath.Join(h.dir, f))
		if err != nil || fi.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Errorf("%s is not the user's: %v", f, err)
		}
	}
	if text := log.String(); strings.Contains(text, "no history") || strings.Contains(text, "level=ERROR") {
		t.Errorf("not all went well:\n%s", text)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "history is written to the end", func() bool {
		out, err := exec.Command(h.hard, "history", "exec.example.com", "-c", file, "-json").CombinedOutput()
		return err == nil && bytes.Contains(out, []byte("exec.example.com"))
	})
}

// checkThreads looks at each thread's credentials.
func checkThreads(t *testing.T, pid int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d threads: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		wantStatus(t, f, string(b), map[string]string{
			"Uid": "65534", "Gid": "65534", "Groups": "", "NoNewPrivs": "1",
			"CapInh": "0", "CapPrm": "400", "CapEff": "400", "CapBnd": "400", "CapAmb": "0", // 1 << CAP_NET_BIND_SERVICE
		})
	}
}

// checkNice looks whether listeners may run at a lower nice value than ours, without a capability, where root could permit it.
func checkNice(t *testing.T, pid int) {
	t.Helper()
	own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // 20 - nice
	if err != nil {
		t.Fatal(err)
	}
	if may, err := cap.GetProc().GetFlag(cap.Effective, cap.SYS_RESOURCE); err != nil || !may {
		t.Logf("this root has no CAP_SYS_RESOURCE: it permits no lower nice value (%v)", err)
		return
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(min(own+10, 40))
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "Max nice priority"); ok {
			if f := strings.Fields(text); len(f) != 2 || f[0] != want {
				t.Errorf("nice values down to %s are permitted, want %s", text, want)
			}
			return
		}
	}
	t.Errorf("no limit of the nice value in\n%s", b)
}

// wantStatus checks lines of /proc/PID/status; of several values, all.
func wantStatus(t *testing.T, who, text string, want map[string]string) {
	t.Helper()
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		w, ok := want[key]
		if !ok {
			continue
		}
		delete(want, key)
		values := strings.Fields(value)
		if w == "" && len(values) > 0 {
			t.Errorf("%s: %s", who, line)
		}
		for _, v := range values {
			if strings.HasPrefix(key, "Cap") {
				if v = strings.TrimLeft(v, "0"); v == "" {
					v = "0"
				}
			}
			if v != w {
				t.Errorf("%s: %s is %s, want %s", who, key, v, w)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("%s says nothing of %v", who, want)
	}
}

func ownMetrics(t *testing.T, socket string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://hard/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// TestUserUnknown: whoever can't be become ends the start; so does anybody, if we aren't root.
func TestUserUnknown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can become somebody else")
	}
	s := newService(t)
	r := s.start(nil, "-user", "no-such-user-here")
	r.ends(1)
	if !strings.Contains(r.log.String(), "no-such-user-here") {
		t.Errorf("the log: %s", r.log)
	}
	r = s.start(func(c *exec.Cmd) { c.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534} }, "-user", "65534:65534")
	r.ends(1)
	if _, err := dns.Exchange(new(dns.Msg).SetQuestion(serviceName+".", dns.TypeA), s.at.String()); err == nil {
		t.Error("somebody answers")
	}
}
