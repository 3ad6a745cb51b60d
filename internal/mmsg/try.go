//go:build linux

package mmsg

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Try makes one attempt to send the datagrams from number at on through the
// connected socket fd, and returns how many left. They stay in s until Drop.
// It is for callers, like the forwarder, to whom a pending ICMP error is news
// and who want to know which datagrams it kept back; others use Flush.
func (s *Sender) Try(fd, at int) (n int, errno syscall.Errno) {
	n, errno = s.send(fd, at)
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// EpollWait is epoll_wait(2) without waiting: it returns the number of events
// that are ready, 0 also on an error. An ordinary system call here, at the end
// of an idle time, would wake the scheduler's monitor thread: measured at 5,000
// calls a second, that costs 25 us of CPU each.
func EpollWait(epfd int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
