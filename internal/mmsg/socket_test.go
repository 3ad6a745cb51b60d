//go:build linux

package mmsg

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitEvent polls an epoll set until it has an event.
func waitEvent(t *testing.T, epoll int) unix.EpollEvent {
	t.Helper()
	var events [1]unix.EpollEvent
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if EpollWait(epoll, events[:]) == 1 {
			return events[0]
		}
	}
	t.Fatal("no event came")
	return events[0]
}

// connected makes a connection to an address and returns its socket, which the caller closes, and the
// set it is in.
func connected(t *testing.T, to netip.AddrPort) (fd, epoll int) {
	t.Helper()
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, errno := Socket(family)
	if errno != 0 {
		t.Fatal(errno)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(epoll) })
	if errno := EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)}); errno != 0 {
		t.Fatal(errno)
	}
	a := AddrFrom(to)
	if errno := Connect(fd, &a); errno != 0 && errno != unix.EINPROGRESS {
		t.Fatal(errno)
	}
	return fd, epoll
}

func TestSocket(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", host)
		if err != nil {
			t.Logf("%s: %v", host, err) // a host without IPv6
			continue
		}
		defer l.Close()
		fd, epoll := connected(t, netip.MustParseAddrPort(l.Addr().String()))
		if e := waitEvent(t, epoll); int(e.Fd) != fd || e.Events&unix.EPOLLOUT == 0 {
			t.Errorf("%s: event %+v", host, e)
		}
		if errno := SocketError(fd); errno != 0 {
			t.Error(host, errno)
		}
		if errno := SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); errno != 0 {
			t.Error(host, errno)
		}
		if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); on == 0 || err != nil {
			t.Errorf("%s: TCP_NODELAY is %d, %v", host, on, err)
		}
		if errno := SetLinger(fd, unix.Linger{Onoff: 1}); errno != 0 {
			t.Error(host, errno)
		}
		info, errno := TCPInfo(fd)
		if errno != 0 || info.State != 1 || info.Rtt == 0 { // 1: established
			t.Errorf("%s: %v, state %d, round trip %d us", host, errno, info.State, info.Rtt)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		Close(fd) // with a reset, as it does not linger
		if _, err := peer.Read(make([]byte, 1)); err == nil || err.Error() == "EOF" {
			t.Errorf("%s: no reset: %v", host, err)
		}
		peer.Close()
	}
}

func TestSocketErrorOfARefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	fd, epoll := connected(t, to)
	defer Close(fd)
	waitEvent(t, epoll)
	if errno := SocketError(fd); errno != unix.ECONNREFUSED {
		t.Errorf("%v", errno)
	}
}

func TestSetTimer(t *testing.T) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	rings := func() bool {
		var count [8]byte
		n, errno := Read(fd, count[:])
		return n == 8 && errno == 0
	}
	if errno := SetTimer(fd, time.Hour); errno != 0 || rings() {
		t.Errorf("an hour: %v, or it rings", errno)
	}
	for _, d := range []time.Duration{5 * time.Millisecond, 0, -time.Second} {
		if errno := SetTimer(fd, d); errno != 0 {
			t.Fatal(errno)
		}
		deadline := time.Now().Add(10 * time.Second)
		for !rings() {
			if time.Now().After(deadline) {
				t.Fatalf("%v: it never rang", d)
			}
			time.Sleep(time.Millisecond)
		}
	}
}
