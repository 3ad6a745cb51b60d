package resolver

import (
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"hard/internal/mmsg"
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
	return unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// maxEvents is how many sockets are looked at between two looks for more.
const maxEvents = 64

// rxBatch is what a lane's reader receives into.
type rxBatch struct {
	*mmsg.Receiver
	events [maxEvents]unix.EpollEvent
}

const (
	rxPackets = 32
	rxSize    = 4096 // an upstream that was told 1232 has no reason to send more
)

func newRxBatch() *rxBatch { return &rxBatch{Receiver: mmsg.NewReceiver(rxPackets, rxSize+fitRoom)} }

// wait returns the number of sockets that have something, without waiting.
func (r *rxBatch) wait(epfd int) int { return mmsg.EpollWait(epfd, r.events[:]) }

func (r *rxBatch) event(i int) (index int, mix uint32) {
	return int(r.events[i].Fd), uint32(r.events[i].Pad)
}

// packet returns datagram i, with fitRoom behind it; cut: it was longer.
func (r *rxBatch) packet(i int) (buf []byte, n int, cut bool) {
	n = min(r.Len(i), rxSize)
	return r.Buf(i), n, r.Truncated(i) || n < r.Len(i)
}
