package resolver

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/answer"
	"hard/internal/wire"
)

// farEnd is a test's upstream: UDP and TCP on one loopback port, raw bytes.
// handle returns the datagrams (or frames) to send for one query.
type farEnd struct {
	t       *testing.T
	addr    netip.AddrPort
	udp     *net.UDPConn
	tcp     net.Listener
	handle  atomic.Pointer[func(q []byte, tcp bool) [][]byte]
	queries atomic.Int64 // but for probes and canaries
	conns   atomic.Int64

	mu    sync.Mutex
	ports map[uint16]int
	seen  [][]byte
}

func newFarEnd(t *testing.T, handle func(q []byte, tcp bool) [][]byte) *farEnd {
	t.Helper()
	u := &farEnd{t: t, ports: make(map[uint16]int)}
	u.set(handle)
	for range 10 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp4", c.LocalAddr().String())
		if err != nil {
			c.Close()
			continue
		}
		u.udp, u.tcp = c, l
		break
	}
	u.addr = u.udp.LocalAddr().(*net.UDPAddr).AddrPort()
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); u.serveUDP() }()
	go func() { defer wg.Done(); u.serveTCP(&wg) }()
	t.Cleanup(func() { u.udp.Close(); u.tcp.Close(); wg.Wait() })
	return u
}

func (u *farEnd) set(h func(q []byte, tcp bool) [][]byte) { u.handle.Store(&h) }

func (u *farEnd) note(q []byte, port uint16) {
	if len(q) > 12 && (q[12] == 0 || q[12] == canaryRandom) {
		return
	}
	u.queries.Add(1)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ports[port]++
	if len(u.seen) < 10000 {
		u.seen = append(u.seen, append([]byte(nil), q...))
	}
}

func (u *farEnd) serveUDP() {
	buf := make([]byte, 65536)
	for {
		n, from, err := u.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		u.note(buf[:n], from.Port())
		for _, m := range (*u.handle.Load())(append([]byte(nil), buf[:n]...), false) {
			_, _ = u.udp.WriteToUDPAddrPort(m, from)
		}
	}
}

func (u *farEnd) serveTCP(wg *sync.WaitGroup) {
	for {
		c, err := u.tcp.Accept()
		if err != nil {
			return
		}
		u.conns.Add(1)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			stop := context.AfterFunc(u.t.Context(), func() { c.Close() })
			defer stop()
			dc := &dns.Conn{Conn: c}
			for {
				b, err := dc.ReadMsgHeader(nil)
				if err != nil {
					return
				}
				u.note(b, 0)
				out := (*u.handle.Load())(b, true)
				if out == nil && closeMark.Load() == u {
					return
				}
				for _, m := range out {
					_, _ = dc.Write(m)
				}
			}
		}()
	}
}

// closeMark names the far end that closes a TCP connection instead of keeping
// silent.
var closeMark atomic.Pointer[farEnd]

func (u *farEnd) server() Server { return Server{Text: u.addr.String(), Addr: u.addr} }

// answerA replies with 192.0.2.1 to everything.
func answerA(q []byte, _ bool) [][]byte { return [][]byte{replyTo(q, nil)} }

func silent([]byte, bool) [][]byte { return nil }

// replyTo makes a reply to q: an A record, or what change makes of it.
func replyTo(q []byte, change func(*dns.Msg)) []byte {
	var m, r dns.Msg
	if err := m.Unpack(q); err != nil {
		panic(err)
	}
	r.SetReply(&m)
	r.RecursionAvailable = true
	if o := m.IsEdns0(); o != nil {
		r.SetEdns0(1232, o.Do())
	}
	if len(m.Question) == 1 {
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A: net.IPv4(192, 0, 2, 1).To4()}}
	}
	r.Compress = true
	if change != nil {
		change(&r)
	}
	b, err := r.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func withRcode(rcode int) func([]byte, bool) [][]byte {
	return func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) { m.Rcode, m.Answer = rcode, nil })}
	}
}

// testForwarder starts a forwarder to servers.
func testForwarder(t *testing.T, o UpstreamOptions) *forwarder {
	t.Helper()
	return testForwarderLog(t, o, testWriter{t})
}

func testForwarderLog(t *testing.T, o UpstreamOptions, log io.Writer) *forwarder {
	t.Helper()
	f := makeForwarder(slog.New(slog.NewTextHandler(log, nil)), 2)
	if err := f.SetUpstreams(o); err != nil {
		t.Fatal(err)
	}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond) // hanging queries are not waited for
		defer cancel()
		f.stop(ctx)
	})
	return f
}

func forwardTo(t *testing.T, ups ...*farEnd) *forwarder {
	t.Helper()
	return testForwarder(t, optionsTo(ups...))
}

func optionsTo(ups ...*farEnd) UpstreamOptions {
	var o UpstreamOptions
	for _, u := range ups {
		o.Servers = append(o.Servers, u.server())
	}
	return o
}

// patience is for what comes at once, but may be starved on a busy machine.
const patience = time.Minute

// patient has no attempt end by itself, so that what is answered within the patience of wait was not
// answered because of that: a test that no slow machine can break.
func patient(o UpstreamOptions) UpstreamOptions {
	o.AttemptTimeout, o.TotalTimeout = 2*patience, 2*patience
	return o
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// send puts one query in, as a listener would, and returns where its reply
// will come.
func send(t testing.TB, f *forwarder, msg []byte, tcp bool, e *answer.Entry) <-chan []byte {
	t.Helper()
	ch := make(chan []byte, 4)
	var q wire.Query
	if v := q.Parse(msg); v != wire.VerdictOK {
		t.Fatalf("query is bad: %d", v)
	}
	f.query(&request{msg: msg, q: &q, entry: e, from: testAsker(tcp, func(m []byte) { ch <- append([]byte(nil), m...) })})
	f.flush()
	return ch
}

// ask sends a query and waits for its reply.
func ask(t testing.TB, f *forwarder, m *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	return askOwn(t, f, m, tcp, nil)
}

func askOwn(t testing.TB, f *forwarder, m *dns.Msg, tcp bool, e *answer.Entry) *dns.Msg {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wait(t, send(t, f, b, tcp, e))
}

func wait(t testing.TB, ch <-chan []byte) *dns.Msg {
	t.Helper()
	select {
	case b := <-ch:
		r := new(dns.Msg)
		if err := r.Unpack(b); err != nil {
			t.Fatalf("reply: %v: %x", err, b)
		}
		return r
	case <-time.After(patience):
		t.Fatal("no reply")
		return nil
	}
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

func withOPT(m *dns.Msg) *dns.Msg {
	m.SetEdns0(4096, true)
	return m
}

// ede returns the reply's extended error code, or -1.
func ede(m *dns.Msg) int {
	if o := m.IsEdns0(); o != nil {
		for _, x := range o.Option {
			if e, ok := x.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// closedPort returns a loopback port that nobody listens on.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
