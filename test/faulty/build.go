// Package faulty is what the tests of test/faults are made with: the real program as a process of
// its own, a world around it (candidates, an upstream resolver, network namespaces), and clients
// that ask without a pause and tell what they saw.
//
// The program is built once for a test run, under the race detector where the tests are. What a
// test starts ends with it: the program, too, which must end in order, without a panic, a data race
// or a complaint of its history, unless the test has said that it may not.
package faulty

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait. No test depends on how fast something is.
const Patience = 60 * time.Second

// Long tells whether tests that take more than a few seconds run.
func Long() bool { return os.Getenv("HARD_LONG") != "" }

// NeedLong skips a test that takes more than a few seconds, unless HARD_LONG is set.
func NeedLong(t testing.TB) {
	t.Helper()
	if !Long() {
		t.Skip("skipped: takes long, set HARD_LONG=1")
	}
}

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", Patience, what)
		}
		time.Sleep(10 * time.Millisecond) // the poll's pace, not a wait for an effect
	}
}

// NeedRoot skips a test that can't be made by other users.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root")
	}
}

// Need skips a test for which a program is missing, and gives its path.
func Need(t testing.TB, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("skipped: no %s here (Debian: %s)", program, debian)
	}
	return path
}

var (
	builtPlain = sync.OnceValues(func() (string, error) { return build("hard") })
	builtFault = sync.OnceValues(func() (string, error) {
		flags := []string{"-tags", "faults"}
		if raceEnabled {
			flags = append(flags, "-race")
		}
		return build("hard-faults", flags...)
	})
	builtRace = sync.OnceValues(func() (string, error) { return build("hard-race", "-race") })
)

// Program is the path of the program, built from the source beside these tests.
func Program(t testing.TB) string {
	t.Helper()
	if raceEnabled {
		return must(t, builtRace)
	}
	return Plain(t)
}

// Plain is the program without the race detector, for tests of what it costs.
func Plain(t testing.TB) string {
	t.Helper()
	return must(t, builtPlain)
}

// WithFaults is the program with places where a test can let it panic: see package bug.
func WithFaults(t testing.TB) string {
	t.Helper()
	return must(t, builtFault)
}

func must(t testing.TB, built func() (string, error)) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildDir is where the programs are; Main removes it.
var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "hard-faults-") })

func build(name string, flags ...string) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	args := append(append([]string{"build", "-o", path}, flags...), "hard/cmd/hard")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return path, os.Chmod(dir, 0o755) // for tests that run it as nobody
}

// Main is the body of TestMain: it runs the tests and removes what they had built.
func Main(m *testing.M) {
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// exitCode is the code that a program ended with; -1 if by a signal.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -2
}
