package daemon

import (
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// LimitMemory tells Go's collector of the memory limit that this process is under (systemd's
// MemoryMax=, a container's): near it, it collects more often instead of letting the kernel end the
// process. A start is not collected on the way, and a reload's heap may double before it is.
// $GOMEMLIMIT wins. It returns the limit set, 0 if none.
func LimitMemory() int64 {
	if os.Getenv("GOMEMLIMIT") != "" {
		return 0
	}
	limit := cgroupMemory("/")
	if limit == math.MaxInt64 {
		return 0
	}
	// The rest is for what Go does not count: pages of our own file, buffers of the kernel.
	limit -= max(limit/8, min(16<<20, limit/4))
	debug.SetMemoryLimit(limit)
	return limit
}

// cgroupMemory is the memory limit of our cgroup, of version 1 or 2, and of those above it, below a
// root directory; math.MaxInt64 if there is none.
func cgroupMemory(root string) int64 {
	limit := int64(math.MaxInt64)
	b, err := os.ReadFile(path.Join(root, "proc/self/cgroup"))
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(b)) {
		// 0::/system.slice/hard.service, or 4:memory:/system.slice/hard.service
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		switch {
		case f[1] == "memory":
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case f[0] != "0" || f[1] != "":
			continue
		}
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			limit = min(limit, readLimit(path.Join(root, base, dir, file)))
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// noLimit is above what version 1 shows for none: the largest number of pages.
const noLimit = int64(1) << 60

// readLimit reads a limit in bytes; math.MaxInt64 stands for none ("max", or version 1's large number).
func readLimit(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= noLimit || n <= 0 {
		return math.MaxInt64
	}
	return n
}
