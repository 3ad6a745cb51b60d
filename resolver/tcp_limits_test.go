package resolver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// R45, R46: idle connections end, busy ones do not, and an unfinished query has
// a time of its own.
func TestR46Timeouts(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) {
		l.idle, l.frame, l.tick = time.Second, time.Second, 20*time.Millisecond
	})
	msg := frame(pack(t, query(tName, dns.TypeA)))
	idle := dial(t, r.Addrs()[0])
	if _, err := idle.Write(msg); err != nil {
		t.Fatal(err)
	}
	wantA(t, readMsg(t, idle))
	// A whole query and a part of one, then silence or drops: neither helps.
	drip := dial(t, r.Addrs()[0])
	if _, err := drip.Write(append(msg, msg[:5]...)); err != nil {
		t.Fatal(err)
	}
	wantA(t, readMsg(t, drip))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 5; i < len(msg)-1; i++ {
			select {
			case <-stop:
				return
			case <-time.After(80 * time.Millisecond):
				if _, err := drip.Write(msg[i : i+1]); err != nil {
					return
				}
			}
		}
	})
	for name, c := range map[string]net.Conn{"idle": idle, "drip": drip} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, syscall.EAGAIN) {
			t.Errorf("%s: %d, %v; want the end", name, n, err)
		}
	}
	close(stop)
	wg.Wait()
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
}

// R46: at the limit the oldest idle connection makes room; UDP goes on.
func TestR46ConnectionLimit(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { l.conns, l.tick = 4, time.Hour }) // no look in the middle of it
	msg := frame(pack(t, query(tName, dns.TypeA)))
	var conns []*net.TCPConn
	for i := range 6 {
		c := dial(t, r.Addrs()[0])
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		wantA(t, readMsg(t, c))
		conns = append(conns, c)
		if i < 4 && r.Stats().Evicted != 0 {
			t.Fatal("made room too early")
		}
	}
	for i, c := range conns {
		if i < 2 {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("connection %d is still there", i)
			}
			continue
		}
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		wantA(t, readMsg(t, c))
	}
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	if s := r.Stats(); s.Evicted != 2 || s.Conns != 4 {
		t.Errorf("%d evicted, %d open", s.Evicted, s.Conns)
	}
}

// R46: each of many that come at once closes another one, and the limit holds
// all the time: one that is being closed is not found again.
func TestR46ConnectionBurst(t *testing.T) {
	const limit, burst = 8, 64
	r := serveTCP(t, func(l *tcpLimits) { l.conns, l.tick = limit, time.Hour })
	for range burst {
		dial(t, r.Addrs()[0])
	}
	eventually(t, "all are accepted", func() bool {
		s := r.Stats()
		if s.Conns > limit || s.Evicted > s.Accepted {
			t.Fatalf("%d open, %d evicted of %d", s.Conns, s.Evicted, s.Accepted)
		}
		return s.Accepted == burst
	})
	if s := r.Stats(); s.Conns != limit || s.Evicted != burst-limit {
		t.Errorf("%d open, %d evicted", s.Conns, s.Evicted)
	}
}

// asksMuch connects a client that asks, and takes none of 600 KB of replies. Its
// queries fit into one window, and the server's socket holds little: a client
// whose receive buffer overflows drops the acknowledgements of what it sends with
// the replies that they come with, and after that hardly anything moves.
func asksMuch(t *testing.T, r *Resolver) (c net.Conn, queries int) {
	t.Helper()
	c = dial(t, r.Addrs()[0])
	eventually(t, "it is accepted", func() bool {
		r.tcp.mu.Lock()
		defer r.tcp.mu.Unlock()
		for s := range r.tcp.conns {
			if err := s.conn.SetWriteBuffer(16 << 10); err != nil {
				t.Fatal(err)
			}
		}
		return len(r.tcp.conns) == 1
	})
	queries = 1500
	if _, err := c.Write(bytes.Repeat(frame(pack(t, query(tBig, dns.TypeA))), queries)); err != nil {
		t.Fatal(err)
	}
	return c, queries
}

// R46: a client that takes no answers is not read from any more, costs bounded
// memory, and loses nothing when it goes on.
func TestR46SlowReader(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { l.backlog, l.write = 4<<10, time.Hour })
	c, queries := asksMuch(t, r)
	stalled := func() (n int32) {
		r.tcp.mu.Lock()
		defer r.tcp.mu.Unlock()
		for c := range r.tcp.conns {
			n += c.unsent.Load()
		}
		return n
	}
	eventually(t, "the connection stalls", func() bool { return stalled() > 4<<10 })
	wantA(t, exchange(t, "tcp", r.Addrs()[0], query(tName, dns.TypeA)))
	if n := stalled(); n > 4<<10+2*tcpOut {
		t.Errorf("%d bytes are kept for it", n)
	}
	for range queries {
		if m := readMsg(t, c); len(m.Answer) != 24 {
			t.Fatalf("%v", m)
		}
	}
}

// R46: as slow, and never going on: the write deadline ends it, and nothing else.
func TestR46WriteDeadline(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) {
		l.backlog, l.write = 4<<10, 200*time.Millisecond
		l.idle, l.frame = time.Hour, time.Hour
	})
	asksMuch(t, r)
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
}

// R46: only so many queries of one connection are on their way upstream; the
// rest is not lost.
func TestR46InflightLimit(t *testing.T) {
	release := make(chan struct{})
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if tcp && q[12] != 0 {
			<-release
		}
		return answerA(q, tcp)
	})
	r := serveTCP(t, func(l *tcpLimits) { l.inflight = 3 }, u)
	c := dial(t, r.Addrs()[0])
	var all []byte
	for i := range 10 {
		m := query(fmt.Sprintf("n%d.example.", i), dns.TypeA)
		m.Id = uint16(i)
		all = append(all, frame(pack(t, m))...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	inflight := func() (n int32) {
		r.tcp.mu.Lock()
		defer r.tcp.mu.Unlock()
		for c := range r.tcp.conns {
			n += c.inflight.Load()
		}
		return n
	}
	eventually(t, "three in flight", func() bool { return inflight() == 3 })
	close(release)
	seen := make(map[uint16]bool)
	for range 10 {
		m := readMsg(t, c)
		seen[m.Id] = true
	}
	if len(seen) != 10 {
		t.Errorf("%d replies", len(seen))
	}
	eventually(t, "none in flight", func() bool { return inflight() == 0 })
}

// Connections cost little while they are idle.
func TestIdleConnectionsAreCheap(t *testing.T) {
	r := serve(t, Options{})
	msg := frame(pack(t, query(tName, dns.TypeA)))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	exchange(t, "tcp", r.Addrs()[0], query(tName, dns.TypeA))
	before := heap()
	const conns = 200
	for range conns {
		c := dial(t, r.Addrs()[0])
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		wantA(t, readMsg(t, c))
	}
	each := (int64(heap()) - int64(before)) / conns
	t.Logf("%d bytes for each, both ends", each)
	if each > 24<<10 {
		t.Errorf("an idle connection costs %d bytes", each)
	}
}

// R46: at the limit, those who have just come and not asked yet are not the ones to go: all others have
// had their answers.
func TestR46NewcomersStay(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { l.conns, l.tick = 8, time.Hour })
	msg := frame(pack(t, query(tName, dns.TypeA)))
	ask := func(c *net.TCPConn) {
		t.Helper()
		if _, err := c.Write(msg); err != nil {
			t.Fatal(err)
		}
		wantA(t, readMsg(t, c))
	}
	for range 8 {
		ask(dial(t, r.Addrs()[0]))
	}
	var fresh []*net.TCPConn
	for i := range 4 {
		fresh = append(fresh, dial(t, r.Addrs()[0]))
		eventually(t, "room was made", func() bool { return r.Stats().Evicted == uint64(i+1) })
	}
	for _, c := range fresh {
		ask(c)
	}
}
