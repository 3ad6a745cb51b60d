package resolver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/mmsg"
)

// R18: both families, both transports, and the same port for both.
func TestR18AllFour(t *testing.T) {
	listen := []netip.AddrPort{anyPort}
	if c, err := net.Listen("tcp", "[::1]:0"); err == nil {
		c.Close()
		listen = append(listen, netip.MustParseAddrPort("[::1]:0"))
	} else {
		t.Log("no IPv6 here:", err)
	}
	r := serve(t, Options{Listen: listen})
	for _, a := range r.Addrs() {
		for _, network := range []string{"udp", "tcp"} {
			wantA(t, exchange(t, network, a, query(tName, dns.TypeA)))
			m := exchange(t, network, a, query(tName, dns.TypeAAAA))
			if len(m.Answer) != 1 || m.Answer[0].(*dns.AAAA).AAAA.String() != "2001:db8::1" {
				t.Errorf("%s %s: %v", network, a, m)
			}
		}
	}
}

// R18: without IPv6 it starts with IPv4 and says so; without anything it fails.
func TestR18NoIPv6(t *testing.T) {
	gone := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	if !isMissingIPv6(netip.MustParseAddrPort("[::1]:53"), gone) {
		t.Error("::1 without IPv6 must be left out")
	}
	if isMissingIPv6(netip.MustParseAddrPort("[2001:db8::1]:53"), gone) || isMissingIPv6(anyPort, gone) {
		t.Error("only ::1 is left out")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("started without an address")
	}
	_, err := New(Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5353")}})
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "192.0.2.1:5353") {
		t.Errorf("an address that is not ours: %v", err)
	}
}

// R17: the reply comes from the address that was asked, of 127/8 too; a
// connected socket would not see another.
func TestR17ReplyFromAskedAddress(t *testing.T) {
	r := serve(t, Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.77:0")}}, newFarEnd(t, answerA))
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	wantA(t, exchange(t, "udp", r.Addrs()[0], query("other.example.", dns.TypeA)))
}

// R97: a second instance fails, and says why; R99: a restart does not.
func TestR97SecondInstance(t *testing.T) {
	for _, listeners := range []int{1, 3} {
		first := serve(t, Options{Listeners: listeners})
		at := first.Addrs()
		_, err := New(Options{Listen: at, Listeners: listeners})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%d listeners: second instance: %v", listeners, err)
		}
		for _, want := range []string{at[0].String(), "udp", fmt.Sprintf("pid %d", os.Getpid())} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not tell %q", err, want)
			}
		}
		wantA(t, exchange(t, "udp", at[0], query(tName, dns.TypeA)))
		c := dial(t, at[0]) // its TIME_WAIT must not keep the restart away (R99)
		stopServer(first)
		c.Close()
		again := serve(t, Options{Listen: at, Listeners: listeners})
		wantA(t, exchange(t, "udp", at[0], query(tName, dns.TypeA)))
		wantA(t, exchange(t, "tcp", at[0], query(tName, dns.TypeA)))
		stopServer(again)
	}
}

// R97: the same if only TCP is taken.
func TestR97PortTakenByTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err = New(Options{Listen: []netip.AddrPort{at}}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "tcp "+at.String()) {
		t.Errorf("%v", err)
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatalf("the failed start keeps the UDP port: %v", err)
	}
	c.Close()
}

func TestPrivilegedPortHint(t *testing.T) {
	err := listenError("udp", netip.MustParseAddrPort("127.0.0.1:53"), &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	for _, want := range []string{"127.0.0.1:53", "cap_net_bind_service", "AmbientCapabilities", "ip_unprivileged_port_start"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
}

// Several sockets share the clients of one address.
func TestListenersShare(t *testing.T) {
	r := serve(t, Options{Listeners: 4})
	for range 64 {
		wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	}
	used := 0
	for _, l := range r.endpoints[0].udp {
		var sum tally
		sum.add(l.counts)
		if sum.replies[1][sourceLocal][0] > 0 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d of 4 sockets got all 64 clients", used)
	}
}

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
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
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
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
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
			l.serve(l.fd)
			n += got
		}
	}); n != 0 {
		t.Errorf("%v allocations in a batch of 8", n)
	}
}

// A panic takes one query with it and nothing else: not the rest of its batch,
// not the listener.
func TestPanicIsContained(t *testing.T) {
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
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	for range 4 { // the bomb goes off when its reply was already made
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	if s := r.Stats(); s.Panics != 1 || !strings.Contains(log.String(), "panic=bomb packet=") || strings.Contains(log.String(), "idle.example") {
		t.Errorf("%d panics; log: %s", s.Panics, log.String())
	}
}

func TestAskedOfIdleNames(t *testing.T) {
	var asked atomic.Int64
	r := serve(t, Options{Asked: func(slot int) { asked.Add(int64(1 + 100*slot)) }})
	exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA))
	exchange(t, "udp", r.Addrs()[0], query(tIdle, dns.TypeA))
	exchange(t, "tcp", r.Addrs()[0], query(tIdle, dns.TypeAAAA))
	if got := asked.Load(); got != 402 {
		t.Errorf("asked: %d", got)
	}
}

func TestStats(t *testing.T) {
	r := serve(t, Options{Listeners: 1}, newFarEnd(t, answerA))
	at := r.Addrs()[0]
	for range sampleEvery {
		exchange(t, "udp", at, query(tName, dns.TypeA))
	}
	exchange(t, "tcp", at, query(tName, dns.TypeAAAA))
	exchange(t, "udp", at, query("localhost.", dns.TypeA))
	exchange(t, "udp", at, query("else.example.", dns.TypeHTTPS))
	exchange(t, "tcp", at, query("else.example.", dns.TypeMX))
	bad := query(tName, dns.TypeA)
	bad.SetEdns0(1232, false)
	bad.IsEdns0().SetVersion(1)
	exchange(t, "udp", at, bad)
	s := r.Stats()
	requests := make(map[string]uint64)
	for _, x := range s.Requests {
		requests[x.Proto+" "+x.Type+" "+x.Source] = x.N
	}
	for k, want := range map[string]uint64{"udp A local": sampleEvery, "tcp AAAA local": 1, "udp A special": 1,
		"udp HTTPS forward": 1, "tcp MX forward": 1, "udp A error": 1} {
		if requests[k] != want {
			t.Errorf("requests %s: %d, want %d", k, requests[k], want)
		}
	}
	responses := make(map[string]uint64)
	for _, x := range s.Responses {
		responses[x.Rcode+" "+x.Source] = x.N
	}
	for k, want := range map[string]uint64{"NOERROR local": sampleEvery + 1, "NOERROR special": 1, "NOERROR forward": 2, "BADVERS error": 1} {
		if responses[k] != want {
			t.Errorf("responses %s: %d, want %d", k, responses[k], want)
		}
	}
	durations := make(map[string]uint64)
	for _, d := range s.Durations {
		for _, n := range d.Counts {
			durations[d.Source] += n
		}
	}
	if durations["forward"] != 2 || durations["local"] == 0 {
		t.Errorf("durations: %v", durations)
	}
	if len(s.Answers) == 0 || s.Answers[0] != sampleEvery+1 {
		t.Errorf("answers: %v", s.Answers)
	}
}

// BenchmarkBatch is what a query costs between the two system calls.
func BenchmarkBatch(b *testing.B) {
	r := newServer(b, Options{Listeners: 1})
	l := r.endpoints[0].udp[0]
	msg := pack(b, query(tName, dns.TypeA))
	fill(b, l, msg, udpBatch)
	table := r.table.Load()
	b.ReportAllocs()
	for b.Loop() {
		for i := range udpBatch {
			copy(l.rx.Buf(i), msg)
			l.handle(table, i)
		}
		l.tx.Drop()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/udpBatch, "ns/query")
}

// BenchmarkForward is what a forwarded query costs with everything: two
// sockets here, and the client's and the upstream's work, in batches of 32.
func BenchmarkForward(b *testing.B) {
	up, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := up.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80
			_, _ = up.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	r := serve(b, Options{Listeners: 1})
	at := up.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := r.SetUpstreams(UpstreamOptions{Servers: []Server{{Addr: at}}}); err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg, buf := pack(b, query("00000000.example.", dns.TypeA)), make([]byte, 512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for j := range udpBatch {
			copy(msg[13:], fmt.Sprintf("%08d", i*udpBatch+j))
			if _, err := c.Write(msg); err != nil {
				b.Fatal(err)
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		for range udpBatch {
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/udpBatch, "ns/query")
}
