package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/answer"
	"hard/internal/mmsg"
	"hard/internal/wire"
)

// asker is where a query came from and how its reply goes back. It is a value,
// to be copied freely and kept as long as wanted.
type asker struct {
	to   replier
	addr mmsg.Addr
	at   int64 // when the query came, in nanoseconds of Resolver.sinceStart; 0 = not known
}

// replier is one way for replies: *udpListener, *tcpConn or *inProcess. Its
// methods may be called from any goroutine, do not block, and drop the reply
// if the client is gone. msg is not kept; an empty one means that there will be
// no reply.
type replier interface {
	writeReply(from asker, source source, msg []byte)
	transport() wire.Transport
	later(n int32) // counts queries whose reply comes by writeReply
}

// replyAs sends the reply, which comes from s (metrics).
func (a asker) replyAs(s source, msg []byte) { a.to.writeReply(a, s, msg) }

func (a asker) transport() wire.Transport { return a.to.transport() }

func (a asker) tcp() bool { return a.to.transport().TCP }

// peer is the client's address; the zero AddrPort for a query of our own.
func (a asker) peer() netip.AddrPort { return a.addr.AddrPort() }

// request is a query on its way to the forwarder: valid only during the call.
type request struct {
	msg   []byte
	q     *wire.Query
	entry *answer.Entry // nil when the name is not ours
	from  asker
}

// outMessage is one reply of a batch. The zero source is sourceForward.
type outMessage struct {
	from   asker
	msg    []byte
	source source
}

// sendReplies sends replies to any clients, those over UDP with as few system
// calls as there are runs of one listen address. Nothing of out is kept.
func sendReplies(out []outMessage) {
	for i := 0; i < len(out); {
		l, ok := out[i].from.to.(*udpListener)
		if !ok {
			out[i].from.replyAs(out[i].source, out[i].msg)
			i++
			continue
		}
		to := i + 1
		for to < len(out) && to-i < udpBatch && l.sendsFor(out[to].from.to) {
			to++
		}
		l.writeReplies(out[i:to])
		i = to
	}
}

// inProcess is the replier of Resolver.Ask.
type inProcess struct {
	r       *Resolver
	replies chan []byte // has room for one
}

func (c *inProcess) writeReply(from asker, s source, msg []byte) {
	if len(msg) == 0 {
		return
	}
	c.r.noteTCP(&from, s, msg)
	select {
	case c.replies <- append([]byte(nil), msg...):
	default:
	}
}

func (c *inProcess) transport() wire.Transport { return wire.Transport{TCP: true} }

func (c *inProcess) later(int32) {}

// endpoint is one address of [listen].dns: some UDP sockets and a TCP socket
// with the same port. Immutable but for retire.
type endpoint struct {
	want netip.AddrPort // as configured, perhaps with port 0
	addr netip.AddrPort // as bound
	udp  []*udpListener
	tcp  *tcpListener
	wg   sync.WaitGroup // their goroutines

	mu     sync.Mutex  // guards the rest
	retire *time.Timer // closes the sockets of an address that was given up
	closed bool
}

func (e *endpoint) start() {
	for _, l := range e.udp {
		e.wg.Add(1)
		go l.run()
	}
	e.wg.Add(1)
	go e.tcp.run()
}

// stopReading takes no more queries and joins the goroutines that did. Replies
// can still be sent.
func (e *endpoint) stopReading() {
	for _, l := range e.udp {
		l.stopReading()
	}
	e.tcp.ln.Close()
	e.wg.Wait()
}

// close closes the sockets. It may be called again.
func (e *endpoint) close() {
	e.mu.Lock()
	e.closed = true
	if e.retire != nil {
		e.retire.Stop()
	}
	e.mu.Unlock()
	for _, l := range e.udp {
		l.close()
	}
	e.tcp.ln.Close()
}

func (e *endpoint) setRetire(t *time.Timer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		t.Stop()
	}
	e.retire = t
}

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
	conns, err := bindUDP(want, r.listeners)
	if err != nil {
		return nil, listenError("udp", want, err)
	}
	addr := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	lc := net.ListenConfig{KeepAlive: -1} // idle connections are closed by us long before
	ln, err := lc.Listen(context.Background(), "tcp", addr.String())
	if err != nil {
		closeAll(conns)
		return nil, listenError("tcp", addr, err)
	}
	e := &endpoint{want: want, addr: addr}
	e.tcp = &tcpListener{s: r.tcp, end: e, ln: ln.(*net.TCPListener)}
	for i, c := range conns {
		l, err := newUDPListener(r, e, c)
		if err != nil {
			ln.Close()
			closeAll(conns[i:])
			for _, l := range e.udp {
				l.close()
			}
			return nil, listenError("udp", addr, err)
		}
		e.udp = append(e.udp, l)
	}
	e.openOutlets()
	return e, nil
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
		c, err := bindOneUDP(addr, i > 0)
		if err == nil {
			conns = append(conns, c)
			if i == 0 && n > 1 {
				err = setReusePort(c)
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

func bindOneUDP(addr netip.AddrPort, shared bool) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpReceiveBuffer) != nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, udpReceiveBuffer)
			}
			if err == nil && shared {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		return errors.Join(cerr, err)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func setReusePort(c *net.UDPConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(cerr, err)
}
