package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// unitDir has the units that we ship.
const unitDir = "../../contrib/systemd"

// mostExposure is what systemd-analyze may find at the most: 0 is nothing, 10 everything.
const mostExposure = 1.6

func needAnalyze(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("skipped: no systemd-analyze (Debian: systemd)")
	}
}

// TestUnits: systemd finds nothing wrong with the units, and little that the service could do
// beyond its work.
func TestUnits(t *testing.T) {
	needAnalyze(t)
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"hard.service", "hard.socket"} {
		b, err := os.ReadFile(filepath.Join(unitDir, name))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/usr/local/sbin/hard"), []byte(bin)) // it has to be there
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	unit := filepath.Join(dir, "hard.service")
	out, err := exec.Command("systemd-analyze", "verify", unit, filepath.Join(dir, "hard.socket")).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v: %s", err, out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze security: %v: %s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for hard.service: ([0-9.]+)`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("no verdict: %s", out)
	}
	exposure, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil || exposure > mostExposure {
		t.Errorf("exposure %s, want at most %v:\n%s", found[1], mostExposure, out)
	}
	t.Logf("exposure %v", exposure)
}

// unitValues are the values of a key of hard.service, in order, at least one.
func unitValues(t *testing.T, key string) []string {
	t.Helper()
	values := unitLines(t, key)
	if len(values) == 0 {
		t.Fatalf("hard.service has no %s=", key)
	}
	return values
}

// allowedCalls are the system calls that hard.service lets through, as systemd expands its sets.
func allowedCalls(t *testing.T) map[string]bool {
	t.Helper()
	calls := map[string]bool{}
	var set func(name string, on bool)
	set = func(name string, on bool) {
		if !strings.HasPrefix(name, "@") {
			calls[name] = on
			return
		}
		out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter", name).Output()
		if err != nil {
			t.Fatalf("systemd-analyze syscall-filter %s: %v", name, err)
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); line != "" && line != name && !strings.HasPrefix(line, "#") {
				set(line, on)
			}
		}
	}
	set("@default", true) // always
	for _, v := range unitValues(t, "SystemCallFilter") {
		v, denied := strings.CutPrefix(v, "~")
		for _, name := range strings.Fields(v) {
			set(name, !denied)
		}
	}
	return calls
}

// TestUnitSandbox: all that hard does in its life, checks that run programs, hooks and a reload
// included, needs no system call, address family or writable code that hard.service denies. strace
// writes down what it does.
func TestUnitSandbox(t *testing.T) {
	needAnalyze(t)
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("skipped: no strace")
	}
	s := newService(t)
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	ran := filepath.Join(s.dir, "ran")
	s.write(string(text) + fmt.Sprintf(`
[name."exec.example.com"]
candidates = ["127.0.0.1"]
check = { url = "exec:/bin/sh", args = ["-c", "exit 0"] }
[name."tls.example.com"]
candidates = ["127.0.0.1"]
check = "tls://x:1"
[hooks]
on_change = ["/bin/sh", "-c", "cat >> %s"]
`, ran))
	var user *syscall.Credential
	if os.Getuid() == 0 { // root does more than the service ever does
		user = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(s.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	trace := filepath.Join(s.dir, "trace")
	r := s.start(func(c *exec.Cmd) {
		c.Path, _ = exec.LookPath("strace")
		c.Args = append([]string{"strace", "-f", "-qq", "-o", trace}, c.Args...)
		c.SysProcAttr.Credential = user
	})
	r.serving()
	s.knows()
	q := new(dns.Msg).SetQuestion("exec.example.com.", dns.TypeA)
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network, Timeout: patience}
		if _, _, err := c.Exchange(q, s.at.String()); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the hook has run", func() bool { b, _ := os.ReadFile(ran); return bytes.Contains(b, []byte("exec.example.com")) })
	if out, err := exec.Command(s.bin, "reload", "-s", filepath.Join(s.dir, "c.sock")).CombinedOutput(); err != nil {
		t.Errorf("reload: %v: %s", err, out)
	}
	pid := strings.TrimSpace(func() string {
		out, err := exec.Command("pgrep", "-P", strconv.Itoa(r.cmd.Process.Pid)).Output()
		if err != nil {
			t.Skipf("skipped: no pgrep (Debian: procps): %v", err)
		}
		return string(out)
	}())
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.ends(0)
	judgeTrace(t, trace)
}

// judgeTrace compares what strace wrote with what the unit allows.
func judgeTrace(t *testing.T, file string) {
	t.Helper()
	allowed := allowedCalls(t)
	families := map[string]bool{}
	for _, f := range strings.Fields(strings.Join(unitValues(t, "RestrictAddressFamilies"), " ")) {
		families[f] = true
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`^\d+ +([a-z_0-9]+)\((.*)`)
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		m := call.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name, args := m[1], m[2]
		if !seen[name] && !allowed[name] {
			t.Errorf("hard.service denies %s: %s", name, line)
		}
		seen[name] = true
		if family, _, ok := strings.Cut(args, ","); ok && name == "socket" && !families[family] {
			t.Errorf("hard.service denies sockets of %s", family)
		}
		if (name == "mmap" || name == "mprotect") && strings.Contains(args, "PROT_WRITE|PROT_EXEC") {
			t.Errorf("hard.service denies writable code: %s", line)
		}
	}
	for _, must := range []string{"recvmmsg", "execve", "setpriority", "madvise", "flock", "epoll_pwait"} {
		if !seen[must] {
			t.Errorf("%s was not called: the trace shows less than it should", must)
		}
	}
	t.Logf("%d different system calls", len(seen))
}

// TestUnitSocketAddresses: hard.socket binds what a configuration listens on where it says nothing.
func TestUnitSocketAddresses(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(unitDir, "hard.socket"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"127.0.0.1:53", "[::1]:53"} {
		for _, key := range []string{"ListenDatagram=", "ListenStream="} {
			if !strings.Contains(string(b), "\n"+key+a+"\n") {
				t.Errorf("hard.socket has no %s%s", key, a)
			}
		}
	}
}
