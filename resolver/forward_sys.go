package resolver

import (
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connectUDP opens a non-blocking UDP socket connected to ap.
func connectUDP(ap netip.AddrPort) (int, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if a := ap.Addr().Unmap(); a.Is4() {
		sa = &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(ap.Port()), Addr: a.As16(), ZoneId: zoneIndex(a.Zone())}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sa); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// isHostAddr reports whether a belongs to one of this host's interfaces.
func isHostAddr(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, x := range addrs {
		if p, ok := x.(*net.IPNet); ok {
			if b, ok := netip.AddrFromSlice(p.IP); ok && b.Unmap() == a.WithZone("") {
				return true
			}
		}
	}
	return false
}

// watch puts fd into the lane's epoll, edge-triggered: it is drained each time.
func (l *lane) watch(fd, index int, mix uint32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | 1<<31 /* EPOLLET */, Fd: int32(index), Pad: int32(mix)}
	var err error
	if cerr := l.control(func(ep int) { err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev) }); cerr != nil {
		return cerr
	}
	return err
}

func (l *lane) control(fn func(ep int)) error {
	rc, err := l.epoll.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Control(func(fd uintptr) { fn(int(fd)) })
}

// The batches below use raw system calls: the descriptors never block, so the
// scheduler need not be told of them.

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

const (
	maxEvents  = 64
	rxPackets  = 32
	rxSize     = 4096 // an upstream that was told 1232 has no reason to send more
	maxPacketX = rxSize + fitRoom
)

// rxBatch is what one reader receives into.
type rxBatch struct {
	used   int // packets in use, from 0
	events [maxEvents]unix.EpollEvent
	hdrs   [rxPackets]mmsghdr
	iovs   [rxPackets]unix.Iovec
	bufs   [rxPackets][maxPacketX]byte
}

func newRxBatch() *rxBatch {
	r := new(rxBatch)
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(rxSize)
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
	}
	return r
}

func (r *rxBatch) room() int { return rxPackets - r.used }

// wait returns the number of sockets that have something, without waiting.
func (r *rxBatch) wait(epfd int) int {
	n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&r.events)), maxEvents, 0, 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func (r *rxBatch) event(i int) (index int, mix uint32) {
	return int(r.events[i].Fd), uint32(r.events[i].Pad)
}

// recvmmsg receives into the unused packets; the first got is number first.
func (r *rxBatch) recvmmsg(fd int) (first, n int, err error) {
	first = r.used
	got, _, e := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdrs[first])),
		uintptr(rxPackets-first), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return first, 0, e
	}
	r.used += int(got)
	return first, int(got), nil
}

// packet returns packet i, with room behind it.
func (r *rxBatch) packet(i int) (buf []byte, n int, cut bool) {
	h := &r.hdrs[i]
	return r.bufs[i][:], int(h.n), h.hdr.Flags&unix.MSG_TRUNC != 0
}

// txBatch is what one lane sends from.
type txBatch struct {
	n    int
	at   [sendBatch]*attempt
	msgs [sendBatch][]byte
	hdrs [sendBatch]mmsghdr
	iovs [sendBatch]unix.Iovec
}

// sendmmsg sends msgs[from:to] to the peer of fd and returns how many went.
func (t *txBatch) sendmmsg(fd, from, to int) (int, error) {
	if to-from == 1 {
		m := t.msgs[from]
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e != 0 {
			return 0, e
		}
		return 1, nil
	}
	for i := from; i < to; i++ {
		t.iovs[i].Base = &t.msgs[i][0]
		t.iovs[i].SetLen(len(t.msgs[i]))
		t.hdrs[i].hdr.Iov = &t.iovs[i]
		t.hdrs[i].hdr.SetIovlen(1)
	}
	n, _, e := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&t.hdrs[from])), uintptr(to-from),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
