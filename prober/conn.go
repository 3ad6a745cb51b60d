package prober

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/mmsg"
)

// conn is one TCP connection of a probe. It ends with the probe: at its deadline, and when the
// probe is aborted. Only the probe's goroutine uses it.
//
// Closing sends a reset (SO_LINGER 0), as HAProxy's checks do: the verdict is reached, and an
// orderly end would cost two more packets and, whenever we close first, leave a local port in
// TIME_WAIT for a minute. At 2,000 probes a second that is more ports than there are.
type conn struct {
	r      *reactor
	pr     *probe
	fd     int
	added  bool
	virgin bool      // nothing was read yet and a reply can't have come: wait before the first read
	graced bool      // the deadline was noticed late, but what was waited for had come
	step   time.Time // when the last connect or write began, or read ended
	heard  bool      // it was a read: the peer waits for us
	wake   chan struct{}
	ready  atomic.Bool // what was waited for has come
	over   atomic.Bool // the deadline has passed
	alarm  alarm       // rings at the deadline, while added
}

// Our own process may be late: stopped, suspended, or without CPU. What it was late at each step is
// excused (probe.excuse): told by the kernel where that knows it, and else by the time between two
// steps that need no waiting. So nothing has to tick while a probe waits: with a look every 10 ms a
// third of an idle process's wake-ups were for that.

// lateEnough is what counts as late, and how long a wait must be before the kernel is asked about
// its end: the question costs a microsecond, and its clock ticks every 4 ms.
const lateEnough = 8 * time.Millisecond

var conns = sync.Pool{New: func() any {
	c := &conn{wake: make(chan struct{}, 1)}
	c.alarm.ring = func() { c.stir(&c.over) }
	return c
}}

// dial connects to the probe's endpoint and, with the connection, sends first. Without it the
// handshake is completed at once; with it our ACK rides on the data.
func (n *network) dial(pr *probe, port uint16, first []byte) (*conn, error) {
	r, err := n.get()
	if err != nil {
		return nil, context.Canceled
	}
	if pr.Err() != nil {
		return nil, context.Canceled
	}
	c := conns.Get().(*conn)
	c.r, c.pr, c.added, c.virgin, c.graced, c.heard = r, pr, false, len(first) > 0, false, false
	c.fd, err = openSocket(pr.addr, pr.check.Source, len(first) > 0)
	if err != nil {
		c.recycle()
		return nil, err
	}
	if err := c.connect(netip.AddrPortFrom(pr.addr, port), first); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// openSocket makes a non-blocking TCP socket.
func openSocket(to, source netip.Addr, dataFollows bool) (int, error) {
	family := unix.AF_INET6
	if to.Is4() {
		family = unix.AF_INET
	}
	fd, errno := mmsg.Socket(family)
	if errno != 0 {
		return -1, errno
	}
	mmsg.SetLinger(fd, unix.Linger{Onoff: 1})
	if dataFollows {
		// The ACK that ends the handshake waits for the request: one packet less.
		mmsg.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	} else {
		// What is written later, in pieces (TLS), must not wait for ACKs.
		mmsg.SetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if source.IsValid() {
		if err := bindTo(fd, source); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func bindTo(fd int, source netip.Addr) error {
	// The port is chosen by connect, per peer: 28,000 probes of one peer, not of all.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if source.Is4() {
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Addr: source.As16(), ZoneId: zoneID(source.Zone())})
}

// startConnect connects a non-blocking socket; nil also says that it has begun to.
func startConnect(fd int, to netip.Addr, port uint16) error {
	if zone := to.Zone(); zone != "" {
		to = to.WithZone(strconv.FormatUint(uint64(zoneID(zone)), 10))
	}
	sa := mmsg.AddrFrom(netip.AddrPortFrom(to, port))
	if errno := mmsg.Connect(fd, &sa); errno != 0 && errno != unix.EINPROGRESS && errno != unix.EINTR {
		return errno
	}
	return nil
}

// zoneID turns the zone of a link-local address into an interface index.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// connect connects and writes the first bytes. A write to a socket that is still connecting
// says EAGAIN; so on a near network, where the handshake is over when connect returns, neither
// a wait nor a question is needed to know that.
func (c *conn) connect(to netip.AddrPort, first []byte) error {
	c.pr.act()
	c.step = time.Now()
	if err := startConnect(c.fd, to.Addr(), to.Port()); err != nil {
		return err
	}
	n, errno := mmsg.Write(c.fd, first)
	switch errno {
	case 0:
	case unix.EAGAIN:
		if err := c.waitConnected(); err != nil {
			return err
		}
	default:
		return errno
	}
	c.pr.connected()
	if n == len(first) {
		return nil
	}
	_, err := c.Write(first[n:])
	return err
}

// waitConnected waits for the end of the handshake. How long it took is the kernel's to say: its
// round-trip time of the SYN has nothing of our own scheduling in it.
func (c *conn) waitConnected() error {
	if err := c.wait(unix.EPOLLOUT); err != nil {
		return err
	}
	if errno := mmsg.SocketError(c.fd); errno != 0 {
		return errno
	}
	info, errno := mmsg.TCPInfo(c.fd)
	switch {
	case errno != 0:
	case info.Total_retrans == 0 && info.Rtt > 0:
		c.pr.excuse(max(0, time.Since(c.pr.tryStart)-time.Duration(info.Rtt)*time.Microsecond))
	case info.Last_ack_recv >= uint32(lateEnough/time.Millisecond): // with retransmissions the rest is the network's
		c.pr.excuse(min(time.Duration(info.Last_ack_recv)*time.Millisecond, time.Since(c.pr.tryStart)))
	}
	return nil
}

// wait blocks until the socket is ready, the deadline has passed or the probe is aborted.
func (c *conn) wait(events uint32) error {
	var err error
	if c.added {
		err = c.r.rearm(c.fd, events)
	} else {
		c.added = true
		c.r.set(&c.alarm, time.Until(c.pr.deadline))
		err = c.r.add(c.fd, events, c)
	}
	if err != nil {
		return err
	}
	for {
		switch {
		case c.ready.Swap(false):
			return nil
		case c.over.Load():
			return c.expired(events)
		}
		select {
		case <-c.wake:
		case <-c.pr.done:
			return context.Canceled
		}
	}
}

// expired is the end of a wait by the deadline, unless a late process finds that what it waited for
// had come in time.
func (c *conn) expired(events uint32) error {
	late := time.Since(c.pr.deadline)
	if late < lateEnough || c.graced {
		return os.ErrDeadlineExceeded
	}
	c.graced = true // once: a server that drips would have no deadline
	ready := []unix.PollFd{{Fd: int32(c.fd), Events: int16(events)}}
	if n, err := unix.Poll(ready, 0); n < 1 || err != nil {
		return os.ErrDeadlineExceeded
	}
	info, errno := mmsg.TCPInfo(c.fd)
	if errno != 0 {
		return nil
	}
	ago := info.Last_data_recv
	if events&unix.EPOLLOUT != 0 {
		ago = info.Last_ack_recv
	}
	if time.Duration(ago)*time.Millisecond < late && ready[0].Revents&unix.POLLERR == 0 {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// event is the reactor's call.
func (c *conn) event(uint32) { c.stir(&c.ready) }

// stir wakes the probe's goroutine up because of something.
func (c *conn) stir(because *atomic.Bool) {
	because.Store(true)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Read reads what is there, waiting for it if need be.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if !c.virgin {
			n, errno := mmsg.Read(c.fd, b)
			switch {
			case n > 0:
				if time.Since(c.step) >= lateEnough {
					c.excuseLateRead()
				}
				c.step, c.heard = time.Now(), true
				return n, nil
			case errno == 0:
				return 0, io.EOF
			case errno != unix.EAGAIN && errno != unix.EINTR:
				return 0, errno
			}
		}
		c.virgin = false
		if err := c.wait(unix.EPOLLIN | unix.EPOLLRDHUP); err != nil {
			return 0, err
		}
	}
}

// excuseLateRead asks the kernel how long ago the bytes just read had come.
func (c *conn) excuseLateRead() {
	info, errno := mmsg.TCPInfo(c.fd)
	if errno != 0 {
		return
	}
	if late := time.Duration(info.Last_data_recv) * time.Millisecond; late >= lateEnough {
		c.pr.excuse(min(late, time.Since(c.pr.tryStart)))
	}
}

// Write writes all of b.
func (c *conn) Write(b []byte) (int, error) {
	if c.heard {
		c.pr.excuseSince(c.step)
	}
	c.step, c.heard = time.Now(), false
	done := 0
	for done < len(b) {
		n, errno := mmsg.Write(c.fd, b[done:])
		switch errno {
		case 0:
			done += n
		case unix.EAGAIN:
			if err := c.wait(unix.EPOLLOUT); err != nil {
				return done, err
			}
		case unix.EINTR:
		default:
			return done, errno
		}
	}
	return done, nil
}

// Close closes the socket and gives the conn back; it must not be used any more.
func (c *conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	if c.added {
		c.r.forget(c.fd)
		c.r.unset(&c.alarm)
	}
	mmsg.Close(c.fd)
	c.recycle()
	return nil
}

func (c *conn) recycle() {
	select {
	case <-c.wake:
	default:
	}
	c.ready.Store(false)
	c.over.Store(false)
	c.fd, c.pr, c.r = -1, nil, nil
	conns.Put(c)
}

// The rest makes it a net.Conn for crypto/tls, which needs none of it: the deadline is the probe's.
func (c *conn) LocalAddr() net.Addr              { return nil }
func (c *conn) RemoteAddr() net.Addr             { return nil }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
