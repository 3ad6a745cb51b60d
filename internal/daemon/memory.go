package daemon

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hard/internal/bug"
)

// trimAfter are the distances in time at which, after a start, memory is given back that only it
// needed. After a reload it is done once, a while after the last. With 10,000 names it takes some 20 ms of a core. The first
// one is after the database has been made and the start has been written to it.
var (
	trimAfter       = []time.Duration{700 * time.Millisecond, 29 * time.Second}
	trimAfterReload = []time.Duration{5 * time.Second}
)

// trimmer runs trim after a start and after each call of soon. Its goroutine lives from newTrimmer
// to stop.
type trimmer struct {
	log              *slog.Logger
	kick, quit, done chan struct{}
}

func newTrimmer(log *slog.Logger) *trimmer {
	t := &trimmer{log: log, kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go t.run()
	return t
}

func (t *trimmer) run() {
	defer close(t.done)
	trimFile() // what ran before is not needed again, and the database will need as much
	left := trimAfter
	timer := time.NewTimer(left[0])
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			spare.during(t.trim) // not at a low priority: it stops everything for a moment
			if left = left[1:]; len(left) > 0 {
				timer.Reset(left[0])
			}
		case <-t.kick:
			left = trimAfterReload
			timer.Reset(left[0])
		case <-t.quit:
			return
		}
	}
}

// trim is beside the daemon's life: a panic in it, a bug, ends it alone.
func (t *trimmer) trim() {
	defer bug.Caught(t.log, "giving memory back")
	trim()
}

// around runs f, a reload, with room for its garbage, and leaves that to the trim that follows however f ends, if it is not much:
// queries wait in each collection. The trim brings the usual room back: what was set before may be that of an earlier
// reload, whose trim came in between.
func (t *trimmer) around(f func()) {
	tuneGC(headroomInReload)
	lowly(f)
	tuneGC(headroomAfterReload)
	t.soon()
}

// soon asks for one more trim, after a reload.
func (t *trimmer) soon() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *trimmer) stop() {
	close(t.quit)
	<-t.done
}

// trim gives the machine back what only a start or a reload needed: the heap that held the
// parsed file, and pages of our own file.
func trim() {
	debug.FreeOSMemory()
	tuneGC(headroom)
	trimFile()
}

// trimFile gives back the pages of this program's own file, most of which only initialisation ran
// through. The kernel brings those that are needed again back from its cache. With 10 names that is the
// larger half of our memory (docs/performance.md).
func trimFile() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range ownFile(f, self) {
		// Never written to, so nothing is lost; an error means that it stays as it is.
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, m.start, m.end-m.start, syscall.MADV_DONTNEED)
	}
}

// span is a range of addresses.
type span struct{ start, end uintptr }

// ownFile finds where the file self is mapped and was never written to. Read-only is not enough:
// what the dynamic loader has relocated is read-only, too, and would be lost.
func ownFile(smaps io.Reader, self string) (all []span) {
	var m span
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		// 00400000-00ab9000 r-xp 00000000 fe:00 1234   /usr/local/sbin/hard
		// Anonymous:             0 kB
		w := strings.Fields(lines.Text())
		if len(w) < 2 {
			continue
		}
		if from, to, ok := strings.Cut(w[0], "-"); ok && len(w) >= 5 {
			m = span{}
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			if err1 == nil && err2 == nil && len(w) == 6 && w[5] == self && !strings.Contains(w[1], "w") {
				m = span{uintptr(start), uintptr(end)}
			}
			continue
		}
		if w[0] == "Anonymous:" && w[1] == "0" && m.end > 0 {
			all = append(all, m)
		}
	}
	return all
}

// room is what the heap may grow between two collections: so many bytes, or a share of what lives in it, in per
// cent, whichever is more.
type room struct {
	bytes uint64
	share int
}

var (
	// headroom is the usual room: with Go's own 100 % a daemon that knows 10,000 names would hold twice what
	// it needs for good. The larger the heap, the smaller the part of it: 10,000 names live in 10 MB.
	headroom = room{3 << 20, 25}
	// headroomInReload is meant to be enough for all that a reload makes, which is garbage when it ends: to collect
	// it on the way would take the processor from the listeners, too. With 100,000 names it isn't; then memory counts more.
	headroomInReload = room{64 << 20, 100}
	// headroomAfterReload is for the time until the trim after a reload: for the garbage of the reload itself, some 14 MiB with
	// 10,000 names, and that of the history's writer, who stores all that has changed. With the usual one there
	// were a dozen collections of 10 ms of a processor each, in which queries wait.
	headroomAfterReload = room{24 << 20, 25}
)

// tuneGC leaves the heap room to grow between two collections. $GOGC wins.
func tuneGC(r room) {
	if os.Getenv("GOGC") != "" {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	live := max(sample[0].Value.Uint64(), headroom.bytes)
	debug.SetGCPercent(max(r.share, int(100*r.bytes/live)))
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
