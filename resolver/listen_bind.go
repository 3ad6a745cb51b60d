package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindAll binds all addresses or none.
func (r *Resolver) bindAll(addrs []netip.AddrPort) ([]*endpoint, error) {
	var eps []*endpoint
	var errs []error
	for _, a := range addrs {
		e, err := r.bindIfPossible(a)
		if err != nil {
			errs = append(errs, err)
		} else if e != nil {
			eps = append(eps, e)
		}
	}
	if len(eps) == 0 && len(errs) == 0 {
		errs = append(errs, errNoAddress)
	}
	if len(errs) > 0 {
		for _, e := range eps {
			e.close()
		}
		return nil, errors.Join(errs...)
	}
	return eps, nil
}

var errNoAddress = errors.New("no address to listen on")

// bindIfPossible is bind, but an IPv6 loopback address that this host does not
// have is left out with a warning (requirement 18): nil and no error.
func (r *Resolver) bindIfPossible(a netip.AddrPort) (*endpoint, error) {
	e, err := r.bind(a)
	if err != nil && isMissingIPv6(a, err) {
		r.log.Warn("this host has no IPv6; not listening there", "address", a.String())
		return nil, nil
	}
	return e, err
}

func isMissingIPv6(a netip.AddrPort, err error) bool {
	return a.Addr().Is6() && a.Addr().IsLoopback() &&
		(errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT))
}

// portTries bounds the search for a port that is free for UDP and TCP.
const portTries = 50

func (r *Resolver) bind(want netip.AddrPort) (*endpoint, error) {
	for try := 1; ; try++ {
		e, err := r.bindOnce(want)
		if err == nil || want.Port() != 0 || try == portTries || !errors.Is(err, syscall.EADDRINUSE) {
			return e, err
		}
	}
}

func (r *Resolver) bindOnce(want netip.AddrPort) (*endpoint, error) {
	e := &endpoint{want: want, given: make(map[any]bool)}
	conns, err := r.udpFor(e, want)
	if err != nil {
		return nil, listenError("udp", want, err)
	}
	e.addr = localAddr(conns[0].LocalAddr())
	ln, err := r.tcpFor(e)
	if err != nil {
		closeAll(conns)
		return nil, listenError("tcp", e.addr, err)
	}
	e.tcp = &tcpListener{s: r.tcp, end: e, ln: ln}
	for i, c := range conns {
		l, err := newUDPListener(r, e, c)
		if err != nil {
			ln.Close()
			closeAll(conns[i:])
			for _, l := range e.udp {
				l.close()
			}
			return nil, listenError("udp", e.addr, err)
		}
		e.udp = append(e.udp, l)
	}
	e.openOutlets()
	return e, nil
}

// udpFor are the sockets of one address: those that were handed over, all of
// them, since queries wait in each, and new ones up to the number wanted. More
// than handed over can't always be had: the kernel lets only sockets of one
// user share a port.
func (r *Resolver) udpFor(e *endpoint, want netip.AddrPort) ([]*net.UDPConn, error) {
	conns := r.inherited.udp(want)
	if len(conns) == 0 {
		return bindUDP(want, r.listeners)
	}
	for _, c := range conns {
		e.given[c] = true
	}
	addr := localAddr(conns[0].LocalAddr())
	for len(conns) < r.listeners {
		c, err := joinUDP(addr, conns)
		if err != nil {
			r.log.Info("fewer sockets than processors", "address", addr.String(), "sockets", len(conns),
				"processors", r.listeners, "error", err)
			break
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// joinUDP binds one more socket beside those that have the address, and beside
// the outlets (udp_out.go) of an instance that still has them.
func joinUDP(addr netip.AddrPort, conns []*net.UDPConn) (*net.UDPConn, error) {
	for _, c := range conns {
		if err := setOption(c, unix.SO_REUSEPORT, 1); err != nil {
			return nil, err
		}
	}
	c, err := bindOneUDP(addr, unix.SO_REUSEPORT, unix.SO_REUSEADDR)
	if err == nil {
		_ = setOption(c, unix.SO_REUSEADDR, 0)
	}
	return c, err
}

// tcpBacklog is how many connections may wait to be accepted; the kernel caps it
// at net.core.somaxconn. Go reads that from /proc/sys, which a sandbox may hide,
// and then asks for 128.
const tcpBacklog = 4096

func (r *Resolver) tcpFor(e *endpoint) (*net.TCPListener, error) {
	ln := r.inherited.tcp(e.addr)
	if ln != nil {
		e.given[ln] = true
	} else {
		lc := net.ListenConfig{KeepAlive: -1} // idle connections are closed by us long before
		l, err := lc.Listen(context.Background(), network("tcp", e.addr), e.addr.String())
		if err != nil {
			return nil, err
		}
		ln = l.(*net.TCPListener)
	}
	if rc, err := ln.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.Listen(int(fd), tcpBacklog) })
	}
	return ln, nil
}

// network keeps 0.0.0.0 to IPv4, which Go would bind for both families.
func network(proto string, addr netip.AddrPort) string {
	if addr.Addr().Is4() {
		return proto + "4"
	}
	return proto
}

// localAddr is the address of a UDP or TCP socket.
func localAddr(a net.Addr) (ap netip.AddrPort) {
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func closeAll(conns []*net.UDPConn) {
	for _, c := range conns {
		c.Close()
	}
}

// bindUDP makes n sockets for one address, among which the kernel spreads the
// clients. The first is bound without SO_REUSEPORT, so that this fails if
// anybody else has the port, a second instance of ours included (requirement
// 97); it gets the option afterwards, when the port is taken, so that our others
// may join. A single socket stays without: the kernel then need not hash.
func bindUDP(addr netip.AddrPort, n int) ([]*net.UDPConn, error) {
	var conns []*net.UDPConn
	for i := range n {
		var shared []int
		if i > 0 {
			shared = []int{unix.SO_REUSEPORT}
		}
		c, err := bindOneUDP(addr, shared...)
		if err == nil {
			conns = append(conns, c)
			if i == 0 && n > 1 {
				err = setOption(c, unix.SO_REUSEPORT, 1)
			}
		}
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		addr = netip.AddrPortFrom(addr.Addr(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
	}
	return conns, nil
}

// udpReceiveBuffer is asked for in bytes; the kernel doubles it for its own
// needs, and caps it at net.core.rmem_max unless we may override that. A
// waiting query counts for about 770 bytes: 1 MiB is a burst of 2,700
// (requirement 75 wants 500). Memory is used only while queries wait.
const udpReceiveBuffer = 1 << 20

// setReceiveBuffer sees to it that the UDP socket fd has a receive buffer of at least
// udpReceiveBuffer, as far as we may: who bound it may have asked for more.
func setReceiveBuffer(fd int) error {
	if now, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil && now >= 2*udpReceiveBuffer {
		return nil
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpReceiveBuffer) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, udpReceiveBuffer)
}

// bindOneUDP sets options of SOL_SOCKET, such as SO_REUSEPORT, before it binds.
func bindOneUDP(addr netip.AddrPort, options ...int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			err = setReceiveBuffer(int(fd))
			for _, o := range options {
				if err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1)
				}
			}
		})
		return errors.Join(cerr, err)
	}}
	c, err := lc.ListenPacket(context.Background(), network("udp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// setOption sets an option of SOL_SOCKET.
func setOption(c *net.UDPConn, option, value int) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value)
	})
	return errors.Join(cerr, err)
}
