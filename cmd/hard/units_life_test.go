package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// TestUnitRestartsAfterAbort: what the watchdog does to a process that hangs, SIGABRT, ends it with an exit code after
// which hard.service starts it again. The Go runtime makes that code a 2, as it does for whatever crashes.
func TestUnitRestartsAfterAbort(t *testing.T) {
	s := newService(t)
	r := s.start(nil).serving()
	if err := r.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	r.ends(2)
	if got := unitLines(t, "Restart"); !slices.Equal(got, []string{"always"}) {
		t.Errorf("Restart=%q, want always", got)
	}
	for _, key := range []string{"RestartPreventExitStatus", "SuccessExitStatus"} {
		for _, v := range unitLines(t, key) {
			if slices.Contains(strings.Fields(v), "2") {
				t.Errorf("%s=%s: nothing would start it again after exit code 2", key, v)
			}
		}
	}
}

// TestUnitReload: the command behind "systemctl reload" succeeds after the new file is in force, and fails where it was
// refused.
func TestUnitReload(t *testing.T) {
	s := newService(t)
	r := s.start(nil).serving()
	socket := filepath.Join(s.dir, "c.sock")
	eventually(t, "the control socket is there", func() bool { // within a moment: the log tells before it
		return exec.Command(s.bin, "status", "-s", socket).Run() == nil
	})
	lines := unitLines(t, "ExecReload")
	if len(lines) != 1 {
		t.Fatalf("ExecReload=%q, want one", lines)
	}
	replaced := strings.NewReplacer("/usr/local/sbin/hard", s.bin, "/run/hard/control.sock", socket,
		"$MAINPID", strconv.Itoa(r.cmd.Process.Pid))
	args := strings.Fields(lines[0])
	for i := range args {
		args[i] = replaced.Replace(args[i])
	}
	reload := func() error { return exec.Command(args[0], args[1:]...).Run() }
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	s.write(string(text) + "[name.\"new.example.com\"]\ncandidates = [\"192.0.2.12\"]\ncheck = \"static:\"\n")
	if err := reload(); err != nil {
		t.Errorf("a good file: %v", err)
	}
	c := dns.Client{Timeout: patience}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion("new.example.com.", dns.TypeA), s.at.String())
	if err != nil || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.12" {
		t.Errorf("it has come back, and the new name is not there: %v, %v", m, err)
	}
	s.write(string(text) + "[name.\"bad.example.com\"]\n")
	if err := reload(); err == nil {
		t.Error("a bad file: the reload says that all is well")
	}
}

// unitLines are the values of a key of hard.service, in order; there may be none.
func unitLines(t *testing.T, key string) (values []string) {
	t.Helper()
	f, err := os.Open(filepath.Join(unitDir, "hard.service"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), key+"="); ok {
			values = append(values, v)
		}
	}
	return values
}
