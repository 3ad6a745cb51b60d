package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFsyncFails lets a few fsyncs of a writer fail with EIO: it must open the database anew and
// go on, and an override that it called safe must be there.
func TestFsyncFails(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil || os.Getenv("HARD_LONG") == "" {
		t.Skip("needs strace and HARD_LONG=1")
	}
	path, trace := dbPath(t), filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-D", "-f", "-qq", "-o", trace, "-e", "trace=fsync,fdatasync",
		"-e", "inject=fsync,fdatasync:error=EIO:when=60..61", os.Args[0]) // counted by thread
	acknowledged := make(map[string]string)
	runUntilKilled(t, cmd, path, 15*time.Second, acknowledged)
	b, err := os.ReadFile(trace)
	if err != nil || !strings.Contains(string(b), "INJECTED") {
		t.Skip("strace could not inject:", err)
	}
	failed := strings.LastIndex(string(b), "INJECTED")
	if !strings.Contains(string(b)[failed:], "= 0") {
		t.Error("nothing was written after the last failure")
	}
	if len(acknowledged) != 7 {
		t.Errorf("%d overrides", len(acknowledged))
	}
	check(t, path, 0, acknowledged)
}
