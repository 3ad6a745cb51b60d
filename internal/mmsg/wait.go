//go:build linux

package mmsg

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wait frees all buffers of r and blocks until a datagram comes on the socket fd,
// which was prepared by MakeWait, or the time given there is over (EAGAIN), or a
// signal comes (EINTR). It receives one datagram; with many those too that are
// behind it, at a higher price where there are none.
//
// The call is raw although it blocks: the goroutine keeps its processor of Go's
// scheduler meanwhile. That spares the scheduler's work, which is as much as an
// answer's, but the caller must know that the scheduler has others left. The
// runtime is not held up: where it needs this goroutine to stop, for the garbage
// collector above all, it sends the thread a signal until it does, and a receive
// call of a socket with a timeout is never restarted after one (signal(7)).
func (r *Receiver) Wait(fd int, many bool) (n int, errno syscall.Errno) {
	r.Reset()
	if many {
		got, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdrs[0])),
			uintptr(len(r.hdrs)), unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		r.used = int(got)
		return r.used, 0
	}
	h := &r.hdrs[0]
	// MSG_TRUNC: the result is the datagram's length, even where it is cut.
	got, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&r.bufs[0])), uintptr(r.size),
		unix.MSG_TRUNC, uintptr(unsafe.Pointer(&r.from[0])), uintptr(unsafe.Pointer(&h.hdr.Namelen)))
	if errno != 0 {
		return 0, errno
	}
	h.n, h.hdr.Flags = uint32(got), 0
	if int(got) > r.size {
		h.n, h.hdr.Flags = uint32(r.size), unix.MSG_TRUNC
	}
	r.used = 1
	return 1, 0
}

// MakeWait prepares the socket fd for Wait, of at most d. Its descriptor becomes a
// blocking one, for everybody who shares it; Recv, More and Flush don't mind.
func MakeWait(fd int, d time.Duration) syscall.Errno {
	t := unix.NsecToTimeval(int64(d))
	if errno := setsockopt(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, unsafe.Pointer(&t), unsafe.Sizeof(t)); errno != 0 {
		return errno
	}
	flags, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_GETFL, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	return errno
}
