package faulty

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// SQLite runs the real sqlite3 program on a database and gives what it prints.
func SQLite(t testing.TB, db, query string) string {
	t.Helper()
	out, err := exec.Command(Need(t, "sqlite3", "sqlite3"), "-cmd", ".timeout 20000", "-bail", db, query).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %q: %v: %s", query, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Intact fails the test unless the real sqlite3 program finds a database in order.
func Intact(t testing.TB, db string) {
	t.Helper()
	if got := SQLite(t, db, "PRAGMA integrity_check; PRAGMA foreign_key_check;"); got != "ok" {
		t.Errorf("%s: %s", db, got)
	}
}

// Disk is a small file system in memory.
type Disk struct {
	Dir string
	t   testing.TB
	opt string
}

// NewDisk mounts one of so many KiB at a directory, which is made, or skips the test.
func NewDisk(t testing.TB, dir string, kib int) *Disk {
	t.Helper()
	NeedRoot(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Disk{dir, t, fmt.Sprintf("size=%dk", kib)}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, d.opt); err != nil {
		t.Skip("skipped: no right to mount a small disk: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return d
}

// Fill leaves no room.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		d.t.Fatal(err)
	}
}

// Free gives back the room that Fill took.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.Dir, "ballast")); err != nil {
		d.t.Fatal(err)
	}
}

// ReadOnly makes it read-only, or writable again.
func (d *Disk) ReadOnly(on bool) {
	d.t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if on {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("tmpfs", d.Dir, "tmpfs", flags, d.opt); err != nil {
		d.t.Fatal("remount: ", err)
	}
}

// Inject lets system calls of the running program fail, by strace, until the function that it
// returns is called: each expression is what strace's -e inject= takes.
func (h *Hard) Inject(expressions ...string) (end func()) {
	h.T.Helper()
	NeedRoot(h.T)
	args := []string{"-f", "-qq", "-o", os.DevNull, "-p", fmt.Sprint(h.PID())}
	for _, e := range expressions {
		calls, _, _ := strings.Cut(e, ":")
		args = append(args, "-e", "trace="+calls, "-e", "inject="+e)
	}
	cmd := exec.Command(Need(h.T, "strace", "strace"), args...)
	var said Log
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		h.T.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	Eventually(h.T, "strace is attached to all threads", func() bool {
		select {
		case err := <-done:
			h.T.Fatalf("strace: %v: %s", err, said.String())
		default:
		}
		return h.traced()
	})
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(syscall.SIGTERM) // it lets go of the program, in time ...
			select {
			case <-done:
			case <-time.After(5 * time.Second): // ... or at once: a delay under way holds it
				_ = cmd.Process.Kill()
				<-done
			}
		}
	}
	h.T.Cleanup(end)
	return end
}

// traced tells whether every thread has a tracer.
func (h *Hard) traced() bool {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", h.PID()))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err == nil && strings.Contains(string(b), "TracerPid:\t0\n") {
			return false
		}
	}
	return len(tasks) > 0
}
