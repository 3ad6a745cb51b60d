package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// load asks a server all the time and remembers every question that was not answered, or wrongly.
//
// No figure of it depends on how fast the machine is: what may be unanswered at one time is bounded
// so that no socket's buffer can overflow, however long the server is not run. It asks at the rate
// wanted, or at what the machine has time for.
type load struct {
	t      *testing.T
	to     netip.AddrPort
	wanted map[string]string // the one right address, by name
	asks   []question
	socks  []*loadSocket
	quit   chan struct{}
	wg     sync.WaitGroup

	asked, answered atomic.Int64 // over UDP
	conns, again    atomic.Int64 // TCP connections that brought an answer, and those that were closed before
	paused          atomic.Bool

	asking sync.RWMutex // held for reading while something is asked, and over TCP until it is answered

	mu    sync.Mutex
	wrong []string
}

// question is one, packed.
type question struct {
	name string
	msg  []byte
}

const (
	loadSockets = 8
	loadWindow  = 48 // unanswered questions of one socket
	loadTick    = time.Millisecond
	// loadLost is when a question is taken for lost. A machine that is out of breath delays.
	loadLost = 20 * time.Second
)

// forwardName is the name of a question that goes to the test's upstream.
func forwardName(i int) string { return fmt.Sprintf("n%d.elsewhere.example.org", i) }

func forwardAddr(i int) string { return fmt.Sprintf("192.0.2.%d", i%250) }

// newLoad asks at a rate of queries a second over UDP, and over a new TCP connection every 20 ms.
// A tenth of the names are the upstream's.
func newLoad(t *testing.T, to netip.AddrPort, rate int, names map[string]string) *load {
	t.Helper()
	l := &load{t: t, to: to, quit: make(chan struct{}), wanted: make(map[string]string)}
	add := func(name, addr string) {
		b, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
		if err != nil {
			t.Fatal(err)
		}
		l.wanted[dns.Fqdn(name)] = addr
		l.asks = append(l.asks, question{name, b})
	}
	for i := range 10 {
		add(forwardName(i), forwardAddr(i))
		for range 9 / len(names) {
			for name, addr := range names {
				add(name, addr)
			}
		}
	}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.Failed() { // perhaps before stop could tell
			t.Logf("what clients saw: %q", l.wrong)
		}
	})
	for i := range loadSockets {
		c := l.dial(i)
		l.socks = append(l.socks, c)
		l.wg.Go(func() { c.send(rate / loadSockets) })
		l.wg.Go(c.receive)
	}
	l.wg.Go(l.connect)
	return l
}

func (l *load) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 50 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

// answers waits for so many more answers.
func (l *load) answers(n int64) {
	l.t.Helper()
	from := l.answered.Load()
	eventually(l.t, fmt.Sprintf("%d more answers", n), func() bool { return l.answered.Load() >= from+n })
}

// pause asks nothing more until resume, and waits until nothing is unanswered.
func (l *load) pause() {
	l.t.Helper()
	l.paused.Store(true)
	l.asking.Lock()
	//lint:ignore SA2001 everybody has seen the flag by now
	l.asking.Unlock()
	began := time.Now()
	eventually(l.t, "everything is answered", func() bool {
		done := l.asked.Load() == l.answered.Load()
		if !done && time.Since(began) > loadLost {
			l.stop() // it says what is missing
			l.t.FailNow()
		}
		return done
	})
}

func (l *load) resume() { l.paused.Store(false) }

// full waits until as much is unanswered as may be: the server answers nothing.
func (l *load) full() {
	l.t.Helper()
	eventually(l.t, "questions wait", func() bool { return l.asked.Load()-l.answered.Load() == loadSockets*loadWindow })
}

// stop ends the asking, waits for the last answers, and reports what went wrong.
func (l *load) stop() {
	l.t.Helper()
	close(l.quit)
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wrong {
		l.t.Error(w)
	}
	if a, b := l.asked.Load(), l.answered.Load(); a != b || a == 0 {
		l.t.Errorf("%d of %d questions were answered", b, a)
	}
	if l.conns.Load() == 0 {
		l.t.Error("no TCP connection was made")
	}
}

// right checks an answer.
func (l *load) right(how string, m *dns.Msg) {
	if len(m.Question) != 1 || m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		l.fail("%s: %v", how, m)
		return
	}
	a, ok := m.Answer[0].(*dns.A)
	if want := l.wanted[strings.ToLower(m.Question[0].Name)]; !ok || a.A.String() != want {
		l.fail("%s: %v, want %s", how, m.Answer[0], want)
	}
}

// loadSocket is one client. Its questions have IDs in a row, so that none is taken for another.
type loadSocket struct {
	l    *load
	c    *net.UDPConn
	next int // in l.asks

	room chan struct{} // holds one element for each unanswered question

	mu   sync.Mutex
	id   uint16
	open map[uint16]string // names of unanswered questions
	from time.Time         // since when one is open without an answer to any
	done bool              // nothing more is asked
}

func (l *load) dial(i int) *loadSocket {
	l.t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.to))
	if err != nil {
		l.t.Fatal(err)
	}
	return &loadSocket{l: l, c: c, next: i * 7, room: make(chan struct{}, loadWindow), open: make(map[uint16]string)}
}

func (s *loadSocket) send(rate int) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.done = true
		s.wake()
	}()
	tick := time.NewTicker(loadTick)
	defer tick.Stop()
	began, sent := time.Now(), 0
	for {
		select {
		case <-s.l.quit:
			return
		case <-tick.C:
		}
		due := int(float64(rate) * time.Since(began).Seconds())
		s.askSome(due - sent)
		sent = due
	}
}

// askSome asks n questions, or as many as there is room for: what can't be asked now is not made
// up for.
func (s *loadSocket) askSome(n int) {
	s.l.asking.RLock()
	defer s.l.asking.RUnlock()
	if s.l.paused.Load() {
		return
	}
	for range n {
		select {
		case s.room <- struct{}{}:
			s.ask()
		default:
			return
		}
	}
}

func (s *loadSocket) ask() {
	q := s.l.asks[s.next%len(s.l.asks)]
	s.next++
	b := append([]byte(nil), q.msg...)
	s.mu.Lock()
	s.id++
	if len(s.open) == 0 {
		s.from = time.Now()
	}
	binary.BigEndian.PutUint16(b, s.id)
	s.open[s.id] = q.name
	s.mu.Unlock()
	s.l.asked.Add(1)
	if _, err := s.c.Write(b); err != nil {
		s.l.fail("send: %v", err)
	}
}

// wake has receive look whether it is done. s.mu is held.
func (s *loadSocket) wake() {
	if len(s.open) == 0 {
		_ = s.c.SetReadDeadline(time.Unix(1, 0))
	}
}

func (s *loadSocket) receive() {
	defer s.c.Close()
	buf := make([]byte, 1500)
	for !s.over() {
		s.mu.Lock()
		if !s.done || len(s.open) > 0 {
			_ = s.c.SetReadDeadline(time.Now().Add(loadLost))
		}
		s.mu.Unlock()
		n, err := s.c.Read(buf)
		if s.over() {
			return
		}
		if os.IsTimeout(err) && !s.late() {
			continue // in a pause nothing is asked, however long it lasts
		}
		if err != nil {
			s.l.fail("no answer since %v: %v; open: %v", time.Now().Add(-loadLost).Format(time.StampMilli), err, s.unanswered())
			if os.IsTimeout(err) {
				return
			}
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			s.l.fail("an answer that can't be read: %v", err)
			continue
		}
		s.take(m)
	}
}

func (s *loadSocket) take(m *dns.Msg) {
	s.mu.Lock()
	name, ok := s.open[m.Id]
	delete(s.open, m.Id)
	s.from = time.Now()
	if s.done {
		s.wake()
	}
	s.mu.Unlock()
	if !ok {
		s.l.fail("an answer to nothing, or a second one: %v", m)
		return
	}
	if len(m.Question) != 1 || m.Question[0].Name != dns.Fqdn(name) {
		s.l.fail("asked for %s, got %v", name, m)
	}
	s.l.right("udp", m)
	s.l.answered.Add(1)
	<-s.room
}

func (s *loadSocket) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done && len(s.open) == 0
}

// late tells whether something that was asked is taken for lost.
func (s *loadSocket) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open) > 0 && time.Since(s.from) >= loadLost
}

func (s *loadSocket) unanswered() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.open {
		names = append(names, n)
	}
	return names
}

// connect asks one question over each of many TCP connections.
func (l *load) connect() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	c := dns.Client{Net: "tcp", Timeout: loadLost}
	for i := 0; ; i++ {
		select {
		case <-l.quit:
			return
		case <-tick.C:
		}
		l.connectOnce(&c, l.asks[i%len(l.asks)].name)
	}
}

func (l *load) connectOnce(c *dns.Client, name string) {
	l.asking.RLock()
	defer l.asking.RUnlock()
	if l.paused.Load() {
		return
	}
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	m, _, err := c.Exchange(q, l.to.String())
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		// A server may close what is idle, and this machine may have let us wait between connecting and
		// asking for as long: a client asks again then (RFC 7766, section 6.2.4).
		l.again.Add(1)
		m, _, err = c.Exchange(q, l.to.String())
	}
	if err != nil {
		l.fail("tcp: %v", err)
		return
	}
	l.right("tcp", m)
	l.conns.Add(1)
}

// loadUpstream answers what forwardName makes.
func loadUpstream(t *testing.T) netip.AddrPort {
	t.Helper()
	at := ownPlace()
	pc, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		var i int
		if _, err := fmt.Sscanf(strings.ToLower(q.Question[0].Name), "n%d.elsewhere", &i); err == nil {
			rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN A %s", q.Question[0].Name, forwardAddr(i)))
			if err == nil {
				m.Answer = append(m.Answer, rr)
			}
		} else {
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: ln, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return at
}
