package resolver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Sockets that somebody else has bound may be given to a Resolver: the service
// manager (socket activation), or the instance that we replace. They are told
// apart by what they are: address, UDP or TCP. Queries and connections that wait
// in them are served like any others.

// inheritance is what was given and nobody has claimed yet.
type inheritance struct {
	packets   []*net.UDPConn
	listeners []*net.TCPListener
}

// inherit makes connections of files, which it closes. What is no UDP socket or
// TCP listener of ours is left out with a warning; so is a socket that was given
// twice, which systemd may do.
func inherit(files []*os.File, log *slog.Logger) *inheritance {
	in := new(inheritance)
	seen := make(map[uint64]bool)
	for _, f := range files {
		var st unix.Stat_t
		err := unix.Fstat(int(f.Fd()), &st)
		if err == nil && seen[st.Ino] {
			f.Close()
			continue
		}
		seen[st.Ino] = true
		if err == nil {
			err = in.add(f)
		}
		if err != nil {
			log.Warn("a descriptor that was handed over is closed", "name", f.Name(), "error", err)
		}
		f.Close()
	}
	return in
}

// add duplicates f, whose descriptor must not be made a blocking one: its flags
// are shared with whoever else has the socket.
func (in *inheritance) add(f *os.File) error {
	fd := int(f.Fd())
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return err
	}
	inet := domain == unix.AF_INET || domain == unix.AF_INET6
	switch {
	case inet && kind == unix.SOCK_DGRAM:
		c, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		u, ok := c.(*net.UDPConn)
		if !ok || u.RemoteAddr() != nil || localAddr(u.LocalAddr()).Port() == 0 {
			c.Close()
			return errors.New("not a bound UDP socket without a peer")
		}
		_ = setReceiveBuffer(fd) // a smaller one holds fewer queries over a restart, and is no reason not to serve
		in.packets = append(in.packets, u)
	case inet && kind == unix.SOCK_STREAM && accepts == 1:
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		t, ok := l.(*net.TCPListener)
		if !ok {
			l.Close()
			return errors.New("not a TCP socket")
		}
		in.listeners = append(in.listeners, t)
	default:
		return fmt.Errorf("neither a UDP socket nor a TCP listener (domain %d, type %d)", domain, kind)
	}
	return nil
}

// udp are all sockets for want, none if there is none. Port 0 is that of the
// first socket with this address.
func (in *inheritance) udp(want netip.AddrPort) (conns []*net.UDPConn) {
	in.packets = slices.DeleteFunc(in.packets, func(c *net.UDPConn) bool {
		a := localAddr(c.LocalAddr())
		if want.Port() == 0 && a.Addr() == want.Addr() {
			want = a
		}
		if a != want {
			return false
		}
		conns = append(conns, c)
		return true
	})
	return conns
}

// tcp is the listener for addr, nil if there is none.
func (in *inheritance) tcp(addr netip.AddrPort) *net.TCPListener {
	i := slices.IndexFunc(in.listeners, func(l *net.TCPListener) bool { return localAddr(l.Addr()) == addr })
	if i < 0 {
		return nil
	}
	l := in.listeners[i]
	in.listeners = slices.Delete(in.listeners, i, i+1)
	return l
}

// close closes what nobody claimed, and returns the addresses.
func (in *inheritance) close(log *slog.Logger) (left []netip.AddrPort) {
	note := func(proto string, a net.Addr) {
		left = append(left, localAddr(a))
		log.Warn("a socket that was handed over is closed: [listen].dns does not name its address",
			"address", localAddr(a).String(), "protocol", proto)
	}
	for _, c := range in.packets {
		note("udp", c.LocalAddr())
		c.Close()
	}
	for _, l := range in.listeners {
		note("tcp", l.Addr())
		l.Close()
	}
	*in = inheritance{}
	return left
}

// Socket is a duplicate of one of the Resolver's sockets: the same queue and the
// same flags. Whoever asked for it closes File.
type Socket struct {
	Addr  netip.AddrPort // as bound
	File  *os.File
	Given bool // it was not bound by us: Options.Inherited had it
}

// Sockets duplicates all sockets that are served, UDP before TCP for each
// address, in the configuration's order.
func (r *Resolver) Sockets() ([]Socket, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Socket
	var errs []error
	add := func(e *endpoint, proto string, given bool, fd int) {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, os.NewSyscallError("dup", err))
			return
		}
		all = append(all, Socket{e.addr, os.NewFile(uintptr(n), proto+" "+e.addr.String()), given})
	}
	for _, e := range r.endpoints {
		for _, l := range e.udp {
			add(e, "udp", l.given, l.fd)
		}
		rc, err := e.tcp.ln.SyscallConn()
		if err == nil {
			err = rc.Control(func(fd uintptr) { add(e, "tcp", e.given[e.tcp.ln], int(fd)) })
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		for _, s := range all {
			s.File.Close()
		}
		return nil, err
	}
	return all, nil
}
