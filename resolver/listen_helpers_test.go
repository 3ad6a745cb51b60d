package resolver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/answer"
)

// Names of testTable.
const (
	tName = "api.example.com." // A 192.0.2.1, AAAA 2001:db8::1
	tHold = "new.example.com." // no verdict yet
	tIdle = "idle.example.com."
	tBig  = "big.example.com." // 24 A records
)

func testSpecs() []*answer.Spec {
	addrs := func(s ...string) answer.SetSpec {
		set := answer.SetSpec{EDE: answer.NoEDE}
		for i, a := range s {
			set.Addrs = append(set.Addrs, netip.MustParseAddr(a))
			set.IDs = append(set.IDs, uint32(i))
		}
		return set
	}
	var many []string
	for i := range 24 {
		many = append(many, fmt.Sprintf("192.0.2.%d", i+1))
	}
	hold := answer.SetSpec{Kind: answer.Hold, EDE: answer.NoEDE, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}
	return []*answer.Spec{
		{Name: "api.example.com", TTL: 1, Sets: [2]answer.SetSpec{addrs("192.0.2.1"), addrs("2001:db8::1")}},
		{Name: "new.example.com", TTL: 1, Sets: [2]answer.SetSpec{hold, hold}},
		{Name: "idle.example.com", TTL: 1, Idle: true, Sets: [2]answer.SetSpec{addrs("192.0.2.1"), addrs()}},
		{Name: "big.example.com", TTL: 1, Sets: [2]answer.SetSpec{addrs(many...), addrs()}},
	}
}

func buildTable(t testing.TB, specs []*answer.Spec) *answer.Table {
	t.Helper()
	var names []string
	var entries []*answer.Entry
	for _, s := range specs {
		names = append(names, s.Name)
		entries = append(entries, answer.Build(s))
	}
	ix, err := answer.NewIndex(names)
	if err != nil {
		t.Fatal(err)
	}
	return answer.NewTable(ix, entries)
}

func testLog(t testing.TB) *slog.Logger {
	tt, ok := t.(*testing.T)
	if !ok {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(testWriter{tt}, nil))
}

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// newServer binds a Resolver, with the test's table and no upstream; it does
// not serve before Start.
func newServer(t testing.TB, o Options) *Resolver {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []netip.AddrPort{anyPort}
	}
	if o.Log == nil {
		o.Log = testLog(t)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Publish(buildTable(t, testSpecs()))
	t.Cleanup(func() { stopServer(r) })
	return r
}

func stopServer(r *Resolver) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.Stop(ctx)
}

// serve starts one, and forwards to ups, if there are any.
func serve(t testing.TB, o Options, ups ...*farEnd) *Resolver {
	t.Helper()
	r := newServer(t, o)
	if len(ups) > 0 {
		if err := r.SetUpstreams(optionsTo(ups...)); err != nil {
			t.Fatal(err)
		}
	}
	r.Start()
	return r
}

func query(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exchange(t testing.TB, network string, to netip.AddrPort, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, to.String())
	if err != nil {
		t.Fatalf("%s %s: %v", network, to, err)
	}
	return r
}

// wantA checks that m is the answer to a query for tName's A.
func wantA(t testing.TB, m *dns.Msg) {
	t.Helper()
	if m.Rcode != 0 || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
		t.Fatalf("answer: %v", m)
	}
}

// dial opens a TCP connection with a deadline for all that is done with it.
func dial(t testing.TB, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// frame puts the length before a message.
func frame(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }

func readMsg(t testing.TB, c net.Conn) *dns.Msg {
	t.Helper()
	m, err := (&dns.Conn{Conn: c}).ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// logged is a log to be looked through.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logged) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// goroutinesBack waits until there are no more goroutines than before.
func goroutinesBack(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(time.Millisecond)
	}
}
