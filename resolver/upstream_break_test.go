package resolver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/wire"
)

// connTracker is a listener whose connections can all be cut at once.
type connTracker struct {
	net.Listener
	accepted atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func (l *connTracker) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, c)
	return c, nil
}

// cut ends all connections with RST.
func (l *connTracker) cut() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	n = len(l.conns)
	l.conns = nil
	return n
}

func trackedListener(t *testing.T) *connTracker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &connTracker{Listener: l}
}

// R72, fault 24: connections to an upstream over TLS and HTTPS are cut under
// load, with queries on their way: every client still gets its answer, over a
// fresh connection, though there is no other upstream.
func TestR72StreamCutUnderLoad(t *testing.T) {
	t.Parallel()
	for kind, start := range map[ServerKind]func(*testing.T) (Server, *connTracker, *forwarder){TLS: startTLS, HTTPS: startHTTPS} {
		t.Run(map[ServerKind]string{TLS: "TLS", HTTPS: "HTTPS"}[kind], func(t *testing.T) {
			_, l, f := start(t)
			wait(t, sendName(t, f, "first.example."))
			n := 0
			for round := range 5 {
				var all []<-chan []byte
				for i := range 40 {
					all = append(all, sendName(t, f, fmt.Sprintf("r%d-%d.example.", round, i)))
				}
				wait(t, all[0])
				n += l.cut()
				for i, ch := range all[1:] {
					if r := wait(t, ch); r.Rcode != 0 || len(r.Answer) != 1 {
						t.Errorf("round %d, query %d: %v", round, i, r)
					}
				}
			}
			if n == 0 || l.accepted.Load() < 2 {
				t.Errorf("%d connections were cut, %d accepted", n, l.accepted.Load())
			}
			t.Logf("%d connections were cut, %d accepted", n, l.accepted.Load())
		})
	}
}

func sendName(t *testing.T, f *forwarder, name string) <-chan []byte {
	t.Helper()
	b, err := question(name, dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return send(t, f, b, false, nil)
}

// slowly answers after a moment, so that there are queries on their way.
func slowly(q []byte) []byte {
	time.Sleep(5 * time.Millisecond)
	return answerA(q, true)[0]
}

func startTLS(t *testing.T) (Server, *connTracker, *forwarder) {
	cert, roots := certificate(t, "dot.example")
	l := trackedListener(t)
	srv := &dns.Server{Listener: tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}}),
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
			b, _ := m.Pack()
			_, _ = w.Write(slowly(b))
		})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { l.Close(); l.cut(); <-done })
	s := Server{Kind: TLS, Addr: l.Addr().(*net.TCPAddr).AddrPort(), ServerName: "dot.example"}
	return s, l, forwardTLS(t, s, roots)
}

func startHTTPS(t *testing.T) (Server, *connTracker, *forwarder) {
	cert, roots := certificate(t, "doh.example")
	l := trackedListener(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", dnsMessage)
		_, _ = w.Write(slowly(q))
	}))
	srv.Listener.Close()
	srv.Listener = l
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := Server{Kind: HTTPS, Addr: l.Addr().(*net.TCPAddr).AddrPort(), ServerName: "doh.example", URL: "https://doh.example/dns-query"}
	return s, l, forwardTLS(t, s, roots)
}

// Fault 23: an upstream that sends garbage, over UDP datagrams of up to 64 kB
// and over TCP frames of 64 kB, harms nobody: with another upstream there is an
// answer, alone there is SERVFAIL within the deadline, and after it all is as
// before.
func TestFault23Garbage(t *testing.T) {
	t.Parallel()
	panics := countPanics()
	junk := make([]byte, 65507)
	for i := range junk {
		junk[i] = byte(i * 7)
	}
	kinds := map[string]func(q []byte, tcp bool) [][]byte{
		"noise":     func([]byte, bool) [][]byte { return [][]byte{junk[:1], junk[:12], junk[:100], junk[:1400], junk} },
		"noise, ID": func(q []byte, _ bool) [][]byte { return [][]byte{append(q[:2:2], junk[2:]...)} },
		"own query": func(q []byte, _ bool) [][]byte { return [][]byte{q} },
		"counts that lie": func(q []byte, _ bool) [][]byte {
			m := append(q[:len(q):len(q)], junk[:60000]...)
			m[2] |= 0x80
			binary.BigEndian.PutUint16(m[6:], 65535)
			return [][]byte{m}
		},
	}
	for name, h := range kinds {
		for _, tcp := range []bool{false, true} {
			bad := newFarEnd(t, h)
			o := optionsTo(bad)
			o.AttemptTimeout, o.TotalTimeout = 100*time.Millisecond, 300*time.Millisecond
			f := testForwarder(t, o)
			r := ask(t, f, question("b.example.", dns.TypeA), tcp)
			if r.Rcode != dns.RcodeServerFailure && !r.Truncated || len(r.Answer) != 0 {
				t.Errorf("%s, tcp %v, alone: %v", name, tcp, r)
			}
			bad.set(answerA)
			eventually(t, name+": it is used again", func() bool {
				return len(ask(t, f, question("again.example.", dns.TypeA), tcp).Answer) == 1
			})
			bad.set(h)
			f = forwardTo(t, bad, newFarEnd(t, answerA))
			r = ask(t, f, question("g.example.", dns.TypeA), tcp)
			if !tcp && r.Truncated { // as from a datagram that is too long: the client comes back over TCP
				r = ask(t, f, question("g.example.", dns.TypeA), true)
			}
			if len(r.Answer) != 1 {
				t.Errorf("%s, with another, tcp %v: %v", name, tcp, r)
			}
			if panics() != 0 {
				t.Errorf("%s: panics", name)
			}
		}
	}
}

// 64 kB of zeros behind a whole reply go to nobody.
func TestFault23Trailing(t *testing.T) {
	f := forwardTo(t, newFarEnd(t, func(q []byte, _ bool) [][]byte {
		m := replyTo(q, nil)
		return [][]byte{append(m, make([]byte, wire.MaxTCP-len(m))...)}
	}))
	b, _ := question("t.example.", dns.TypeA).Pack()
	if m := <-send(t, f, b, true, nil); len(m) > 100 {
		t.Errorf("the reply has %d bytes", len(m))
	}
}

// A true answer of 64 kB arrives whole over TCP.
func TestFault23LargestAnswer(t *testing.T) {
	big := func(q []byte, tcp bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			m.Truncated, m.Answer = !tcp, nil
			for i := 0; tcp && i < 4000; i++ {
				m.Answer = append(m.Answer, mustRR(fmt.Sprintf("%s 1 IN A 10.0.%d.%d", m.Question[0].Name, i/250, i%250)))
			}
		})}
	}
	f := forwardTo(t, newFarEnd(t, big))
	if r := ask(t, f, question("l.example.", dns.TypeA), false); !r.Truncated {
		t.Errorf("over UDP: %v", r.MsgHdr)
	}
	r := ask(t, f, question("l.example.", dns.TypeA), true)
	if len(r.Answer) != 4000 {
		t.Errorf("%d of 4000 records", len(r.Answer))
	}
}

// Fault 34: while no upstream answers, LookupAddrs ends with an error within
// total_timeout, although its context goes on; when one does, with addresses.
func TestFault34LookupWhileUpstreamsAreDown(t *testing.T) {
	u := newFarEnd(t, silent)
	for name, s := range map[string]Server{"silent": u.server(), "closed": {Addr: closedPort(t)}} {
		o := UpstreamOptions{Servers: []Server{s}, AttemptTimeout: 100 * time.Millisecond, TotalTimeout: 300 * time.Millisecond}
		f := testForwarder(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		addrs, _, err := f.LookupAddrs(ctx, "candidate.example", false)
		if err == nil || len(addrs) != 0 || ctx.Err() != nil {
			t.Errorf("%s: %v, %v, context %v", name, addrs, err, ctx.Err())
		}
		cancel()
		if name == "silent" {
			u.set(answerA)
			if addrs, _, err = f.LookupAddrs(t.Context(), "candidate.example", false); err != nil || len(addrs) != 1 {
				t.Errorf("healed: %v, %v", addrs, err)
			}
		}
	}
	f := makeForwarder(testLog(t), 1)
	if _, _, err := f.LookupAddrs(t.Context(), "candidate.example", false); err == nil {
		t.Error("no error without any upstream")
	}
}
