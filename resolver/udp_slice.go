package resolver

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// shortSlice is the time slice, in nanoseconds, of a thread in a seat: the shortest that the kernel grants.
	shortSlice = 100_000
	// ahead is by how much the nice value of a thread in a seat is below the other threads'. At a tenfold
	// weight it has never had its share when the next query comes. At equal weight it has had it now and then,
	// and then whatever else runs, a collection or another program, goes on to the next tick, up to 4 ms later.
	ahead = 10
)

// prompt binds a listener that took a seat to its thread, and has the kernel run that at once when a query comes, whatever
// else runs: by its nice value, where that is permitted (CAP_SYS_NICE or RLIMIT_NICE), and by the shortest slice, as
// from Linux 6.12 on a thread that wakes with a shorter one than the running one's need not wait for its
// end. It returns the thread's nice value, for unhurried. A seat is for a load that is far from a whole processor, so
// nobody is kept from one by it.
func prompt() (nice int) {
	runtime.LockOSThread()
	nice, err := threadNice()
	if err != nil {
		return 0
	}
	if syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice-ahead) == nil { // 0: this thread
		setSlice(nice-ahead, shortSlice)
	} else {
		setSlice(nice, shortSlice)
	}
	return nice
}

// unhurried undoes prompt.
func unhurried(nice int) {
	if now, err := threadNice(); err == nil && now != nice {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice)
	}
	setSlice(nice, 0) // the kernel's own
	runtime.UnlockOSThread()
}

func threadNice() (int, error) {
	prio, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	return 20 - prio, err // that is how the system call gives it
}

// setSlice sets this thread's slice, unless an operator has chosen another scheduling policy, which this would end. Older
// kernels ignore it, and one that refuses, as containers may, leaves it as it was.
func setSlice(nice int, ns uint64) {
	if now, err := unix.SchedGetAttr(0, 0); err == nil && now.Policy != unix.SCHED_NORMAL {
		return
	}
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: int32(nice), Runtime: ns}, 0)
}
