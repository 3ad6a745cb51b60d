package prober

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hard/internal/rank"
)

// idleServer answers HTTP and keeps track of the connections that did not ask for anything. Once a
// probe has its reply, the watched ones are left.
type idleServer struct {
	l   net.Listener
	mu  sync.Mutex
	all map[net.Conn]bool
}

func newIdleServer(t testing.TB) *idleServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &idleServer{l: l, all: make(map[net.Conn]bool)}
	serveOn(t, l, func(c net.Conn) {
		s.mu.Lock()
		s.all[c] = true
		s.mu.Unlock()
		asked := len(request(c)) > 0
		s.mu.Lock()
		delete(s.all, c)
		s.mu.Unlock()
		if asked {
			c.Write([]byte(okReply))
		}
	})
	return s
}

func (s *idleServer) idle() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// closeAll ends all open connections, as the death of the process would.
func (s *idleServer) closeAll(reset bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.all {
		if reset {
			c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
		n++
	}
	return n
}

// patience is for what comes at once, but may be starved on a busy machine.
const patience = time.Minute

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never came: ", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func watched(s *idleServer, n int) []Target {
	ts := make([]Target, n)
	for i := range ts {
		ts[i] = target(httpCheck(uint16(s.l.Addr().(*net.TCPAddr).Port)), time.Second)
		ts[i].Key.Candidate = fmt.Sprint("c", i)
		ts[i].Check.Fingerprint = uint64(i) // or they would share one
		slow := *ts[i].Pace
		slow.Interval, slow.FastInterval, slow.Fall = time.Hour, time.Hour, 3
		ts[i].Pace, ts[i].Watch = &slow, true
	}
	return ts
}

// Break plus refusal: as many misses as fall wants, at once, although the interval is an hour.
func TestWatchBreakPlusRefusal(t *testing.T) {
	for _, reset := range []bool{false, true} {
		s, sink := newIdleServer(t), newCollector()
		p := newProber(t, Options{Sink: sink})
		p.Start()
		ts := watched(s, 1)
		p.SetName("www.example.com", ts)
		if got := sink.next(t); got.Outcome != rank.OK {
			t.Fatalf("%+v", got)
		}
		eventually(t, "the watched connection", func() bool { return p.Stats().Watching == 1 && s.idle() == 1 })
		s.l.Close()
		begin := time.Now()
		s.closeAll(reset)
		for i := range 3 {
			got := sink.next(t)
			if got.Outcome != rank.Refused || !got.Final {
				t.Errorf("sample %d: %+v", i, got)
			}
		}
		t.Logf("reset %v: three refusals %v after the break", reset, time.Since(begin))
		select {
		case got := <-sink.samples:
			t.Errorf("one more: %+v", got)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A server that closes idle connections gets a probe for each, which is well.
func TestWatchIdleClose(t *testing.T) {
	s, sink := newIdleServer(t), newCollector()
	p := newProber(t, Options{Sink: sink})
	p.Start()
	ts := watched(s, 1)
	p.SetName("www.example.com", ts)
	sink.next(t)
	for range 3 {
		eventually(t, "the watched connection", func() bool { return p.Stats().Watching == 1 })
		eventually(t, "an open connection", func() bool { return s.closeAll(false) > 0 })
		if got := sink.next(t); got.Outcome != rank.OK {
			t.Errorf("%+v", got)
		}
	}
	ts[0].Watch = false
	p.SetName("www.example.com", ts)
	if n := p.Stats().Watching; n != 0 {
		t.Error("still watching", n)
	}
	eventually(t, "the server's side to be closed", func() bool { return s.closeAll(false) == 0 })
	if len(sink.samples) != 0 {
		t.Error("a probe after the watch ended")
	}
}

// When the server comes back, the first good probe brings the watch back too.
func TestWatchComesBack(t *testing.T) {
	sink := newCollector()
	l, err := net.Listen("tcp", "127.0.0.79:0") // an address of our own: nobody takes the port meanwhile
	if err != nil {
		t.Fatal(err)
	}
	s := &idleServer{l: l}
	l.Close()
	p := newProber(t, Options{Sink: sink})
	p.Start()
	ts := watched(s, 1)
	ts[0].Key.Addr = netip.MustParseAddr("127.0.0.79")
	p.SetName("www.example.com", ts)
	if got := sink.next(t); got.Outcome != rank.Refused {
		t.Fatalf("%+v", got)
	}
	if l, err = net.Listen("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, reply(okReply))
	p.ProbeNow(ts[0].Key)
	if got := sink.next(t); got.Outcome != rank.OK {
		t.Fatalf("%+v", got)
	}
	eventually(t, "the watched connection", func() bool { return p.Stats().Watching == 1 })
}

// A thousand watched endpoints: no goroutines of ours, and nothing left behind.
func TestWatchMany(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var held []net.Conn // accepted and left alone
	accepted := make(chan net.Conn, 4096)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	s := &idleServer{l: l}
	p := newProber(t, Options{})
	const n = 200
	ts := watched(s, n)
	p.SetName("www.example.com", ts) // not started: watches alone
	eventually(t, "all watched", func() bool { return p.Stats().Watching == n })
	for range n {
		held = append(held, <-accepted)
	}
	p.SetName("www.example.com", nil)
	for _, c := range held {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("data on an idle connection")
		}
		c.Close()
	}
}
