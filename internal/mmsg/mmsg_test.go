//go:build linux

package mmsg

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// fdOf returns c's descriptor; c must stay open while it is used.
func fdOf(t testing.TB, c *net.UDPConn) int {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := rc.Control(func(x uintptr) { fd = int(x) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

func listen(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		if addr[0] == '[' {
			t.Skipf("no IPv6 here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func local(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// recvAll waits for want datagrams.
func recvAll(t testing.TB, r *Receiver, fd, want int) {
	t.Helper()
	r.Reset()
	for end := time.Now().Add(5 * time.Second); r.used < want; {
		if _, _, errno := r.More(fd); errno != 0 && errno != syscall.EAGAIN {
			t.Fatal(errno)
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d datagrams came", r.used, want)
		}
	}
}

func TestExchange(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			a, b := listen(t, addr), listen(t, addr)
			s, r := NewSender(8), NewReceiver(8, 576)
			to := AddrFrom(local(b))
			for round := 1; round <= 8; round++ {
				for i := range round {
					s.Add(fmt.Appendf(nil, "datagram %d", i), &to)
				}
				if lost, err := s.Flush(fdOf(t, a)); lost != 0 || err != nil || s.Len() != 0 {
					t.Fatalf("round %d: lost %d, %v", round, lost, err)
				}
				recvAll(t, r, fdOf(t, b), round)
				for i := range round {
					if got, want := r.Buf(i)[:r.Len(i)], fmt.Appendf(nil, "datagram %d", i); !bytes.Equal(got, want) {
						t.Errorf("round %d: %q, want %q", round, got, want)
					}
					if from := r.From(i); from.AddrPort() != local(a) || *from != AddrFrom(local(a)) || from.Port() != local(a).Port() {
						t.Errorf("from %v, want %v", from, local(a))
					}
					if r.Truncated(i) || len(r.Buf(i)) != 576 {
						t.Errorf("truncated %v, buffer of %d", r.Truncated(i), len(r.Buf(i)))
					}
				}
			}
			if n, errno := r.Recv(fdOf(t, b)); n != 0 || errno != syscall.EAGAIN {
				t.Errorf("empty socket: %d, %v", n, errno)
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	s, r := NewSender(1), NewReceiver(2, 64)
	to := AddrFrom(local(b))
	for _, size := range []int{65, 64} {
		s.Add(make([]byte, size), &to)
		if lost, err := s.Flush(fdOf(t, a)); lost != 0 {
			t.Fatal(err)
		}
	}
	recvAll(t, r, fdOf(t, b), 2)
	if !r.Truncated(0) || r.Len(0) != 64 || r.Truncated(1) || r.Len(1) != 64 {
		t.Errorf("truncated %v %v, lengths %d %d", r.Truncated(0), r.Truncated(1), r.Len(0), r.Len(1))
	}
}

// A datagram that cannot be sent does not keep back those behind it.
func TestFlushSkips(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	s, r := NewSender(4), NewReceiver(4, 64)
	good, bad := AddrFrom(local(b)), AddrFrom(netip.MustParseAddrPort("127.0.0.1:0"))
	for i, to := range []*Addr{&bad, &good, &bad, &good} {
		s.Add([]byte{byte(i)}, to)
	}
	if lost, err := s.Flush(fdOf(t, a)); lost != 2 || err != syscall.EINVAL {
		t.Errorf("lost %d, %v; want 2, EINVAL", lost, err)
	}
	recvAll(t, r, fdOf(t, b), 2)
	if r.Buf(0)[0] != 1 || r.Buf(1)[0] != 3 {
		t.Errorf("got %d and %d", r.Buf(0)[0], r.Buf(1)[0])
	}
}

func TestConnected(t *testing.T) {
	b := listen(t, "127.0.0.1:0")
	a, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(local(b)))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, r := NewSender(2), NewReceiver(2, 64)
	s.Add([]byte("x"), nil)
	s.Add([]byte("y"), nil)
	if lost, err := s.Flush(fdOf(t, a)); lost != 0 {
		t.Fatal(err)
	}
	recvAll(t, r, fdOf(t, b), 2)
	b.Close()
	s.Add([]byte("x"), nil) // brings back an ICMP error ...
	if lost, err := s.Flush(fdOf(t, a)); lost != 0 {
		t.Fatal(err)
	}
	s.Add([]byte("y"), nil) // ... that the next one is told
	if lost, err := s.Flush(fdOf(t, a)); lost != 1 || err != syscall.ECONNREFUSED {
		t.Errorf("lost %d, %v; want 1, ECONNREFUSED", lost, err)
	}
}

func TestAddr(t *testing.T) {
	for _, text := range []string{"127.0.0.1:53", "192.0.2.255:65535", "[::1]:53", "[2001:db8::1]:1", "[fe80::1%7]:53"} {
		a := AddrFrom(netip.MustParseAddrPort(text))
		if a.String() != text {
			t.Errorf("%s became %s", text, a)
		}
	}
	if a := AddrFrom(netip.MustParseAddrPort("[::ffff:127.0.0.1]:53")); a.String() != "127.0.0.1:53" {
		t.Errorf("mapped address became %s", a)
	}
	if (&Addr{}).AddrPort().IsValid() {
		t.Error("the zero Addr is an address")
	}
}

func TestNoAllocations(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	s, r := NewSender(4), NewReceiver(4, 64)
	to := AddrFrom(local(b))
	msg := []byte("query")
	fa, fb := fdOf(t, a), fdOf(t, b)
	if n := testing.AllocsPerRun(100, func() {
		for range 3 {
			s.Add(msg, &to)
		}
		_, _ = s.Flush(fa)
		_, _ = r.Recv(fb)
		_ = *r.From(0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
