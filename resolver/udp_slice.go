package resolver

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// shortSlice is the time slice, in nanoseconds, of a thread in a seat: the shortest that the kernel grants.
const shortSlice = 100_000

// prompt binds a listener that took a seat to its thread, and asks the kernel for the shortest slice for
// that: from Linux 6.12 on a thread that wakes with a shorter slice than the running one's need not wait
// for its end. Where only one processor is left for a query and the probes of some hundred
// candidates, that halves the p99 (docs/performance.md). Its share of the processor stays the same.
func prompt() {
	runtime.LockOSThread()
	setSlice(shortSlice)
}

// unhurried undoes prompt.
func unhurried() {
	setSlice(0) // the kernel's own
	runtime.UnlockOSThread()
}

// setSlice sets this thread's slice. Older kernels ignore it, and one that refuses, as containers may,
// leaves it as it was.
func setSlice(ns uint64) {
	prio, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0) // 20 - nice: that is how the system call gives it
	if err != nil {
		return
	}
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(20 - prio), Runtime: ns}, 0)
}
