package faulty

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Usage is what a process holds.
type Usage struct {
	Descriptors int
	Threads     int
	ResidentKiB int // all that is in memory
	AnonKiB     int // thereof its own: no pages of files
	Goroutines  int // as it says itself
}

func (u Usage) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d threads, %d KiB resident (%d KiB anonymous)",
		u.Descriptors, u.Goroutines, u.Threads, u.ResidentKiB, u.AnonKiB)
}

// Usage looks at the process.
func (h *Hard) Usage() Usage {
	h.T.Helper()
	goroutines := int(h.Metric("go_goroutines"))
	proc := filepath.Join("/proc", strconv.Itoa(h.PID()))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		h.T.Fatal(err)
	}
	status := h.status(proc)
	return Usage{len(fds), status("Threads"), status("VmRSS"), status("RssAnon"), goroutines}
}

// status reads the numbers of /proc/PID/status.
func (h *Hard) status(proc string) func(string) int {
	h.T.Helper()
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		h.T.Fatal(err)
	}
	values := make(map[string]int)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			values[strings.TrimSuffix(f[0], ":")], _ = strconv.Atoi(f[1])
		}
	}
	return func(name string) int { return values[name] }
}

// Settles waits until the process has no more descriptors and goroutines than before, some of
// which may come and go: the connection that asks, a probe under way, and the sockets towards upstreams, of
// which a few hundred are kept for 20 s.
func (h *Hard) Settles(before Usage) {
	h.T.Helper()
	h.settles(before, 400)
}

// SettlesFully is Settles, and waits for those sockets, too.
func (h *Hard) SettlesFully(before Usage) {
	h.T.Helper()
	h.settles(before, 6)
}

func (h *Hard) settles(before Usage, sockets int) {
	h.T.Helper()
	const some = 6
	var now Usage
	ok := func() bool {
		now = h.Usage()
		return now.Descriptors <= before.Descriptors+sockets && now.Goroutines <= before.Goroutines+some
	}
	began := time.Now()
	defer func() {
		if d := time.Since(began); d > time.Second {
			h.T.Logf("settled after %v: before %v; now %v", d, before, now)
		}
		if h.T.Failed() {
			h.T.Logf("before: %v; now: %v", before, now)
		}
	}()
	Eventually(h.T, "descriptors and goroutines are back where they were", ok)
}

// LeakCheck is Settles at the end of the test, before the program is stopped.
func LeakCheck(t testing.TB, h *Hard) {
	t.Helper()
	before := h.Usage()
	t.Cleanup(func() {
		if h.cmd != nil {
			h.Settles(before)
		}
	})
}
