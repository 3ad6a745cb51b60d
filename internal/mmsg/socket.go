//go:build linux

package mmsg

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a client's stream socket needs, as raw calls, for a process that is idle between its probes:
// the first ordinary call after an idle time wakes the scheduler's monitor thread, which then looks
// around every 20 us or so for as long as anything runs.

// Socket makes a non-blocking TCP socket of a family, closed on exec.
func Socket(family int) (fd int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int(r), errno
}

// Connect begins to connect a non-blocking socket.
func Connect(fd int, to *Addr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size()))
	return errno
}

// Close closes a socket that does not linger, an epoll set or the like: nothing that may block.
func Close(fd int) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	return errno
}

// SetInt sets a socket option that is an integer.
func SetInt(fd, level, option int, value int32) syscall.Errno {
	return setsockopt(fd, level, option, unsafe.Pointer(&value), unsafe.Sizeof(value))
}

// SetLinger sets SO_LINGER.
func SetLinger(fd int, l unix.Linger) syscall.Errno {
	return setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&l), unsafe.Sizeof(l))
}

func setsockopt(fd, level, option int, value unsafe.Pointer, size uintptr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(value), size, 0)
	return errno
}

// SocketError takes the pending error of a socket, as connecting leaves one; 0 is none.
func SocketError(fd int) syscall.Errno {
	var value int32
	size := uint32(unsafe.Sizeof(value))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return syscall.Errno(value)
}

// TCPInfo asks the kernel what it knows of a connection.
func TCPInfo(fd int) (info unix.TCPInfo, errno syscall.Errno) {
	size := uint32(unsafe.Sizeof(info))
	_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info, errno
}

// EpollCtl changes an epoll set.
func EpollCtl(epfd, op, fd int, event *unix.EpollEvent) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0)
	return errno
}

// SetTimer makes a timerfd ring once, after d; at once when d is not positive.
func SetTimer(fd int, d time.Duration) syscall.Errno {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))}
	_, _, errno := syscall.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	return errno
}
