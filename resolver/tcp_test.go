package resolver

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serveTCP is serve with other limits.
func serveTCP(t *testing.T, change func(*tcpLimits), ups ...*farEnd) *Resolver {
	t.Helper()
	r := newServer(t, Options{})
	change(&r.tcp.limits)
	if len(ups) > 0 {
		if err := r.SetUpstreams(optionsTo(ups...)); err != nil {
			t.Fatal(err)
		}
	}
	r.Start()
	return r
}

// R43: frames in any pieces, many in one.
func TestR43Pieces(t *testing.T) {
	r := serve(t, Options{})
	msg := frame(pack(t, query(tName, dns.TypeA)))
	c := dial(t, r.Addrs()[0])
	for range 2 {
		for i := range msg {
			if _, err := c.Write(msg[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		wantA(t, readMsg(t, c))
	}
	// Random cuts through 200 queries, which come back in order as all are local.
	var all []byte
	for i := range 200 {
		m := query(tName, dns.TypeA)
		m.Id = uint16(i)
		all = append(all, frame(pack(t, m))...)
	}
	go func() {
		for len(all) > 0 {
			n := min(len(all), 1+rand.IntN(300))
			if _, err := c.Write(all[:n]); err != nil {
				return
			}
			all = all[n:]
		}
	}()
	for i := range 200 {
		m := readMsg(t, c)
		wantA(t, m)
		if int(m.Id) != i {
			t.Fatalf("reply %d has ID %d", i, m.Id)
		}
	}
	if got := r.Stats().Accepted; got != 1 {
		t.Errorf("%d connections", got)
	}
}

// R44: a reply that takes long does not keep back the others.
func TestR44OutOfOrder(t *testing.T) {
	release := make(chan struct{})
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if tcp && q[12] == 4 { // slow.example
			<-release
		}
		return answerA(q, tcp)
	})
	r := serve(t, Options{}, u)
	c := dial(t, r.Addrs()[0])
	slow, quick := query("slow.example.", dns.TypeA), query(tName, dns.TypeA)
	slow.Id, quick.Id = 1, 2
	if _, err := c.Write(append(frame(pack(t, slow)), frame(pack(t, quick))...)); err != nil {
		t.Fatal(err)
	}
	if m := readMsg(t, c); m.Id != 2 {
		t.Errorf("first came %v", m)
	}
	close(release)
	if m := readMsg(t, c); m.Id != 1 || len(m.Answer) != 1 {
		t.Errorf("then came %v", m)
	}
}

// R45: a client that half-closes gets its answers, then the end; both with the
// end in the same segment as the query and later, also for forwarded queries.
func TestR45HalfClose(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { l.tick = 20 * time.Millisecond }, newFarEnd(t, answerA))
	for _, name := range []string{tName, "other.example."} {
		for _, before := range []int{0, 2 * eagerReads} {
			c := dial(t, r.Addrs()[0])
			msg := frame(pack(t, query(name, dns.TypeA)))
			for range before {
				if _, err := c.Write(msg); err != nil {
					t.Fatal(err)
				}
				readMsg(t, c)
			}
			if _, err := c.Write(append(msg, msg...)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if m := readMsg(t, c); len(m.Answer) != 1 {
					t.Errorf("%v", m)
				}
			}
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%s after %d: %d, %v; want the end", name, before, n, err)
			}
		}
	}
}

// R47: zero-length, short and garbage frames, cut ones, RST, clients that do
// not wait: others are unharmed, and nothing leaks.
func TestR47Abuse(t *testing.T) {
	panics := countPanics()
	u := newFarEnd(t, answerA)
	r := serve(t, Options{}, u)
	exchange(t, "tcp", r.Addrs()[0], query("warm.example.", dns.TypeA))
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
	good := frame(pack(t, query(tName, dns.TypeA)))
	c := dial(t, r.Addrs()[0])
	garbage := append([]byte{0, 0, 0, 1, 7, 0, 12}, make([]byte, 12)...)
	if _, err := c.Write(append(garbage, good...)); err != nil {
		t.Fatal(err)
	}
	if m := readMsg(t, c); m.Rcode != dns.RcodeFormatError {
		t.Errorf("12 zeros: %v", m)
	}
	wantA(t, readMsg(t, c))
	c.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		c := dial(t, r.Addrs()[0])
		b := frame(pack(t, query(fmt.Sprintf("n%d.example.", i), dns.TypeA)))
		switch i % 4 {
		case 0: // reset with a forward on its way
			_ = c.SetLinger(0)
		case 1:
			b = b[:rng.IntN(len(b))]
		case 2:
			for j := range b[2:] {
				b[2+j] = byte(rng.Uint32())
			}
		}
		_, _ = c.Write(b)
		c.Close()
	}
	wantA(t, exchange(t, "tcp", r.Addrs()[0], query(tName, dns.TypeA)))
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
	if n := panics(); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// A query of the greatest size, and many pipelined ones at once.
func TestTCPGreatestQuery(t *testing.T) {
	r := serve(t, Options{})
	c := dial(t, r.Addrs()[0])
	msg := make([]byte, 65535) // what is behind the question means nothing
	copy(msg, pack(t, query(tName, dns.TypeA)))
	for range 3 {
		if _, err := c.Write(frame(msg)); err != nil {
			t.Fatal(err)
		}
		wantA(t, readMsg(t, c))
	}
}

// R35: the idle timeout is told to those who ask for it, over TCP only.
func TestR35Keepalive(t *testing.T) {
	r := serve(t, Options{})
	m := query(tName, dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})
	told := func(reply *dns.Msg) (timeout uint16, ok bool) {
		for _, o := range reply.IsEdns0().Option {
			if k, is := o.(*dns.EDNS0_TCP_KEEPALIVE); is {
				return k.Timeout, true
			}
		}
		return 0, false
	}
	if timeout, ok := told(exchange(t, "tcp", r.Addrs()[0], m)); !ok || timeout != 300 {
		t.Errorf("over TCP: %d, %v", timeout, ok)
	}
	if _, ok := told(exchange(t, "udp", r.Addrs()[0], m)); ok {
		t.Error("told over UDP")
	}
}

// R98: stop ends at once with idle clients there, answers what is in flight,
// and leaves no goroutine.
func TestR98StopJoins(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if q[12] == 4 {
			asked <- struct{}{}
			<-release
		}
		return answerA(q, tcp)
	})
	before := runtime.NumGoroutine()
	r := serve(t, Options{}, u)
	idle, half := dial(t, r.Addrs()[0]), dial(t, r.Addrs()[0])
	_ = idle
	if _, err := half.Write(frame(pack(t, query("slow.example.", dns.TypeA)))[:7]); err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := udp.Write(pack(t, query("slow.example.", dns.TypeA))); err != nil {
		t.Fatal(err)
	}
	<-asked
	stopped := make(chan struct{})
	go func() { defer close(stopped); stopServer(r) }()
	eventually(t, "listeners stopped", func() bool { return r.endpoints[0].udp[0].stopping.Load() })
	close(release)
	buf := make([]byte, 512)
	_ = udp.SetReadDeadline(time.Now().Add(patience))
	if n, err := udp.Read(buf); err != nil || binary.BigEndian.Uint16(buf[6:]) != 1 {
		t.Errorf("the query in flight got %d bytes, %v", n, err)
	}
	<-stopped
	if n, err := idle.Read(buf); n != 0 || err == nil {
		t.Errorf("idle connection: %d, %v", n, err)
	}
	stopServer(r) // again: nothing
	goroutinesBack(t, before)
}
