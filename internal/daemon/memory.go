package daemon

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// trimAfter is when, after a start or a reload, the memory that only it needed is given back.
// It is late enough for the first probes and their history to be through.
const trimAfter = 2 * time.Second

// trimmer runs trim once, some time after the last call of soon.
type trimmer struct {
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	running sync.WaitGroup
}

func (t *trimmer) soon() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	if t.timer != nil && t.timer.Stop() {
		t.running.Done()
	}
	t.running.Add(1)
	t.timer = time.AfterFunc(trimAfter, func() {
		defer t.running.Done()
		trim()
	})
}

// stop waits for a trim that runs.
func (t *trimmer) stop() {
	t.mu.Lock()
	t.stopped = true
	if t.timer != nil && t.timer.Stop() {
		t.running.Done()
	}
	t.mu.Unlock()
	t.running.Wait()
}

// trim gives the machine back what only a start or a reload needed: the heap that held the
// parsed file, and the pages of this program's own file that only initialisation ran through.
// The kernel brings those back from its cache if they are needed again. With 10 names that is
// the larger half of our memory (docs/performance.md).
func trim() {
	debug.FreeOSMemory()
	self, err := os.Executable()
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 00400000-00ab9000 r-xp 00000000 fe:00 1234   /usr/local/sbin/hard
		w := strings.Fields(lines.Text())
		if len(w) < 6 || w[5] != self || strings.Contains(w[1], "w") {
			continue
		}
		from, to, ok := strings.Cut(w[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if ok && err1 == nil && err2 == nil {
			// Never written to, so nothing is lost; an error means that it stays as it is.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), syscall.MADV_DONTNEED)
		}
	}
}

// ownAddrs are the addresses of this host's interfaces.
func ownAddrs() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
