package resolver

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The look at connections is done here in these tests, at the times that they say.
func sweepByHand(l *tcpLimits) { l.tick = time.Hour }

func sweepAt(r *Resolver, after time.Duration) {
	conns, idle := r.tcp.toSweep()
	now := time.Now().Add(after).UnixNano() // one for all: it is compared
	for _, c := range conns {
		c.check(now, idle)
	}
}

// inflightOf is the number of queries whose replies come later, of all connections.
func inflightOf(r *Resolver) (n int32) {
	r.tcp.mu.Lock()
	defer r.tcp.mu.Unlock()
	for c := range r.tcp.conns {
		n += c.inflight.Load()
	}
	return n
}

// heldUp is a resolver whose upstream answers once it is released.
func heldUp(t *testing.T, change func(*tcpLimits)) (r *Resolver, release func()) {
	t.Helper()
	gate := make(chan struct{})
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if bytes.HasPrefix(q[12:], []byte("\x04slow")) {
			<-gate
		}
		return answerA(q, tcp)
	})
	r = serveTCP(t, func(l *tcpLimits) { sweepByHand(l); change(l) })
	if err := r.SetUpstreams(patient(optionsTo(u))); err != nil {
		t.Fatal(err)
	}
	return r, func() { close(gate) }
}

// R45, R46: a client that waits for a reply is not idle, and neither is one whose next query is not whole yet meanwhile.
func TestR46BusyConnectionsStay(t *testing.T) {
	r, release := heldUp(t, func(*tcpLimits) {})
	c := dial(t, r.Addrs()[0])
	slow, local := frame(pack(t, query("slow.example.", dns.TypeA))), frame(pack(t, query(tName, dns.TypeA)))
	if _, err := c.Write(append(slow, local[:5]...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the query is on its way", func() bool { return inflightOf(r) == 1 })
	for hours := range 3 {
		sweepAt(r, time.Duration(hours)*time.Hour)
	}
	release()
	if m := readMsg(t, c); len(m.Answer) != 1 || m.Question[0].Name != "slow.example." {
		t.Error(m)
	}
	if _, err := c.Write(local[5:]); err != nil {
		t.Fatal(err)
	}
	wantA(t, readMsg(t, c))
	eventually(t, "none in flight", func() bool { return inflightOf(r) == 0 })
	for hours := range 3 {
		sweepAt(r, time.Duration(3+hours)*time.Hour)
	}
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
}

// R46: an unfinished query has a time of its own, which the next one does not inherit and more of its bytes do not renew.
func TestR46UnfinishedQuery(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { sweepByHand(l); l.frame, l.idle = 10*time.Second, time.Hour })
	c := dial(t, r.Addrs()[0])
	msg := frame(pack(t, query(tName, dns.TypeA)))
	unfinished := func(what string, is func(since int64) bool) {
		t.Helper()
		eventually(t, what, func() bool {
			r.tcp.mu.Lock()
			defer r.tcp.mu.Unlock()
			for c := range r.tcp.conns {
				return is(c.since.Load())
			}
			return false
		})
	}
	unseen := func(since int64) bool { return since == -1 }
	if _, err := c.Write(msg[:5]); err != nil {
		t.Fatal(err)
	}
	unfinished("a part of a query is there", unseen)
	sweepAt(r, 0)
	if _, err := c.Write(append(bytes.Clone(msg[5:]), msg[:5]...)); err != nil {
		t.Fatal(err)
	}
	wantA(t, readMsg(t, c))
	unfinished("a part of the next one is there", unseen)
	sweepAt(r, 11*time.Second)
	unfinished("it was seen", func(since int64) bool { return since > 0 })
	if _, err := c.Write(msg[5:7]); err != nil {
		t.Fatal(err)
	}
	if r.Stats().Conns != 1 {
		t.Fatal("closed for the first query's time")
	}
	sweepAt(r, 22*time.Second)
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
}

// R46: a client that takes nothing of more than it may be owed is closed, by its own reader, too.
func TestR46MaximumOwed(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) {
		sweepByHand(l)
		l.backlog, l.maximum, l.write = 8<<20, 128<<10, time.Hour
	})
	asksMuch(t, r)
	eventually(t, "no connections", func() bool { return r.Stats().Conns == 0 })
}

// R46: the limits on connections, for each client's address but those of this host, and in all; and how the idle timeout
// shrinks with the room.
func TestR46ConnectionLimits(t *testing.T) {
	host := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	s := &tcpServer{limits: tcpLimits{conns: 10, perHost: 3, idle: 20 * time.Second, idleMin: 2 * time.Second}, conns: make(map[*tcpConn]struct{})}
	add := func(a string, n int) (first *tcpConn) {
		for range n {
			c := &tcpConn{host: host(a), accepted: int64(len(s.conns))}
			s.conns[c] = struct{}{}
			if first == nil {
				first = c
			}
		}
		return first
	}
	victim := func(a string) *tcpConn { return s.victimLocked(&tcpConn{host: host(a)}) }
	local := add("127.0.0.1", 2)
	far := add("192.0.2.1", 2)
	if victim("192.0.2.1") != nil || victim("192.0.2.2") != nil {
		t.Error("no room for a third one")
	}
	add("192.0.2.1", 1)
	if victim("192.0.2.1") != far {
		t.Error("a fourth one of a client does not take the place of its first")
	}
	if victim("192.0.2.2") != nil || victim("127.0.0.1") != nil || s.idleLocked() != 20*time.Second {
		t.Error("another client pays for it")
	}
	add("127.0.0.1", 4)
	if victim("127.0.0.1") != nil || victim("::1") != nil {
		t.Error("this host has a limit of its own")
	}
	if got := s.idleLocked(); got != 4*time.Second { // 9 of 10 are there
		t.Errorf("idle timeout %v", got)
	}
	add("192.0.2.2", 1)
	if victim("192.0.2.9") != local || victim("127.0.0.1") != local || victim("192.0.2.1") != local {
		t.Error("at the limit it is not the oldest one that goes")
	}
	if got := s.idleLocked(); got != 2*time.Second {
		t.Errorf("idle timeout without room: %v", got)
	}
	s.conns, s.leaving = make(map[*tcpConn]struct{}), true
	if got := s.idleLocked(); got != 2*time.Second {
		t.Errorf("idle timeout while leaving: %v", got)
	}
}

// R45: who half-closes and takes the replies slowly gets all of them.
func TestR45HalfCloseOfSlowReader(t *testing.T) {
	r := serveTCP(t, func(l *tcpLimits) { l.backlog, l.write, l.idle = 8<<20, time.Hour, time.Hour })
	c, queries := asksMuch(t, r)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range queries {
		if m := readMsg(t, c); len(m.Answer) != 24 {
			t.Fatalf("%v", m)
		}
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v; want the end", n, err)
	}
}

// R46: at the limit idle connections make room before those that wait for replies, then those that have been idle for longer,
// then those that are older.
func TestR46WhoMakesRoom(t *testing.T) {
	local, slow := query(tName, dns.TypeA), query("slow.example.", dns.TypeA)
	write := func(c net.Conn, q *dns.Msg) {
		t.Helper()
		if _, err := c.Write(frame(pack(t, q))); err != nil {
			t.Fatal(err)
		}
	}
	asks := func(c net.Conn) {
		t.Helper()
		write(c, local)
		wantA(t, readMsg(t, c))
	}
	for _, c := range []struct {
		name   string
		before func(r *Resolver, old, young net.Conn)
		goes   int // 0 the older one
		busy   bool
	}{
		{"the older one", func(r *Resolver, _, _ net.Conn) { sweepAt(r, 0); sweepAt(r, time.Second) }, 0, false},
		{"the one that has not asked since", func(r *Resolver, old, _ net.Conn) { sweepAt(r, 0); asks(old) }, 1, false},
		{"the one that was idle first", func(r *Resolver, old, _ net.Conn) {
			sweepAt(r, 0)
			asks(old)
			sweepAt(r, time.Second)
			sweepAt(r, 2*time.Second)
		}, 1, false},
		{"the idle one", func(r *Resolver, old, _ net.Conn) {
			sweepAt(r, 0)
			write(old, slow)
			eventually(t, "the query is on its way", func() bool { return inflightOf(r) == 1 })
			sweepAt(r, time.Second)
		}, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, release := heldUp(t, func(l *tcpLimits) { l.conns, l.idleMin = 2, time.Hour }) // nobody goes for being idle
			conns := []net.Conn{dial(t, r.Addrs()[0])}
			asks(conns[0])
			conns = append(conns, dial(t, r.Addrs()[0]))
			asks(conns[1])
			c.before(r, conns[0], conns[1])
			asks(dial(t, r.Addrs()[0]))
			release()
			if n, err := conns[c.goes].Read(make([]byte, 1)); err == nil {
				t.Errorf("%d bytes on the connection that was to go", n)
			}
			if c.busy {
				if m := readMsg(t, conns[1-c.goes]); len(m.Answer) != 1 {
					t.Error(m)
				}
			}
			asks(conns[1-c.goes])
		})
	}
}
