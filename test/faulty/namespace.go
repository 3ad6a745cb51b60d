package faulty

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with a loopback interface that is up, and nothing else. A nil
// Namespace stands for the one that the tests run in.
type Namespace struct {
	Name string
	t    testing.TB
}

var namespaces atomic.Int64

// NewNamespace makes one, or skips the test and says why it can't.
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	NeedRoot(t)
	Need(t, "ip", "iproute2")
	n := &Namespace{Name: fmt.Sprintf("hardfault-%d-%d", os.Getpid(), namespaces.Add(1)), t: t}
	if out, err := exec.Command("ip", "netns", "add", n.Name).CombinedOutput(); err != nil {
		t.Skipf("skipped: no network namespace to be had here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		_ = exec.Command("ip", "netns", "del", n.Name).Run()
		_ = os.RemoveAll(filepath.Join("/etc/netns", n.Name))
	})
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// Command is a program inside the namespace.
func (n *Namespace) Command(args ...string) *exec.Cmd {
	if n == nil {
		return exec.Command(args[0], args[1:]...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

// Run runs a program inside the namespace, which must succeed, and gives its output.
func (n *Namespace) Run(args ...string) string {
	n.t.Helper()
	out, err := n.Command(args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// Etc writes a file that programs run by Command see below /etc, as resolv.conf.
func (n *Namespace) Etc(file, text string) {
	n.t.Helper()
	dir := filepath.Join("/etc/netns", n.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// Do runs f on a thread inside the namespace: sockets that f makes, also to listen, belong to it
// for good. f must not start goroutines that make sockets.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		fd, err := unix.Open(filepath.Join("/run/netns", n.Name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Sysctl sets a variable of the namespace's network, or skips the test.
func (n *Namespace) Sysctl(name, value string) {
	n.t.Helper()
	out, err := n.Command("sysctl", "-qw", name+"="+value).CombinedOutput()
	if err != nil {
		n.t.Skipf("skipped: %s can't be set here: %v: %s", name, err, strings.TrimSpace(string(out)))
	}
}
