package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/mmsg"
)

// R8, R9, R10, R11 through the socket: what must be silence is, and the
// next query is answered.
func TestR9R11Silence(t *testing.T) {
	r := serve(t, Options{})
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	response := query(tName, dns.TypeA)
	response.Response = true
	notify := query(tName, dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	for _, b := range [][]byte{{}, {1}, make([]byte, 11), pack(t, response)} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		msg   []byte
		rcode int
	}{
		{pack(t, notify), dns.RcodeNotImplemented},
		{make([]byte, 12), dns.RcodeFormatError},
		{pack(t, query(tName, dns.TypeA))[:20], dns.RcodeFormatError},
		{append(pack(t, query(tName, dns.TypeA)), make([]byte, 3000)...), dns.RcodeSuccess}, // garbage behind, cut off
		{pack(t, query(tName, dns.TypeA)), dns.RcodeSuccess},
	} {
		if _, err := c.Write(x.msg); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(buf[3] & 15); got != x.rcode {
			t.Errorf("rcode %d, want %d, of %d bytes to %x", got, x.rcode, n, x.msg[:12])
		}
	}
	if got := r.Stats().Dropped; got != 4 {
		t.Errorf("%d dropped, want 4", got)
	}
}

// R75: a burst is answered whole, and so are forwarded ones of it.
func TestR75Burst(t *testing.T) {
	r := serve(t, Options{}, newFarEnd(t, answerA))
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	const burst = 600
	for i := range burst {
		m := query(tName, dns.TypeA)
		if i%20 == 0 {
			m = query(fmt.Sprintf("n%d.other.example.", i), dns.TypeA)
		}
		m.Id = uint16(i)
		if _, err := c.Write(pack(t, m)); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[uint16]bool)
	buf := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for len(seen) < burst {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%d of %d: %v", len(seen), burst, err)
		}
		var m dns.Msg
		if err := m.Unpack(buf[:n]); err != nil || seen[m.Id] || m.Rcode != 0 || len(m.Answer) != 1 {
			t.Fatalf("%v, again %v: %v", err, seen[m.Id], &m)
		}
		seen[m.Id] = true
	}
}

// R19: echoes and the like get no errors.
func TestR19Echoes(t *testing.T) {
	r := newServer(t, Options{Listeners: 1})
	l := r.endpoints[0].udp[0]
	bad := make([]byte, 12)
	good := pack(t, query(tName, dns.TypeA))
	for _, x := range []struct {
		port uint16
		msg  []byte
		want int
	}{{7, bad, 0}, {53, bad, 0}, {1024, bad, 1}, {53, good, 1}, {7, good, 1}, {0, good, 0}} {
		inject(t, l, x.msg, netip.AddrPortFrom(anyPort.Addr(), x.port))
		l.handle(r.table.Load(), 0)
		if got := l.tx.Len(); got != x.want {
			t.Errorf("port %d, %d bytes: %d replies, want %d", x.port, len(x.msg), got, x.want)
		}
		l.tx.Drop()
	}
}

// inject puts a datagram into l's first buffer, as if it had come from there.
func inject(t testing.TB, l *udpListener, msg []byte, from netip.AddrPort) {
	t.Helper()
	fill(t, l, msg, 1)
	*l.rx.From(0) = mmsg.AddrFrom(from)
}

// fill has l receive n copies of msg, but not handle them.
func fill(t testing.TB, l *udpListener, msg []byte, n int) {
	t.Helper()
	c, err := net.Dial("udp", l.end.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
	}
	if got, errno := l.rx.Recv(l.fd); got != n {
		t.Fatalf("%d datagrams, %v", got, errno)
	}
	l.n, l.next = n, 0
}

// A batch from receiving to sending allocates nothing.
func TestBatchAllocatesNothing(t *testing.T) {
	r := newServer(t, Options{Listeners: 1})
	l := r.endpoints[0].udp[0]
	q := query(tName, dns.TypeA)
	q.SetEdns0(1232, false)
	msg := pack(t, q)
	c, err := net.Dial("udp", l.end.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rc, _ := c.(*net.UDPConn).SyscallConn()
	var cfd int
	_ = rc.Control(func(fd uintptr) { cfd = int(fd) })
	tx := mmsg.NewSender(8)
	if n := testing.AllocsPerRun(200, func() {
		for range 8 {
			tx.Add(msg, nil)
		}
		_, _ = tx.Flush(cfd)
		for n := 0; n < 8; {
			got, _ := l.rx.Recv(l.fd)
			l.n, l.next = got, 0
			l.serve()
			n += got
		}
	}); n != 0 {
		t.Errorf("%v allocations in a batch of 8", n)
	}
}

// A panic takes one query with it and nothing else: not the rest of its batch,
// not the listener.
func TestPanicIsContained(t *testing.T) {
	panics := countPanics()
	var log logged
	bomb := make(chan bool, 1)
	bomb <- true
	r := serve(t, Options{Listeners: 1, Log: log.logger(), Asked: func(int) {
		select {
		case <-bomb:
			panic("bomb")
		default:
		}
	}})
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{tName, tIdle, tName, tName} {
		if _, err := c.Write(pack(t, query(name, dns.TypeA))); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 512)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for range 4 { // the bomb goes off when its reply was already made
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	if n := panics(); n != 1 || !strings.Contains(log.String(), "panic=bomb") || !strings.Contains(log.String(), "packet=") || strings.Contains(log.String(), "idle.example") {
		t.Errorf("%d panics; log: %s", n, log.String())
	}
}
