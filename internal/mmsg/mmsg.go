//go:build linux

// Package mmsg receives and sends UDP datagrams in batches, with recvmmsg(2)
// and sendmmsg(2), and does not wait in the kernel, but for Receiver.Wait. It is
// the only package that uses unsafe.
//
// The system calls are raw: they do not tell Go's scheduler. That is right for
// calls that cannot block and are short, and halves what they cost; waiting is
// left to Go's poller (syscall.RawConn). Receiver and Sender belong to one
// goroutine at a time; neither owns a file descriptor.
//
// Read and Write are the same for stream sockets. The package is not for
// control messages.
package mmsg

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Addr is a UDP address in the form in which the kernel gives and takes it, so
// that a reply needs no conversion. The zero Addr is no address. Addrs that
// came from sockets of one family can be compared with ==.
type Addr struct {
	raw unix.RawSockaddrInet6 // a sockaddr_in lies in the first 16 bytes
}

// AddrFrom makes an Addr. A zone must be a number (an interface's index).
func AddrFrom(ap netip.AddrPort) Addr {
	var a Addr
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], ap.Port())
	a.raw.Port = binary.NativeEndian.Uint16(port[:])
	ip := ap.Addr().Unmap()
	if ip.Is4() {
		a.raw.Family = unix.AF_INET
		b := ip.As4()
		a.raw.Flowinfo = binary.NativeEndian.Uint32(b[:]) // where sin_addr lies
		return a
	}
	a.raw.Family = unix.AF_INET6
	a.raw.Addr = ip.As16()
	if zone, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
		a.raw.Scope_id = uint32(zone)
	}
	return a
}

// Port is the UDP port.
func (a *Addr) Port() uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], a.raw.Port)
	return binary.BigEndian.Uint16(b[:])
}

// AddrPort converts a. The zero Addr gives the zero AddrPort.
func (a *Addr) AddrPort() netip.AddrPort {
	switch a.raw.Family {
	case unix.AF_INET:
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], a.raw.Flowinfo)
		return netip.AddrPortFrom(netip.AddrFrom4(b), a.Port())
	case unix.AF_INET6:
		ip := netip.AddrFrom16(a.raw.Addr)
		if a.raw.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(a.raw.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, a.Port())
	}
	return netip.AddrPort{}
}

// String is AddrPort's.
func (a Addr) String() string { return a.AddrPort().String() }

func (a *Addr) size() uint32 {
	if a.raw.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// mmsghdr is struct mmsghdr; the compiler pads its end as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// Receiver is a set of buffers to receive datagrams into. All of it is
// allocated once.
type Receiver struct {
	size int // of one buffer, bytes
	used int // datagrams received since the last Reset
	hdrs []mmsghdr
	iovs []unix.Iovec
	from []Addr
	bufs []byte
}

// NewReceiver makes a Receiver of batch buffers of size bytes each. An odd
// multiple of 64 is a good size: with a power of two the buffers' beginnings
// compete for the same few lines of the processor's cache.
func NewReceiver(batch, size int) *Receiver {
	r := &Receiver{size: size, hdrs: make([]mmsghdr, batch), iovs: make([]unix.Iovec, batch),
		from: make([]Addr, batch), bufs: make([]byte, batch*size)}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i*size]
		r.iovs[i].SetLen(size)
		h := &r.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		h.Namelen = uint32(unsafe.Sizeof(Addr{}))
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
	}
	return r
}

// Cap is the number of buffers.
func (r *Receiver) Cap() int { return len(r.hdrs) }

// Room is the number of buffers not in use.
func (r *Receiver) Room() int { return len(r.hdrs) - r.used }

// Reset makes all buffers free again.
func (r *Receiver) Reset() {
	for i := range r.hdrs[:r.used] {
		r.hdrs[i].hdr.Namelen = uint32(unsafe.Sizeof(Addr{}))
	}
	r.used = 0
}

// Recv frees all buffers and receives what waits on the socket fd, without
// blocking; it returns the number of datagrams, which are 0 to n-1. The errno
// is 0 if and only if n is above 0; EAGAIN means that there are none. A number
// below Cap means that the socket was empty, or had an error pending, just now.
func (r *Receiver) Recv(fd int) (n int, errno syscall.Errno) {
	r.Reset()
	_, n, errno = r.More(fd)
	return n, errno
}

// More is Recv into the buffers that are not in use yet; there must be Room.
// The first datagram received is number first.
func (r *Receiver) More(fd int) (first, n int, errno syscall.Errno) {
	first = r.used
	got, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdrs[first])),
		uintptr(len(r.hdrs)-first), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return first, 0, errno
	}
	r.used += int(got)
	return first, int(got), 0
}

// Buf is the whole buffer of datagram i, of the size given to NewReceiver.
func (r *Receiver) Buf(i int) []byte { return r.bufs[i*r.size : (i+1)*r.size : (i+1)*r.size] }

// Len is the number of bytes received as datagram i.
func (r *Receiver) Len(i int) int { return int(r.hdrs[i].n) }

// Truncated reports whether datagram i was longer than its buffer.
func (r *Receiver) Truncated(i int) bool { return r.hdrs[i].hdr.Flags&unix.MSG_TRUNC != 0 }

// From is the sender of datagram i. What it points to changes with the next
// datagram received as number i.
func (r *Receiver) From(i int) *Addr { return &r.from[i] }

// Sender collects datagrams and sends them together. All of it is allocated
// once.
type Sender struct {
	n    int
	hdrs []mmsghdr
	iovs []unix.Iovec
}

// NewSender makes a Sender of up to batch datagrams.
func NewSender(batch int) *Sender {
	s := &Sender{hdrs: make([]mmsghdr, batch), iovs: make([]unix.Iovec, batch)}
	for i := range s.hdrs {
		s.hdrs[i].hdr.Iov = &s.iovs[i]
		s.hdrs[i].hdr.SetIovlen(1)
	}
	return s
}

// Len is the number of datagrams that wait for Flush.
func (s *Sender) Len() int { return s.n }

// Add puts a datagram, which is not empty, behind those that wait. Neither buf
// nor to is copied: they must stay as they are until Flush. to is nil on a
// connected socket.
func (s *Sender) Add(buf []byte, to *Addr) {
	i := s.n
	s.n++
	s.iovs[i].Base = &buf[0]
	s.iovs[i].SetLen(len(buf))
	h := &s.hdrs[i].hdr
	if to == nil {
		h.Name, h.Namelen = nil, 0
		return
	}
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(to)), to.size()
}

// Drop forgets what waits.
func (s *Sender) Drop() { s.n = 0 }

const (
	sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	waitTries = 10 // times waitMilli, for a full send buffer
	waitMilli = 5
)

// Flush sends what waits, through the socket fd, and empties s. What the kernel
// has no room for is tried again for up to 50 ms, in which the goroutine waits;
// what it refuses (a pending ICMP error, a destination that cannot be) is
// skipped. lost is the number of datagrams that did not leave, err the reason
// of the last of them.
func (s *Sender) Flush(fd int) (lost int, err error) {
	at, tries := 0, 0
	for at < s.n {
		n, errno := s.send(fd, at)
		switch errno {
		case 0:
			at += n
		case unix.EINTR:
		case unix.EAGAIN, unix.ENOBUFS:
			if tries++; tries <= waitTries {
				waitWritable(fd, errno)
				continue
			}
			lost, err = lost+s.n-at, errno
			at = s.n
		default:
			lost, err = lost+1, errno
			at++
		}
	}
	s.n = 0
	return lost, err
}

// send sends the datagrams from number at on and returns how many left.
func (s *Sender) send(fd, at int) (n int, errno syscall.Errno) {
	if s.n-at == 1 { // cheaper than sendmmsg of one: no headers to copy
		h := &s.hdrs[at].hdr
		_, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(h.Iov.Base)), uintptr(h.Iov.Len), sendFlags,
			uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
		return 1, errno
	}
	got, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&s.hdrs[at])), uintptr(s.n-at), sendFlags, 0, 0)
	return int(got), errno
}

// waitWritable waits a little for room in the send buffer. ENOBUFS comes from
// the device's queue, which poll(2) knows nothing of: the time alone must do.
func waitWritable(fd int, errno syscall.Errno) {
	if errno == unix.ENOBUFS {
		_, _ = unix.Poll(nil, waitMilli)
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, waitMilli)
}

// Read is read(2) on a non-blocking stream socket. n is 0 at its end.
func Read(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// Write is write(2) on a non-blocking stream socket, without SIGPIPE.
func Write(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), sendFlags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}
