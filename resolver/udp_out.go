package resolver

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Replies from a loopback address leave by a socket of their own, the listener's outlet, bound to the same address.
//
// When a datagram has left, the kernel wakes who waits on its socket, as there is room for another one. The poller
// waits on the listener's socket, for queries, so that each reply made it look for nothing: 5 % of the processor's
// time for a query (docs/performance.md). Nobody waits on an outlet. It is connected, to itself, so that the kernel
// gives it no query.

// openOutlets gives each listener of an endpoint an outlet. Where that cannot be, replies leave by the listener's own
// socket, as from all other addresses.
func (e *endpoint) openOutlets() {
	if !e.addr.Addr().IsLoopback() {
		return
	}
	// Sockets may have one address if all of them say so when one is bound. The listeners say so no longer than needed:
	// nobody else shall have it. Outlets go on, as a successor's may have to join a predecessor's.
	for _, l := range e.udp {
		tuneLoopback(l.fd, e.addr.Addr())
		setReuse(l.fd, 1)
		defer setReuse(l.fd, 0)
	}
	for _, l := range e.udp {
		if fd, err := newOutlet(e.addr); err == nil {
			l.out = fd
		} else {
			l.r.log.Debug("replies leave by the listening socket", "address", e.addr.String(), "error", err)
		}
	}
}

func newOutlet(addr netip.AddrPort) (fd int, err error) {
	family, self := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	if addr.Addr().Is4() {
		family, self = unix.AF_INET, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	tuneLoopback(fd, addr.Addr())
	setReuse(fd, 1)
	if err = unix.Bind(fd, self); err == nil {
		err = unix.Connect(fd, self)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// serveOutlet serves the queries that the outlet has got between bind and connect, where the address was served before:
// in place of another instance. After that it gets none.
func (l *udpListener) serveOutlet() {
	if l.out == l.fd {
		return
	}
	defer l.recovered()
	for {
		n, errno := l.rx.Recv(l.out)
		if errno != 0 {
			break
		}
		l.n, l.next = n, 0
		l.serve()
	}
	_ = unix.SetsockoptInt(l.out, unix.SOL_SOCKET, unix.SO_RCVBUF, 0) // the least there is: nothing more is read
}

func setReuse(fd, on int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, on) }

// tuneLoopback says for the UDP socket of a loopback address that no reply is ever to be fragmented: what we send fits
// the loopback device many times over, and the kernel then need not draw an IPv4 identification for each reply, an atomic
// operation on a table shared by all processors: 3 % of a query. IPv6 has none. An error means that it stays as it is.
func tuneLoopback(fd int, addr netip.Addr) {
	if addr.Is4() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
}
