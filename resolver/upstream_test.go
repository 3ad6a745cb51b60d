package resolver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// R72: a connection that was closed while idle is replaced without loss.
func TestR72ClosedIdleConnection(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	ask(t, f, question("a.example.", dns.TypeA), true)
	closeMark.Store(u)
	t.Cleanup(func() { closeMark.Store(nil) })
	var once atomic.Bool
	u.set(func(q []byte, tcp bool) [][]byte {
		if once.CompareAndSwap(false, true) {
			return nil // closes
		}
		return answerA(q, tcp)
	})
	if r := ask(t, f, question("b.example.", dns.TypeA), true); len(r.Answer) != 1 {
		t.Errorf("reply: %v", r)
	}
	if n := u.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// R72, R44, fault 24: a hanging query hurts only itself; queries are pipelined.
func TestR72HangingQuery(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		if q[12] == 4 {
			return nil
		}
		return answerA(q, true)
	})
	f := forwardTo(t, u)
	b, _ := question("hang.example.", dns.TypeA).Pack()
	hang := send(t, f, b, true, nil)
	for i := range 20 {
		if r := ask(t, f, question(fmt.Sprintf("q%d.example.", i), dns.TypeA), true); len(r.Answer) != 1 {
			t.Fatalf("reply: %v", r)
		}
	}
	if len(hang) != 0 || u.conns.Load() != 1 {
		t.Errorf("%d connections for pipelined queries", u.conns.Load())
	}
}

// R41: TC over TCP ends the attempt.
func TestR41TruncatedOverTCP(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) { m.Truncated = true })}
	})
	r := ask(t, forwardTo(t, u), question("tc.example.", dns.TypeA), true)
	if r.Rcode != dns.RcodeServerFailure || u.queries.Load() > 3 {
		t.Errorf("after %d queries: %v", u.queries.Load(), r)
	}
}

func TestTCPUpstream(t *testing.T) {
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if !tcp {
			return nil
		}
		return answerA(q, tcp)
	})
	s := u.server()
	s.Kind = TCP
	f := testForwarder(t, UpstreamOptions{Servers: []Server{s}})
	for _, tcp := range []bool{false, true} {
		if r := ask(t, f, question("tcp.example.", dns.TypeA), tcp); len(r.Answer) != 1 {
			t.Errorf("reply: %v", r)
		}
	}
}

// certificate makes a self-signed one for name.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func forwardTLS(t *testing.T, s Server, roots *x509.CertPool) *forwarder {
	t.Helper()
	return forwardTLSLog(t, s, roots, testWriter{t})
}

func forwardTLSLog(t *testing.T, s Server, roots *x509.CertPool, log io.Writer) *forwarder {
	t.Helper()
	f := makeForwarder(slog.New(slog.NewTextHandler(log, nil)), 1)
	f.roots = roots
	if err := f.SetUpstreams(patient(UpstreamOptions{Servers: []Server{s}})); err != nil {
		t.Fatal(err)
	}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.stop(t.Context()) })
	return f
}

// RFC 7858: the name is verified, the connection kept.
func TestTLSUpstream(t *testing.T) {
	cert, roots := certificate(t, "dot.example")
	u := newFarEnd(t, answerA)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	u.tcp.Close()
	u2 := &farEnd{t: t, tcp: l, ports: make(map[uint16]int)}
	u2.set(answerA)
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		u2.conns.Add(1)
		b, _ := m.Pack()
		_, _ = w.Write(answerA(b, true)[0])
	})}
	go func() { _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.Shutdown() })
	s := Server{Kind: TLS, Addr: l.Addr().(*net.TCPAddr).AddrPort(), ServerName: "dot.example"}
	f := forwardTLS(t, s, roots)
	for i := range 5 {
		if r := ask(t, f, question(fmt.Sprintf("q%d.example.", i), dns.TypeA), i%2 == 0); len(r.Answer) != 1 {
			t.Errorf("reply: %v", r)
		}
	}
	s.ServerName = "other.example"
	var log logged
	f = forwardTLSLog(t, s, roots, &log)
	for range downRefused {
		if r := ask(t, f, withOPT(question("q.example.", dns.TypeA)), false); r.Rcode != dns.RcodeServerFailure || ede(r) != 23 {
			t.Errorf("wrong name: %v", r)
		}
	}
	eventually(t, "the log tells what is wrong with it", func() bool {
		return strings.Contains(log.String(), "certificate is valid for dot.example, not other.example")
	})
	eventually(t, "the failure is counted as one of TLS", func() bool { return f.UpstreamStats()[0].Failures["tls"] > 0 })
}

// RFC 8484: POST over HTTP/2 to the fixed address.
func TestHTTPSUpstream(t *testing.T) {
	var proto atomic.Value
	f := forwardHTTPS(t, func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto + " " + r.Method + " " + r.Host)
		answerHTTPS(w, r)
	})
	q := question("Doh.example.", dns.TypeA)
	if r := ask(t, f, q, false); len(r.Answer) != 1 || r.Id != q.Id || r.Question[0] != q.Question[0] {
		t.Errorf("reply: %v", r)
	}
	if got := proto.Load(); got != "HTTP/2.0 POST doh.example" {
		t.Errorf("request was %v", got)
	}
}

// forwardHTTPS starts a forwarder to an HTTPS upstream with that handler.
func forwardHTTPS(t *testing.T, h http.HandlerFunc) *forwarder {
	t.Helper()
	cert, roots := certificate(t, "doh.example")
	srv := httptest.NewUnstartedServer(h)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return forwardTLS(t, Server{Kind: HTTPS, Addr: netip.MustParseAddrPort(srv.Listener.Addr().String()), ServerName: "doh.example",
		URL: "https://doh.example/dns-query"}, roots)
}

func answerHTTPS(w http.ResponseWriter, r *http.Request) {
	q, _ := io.ReadAll(r.Body)
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", dnsMessage)
	}
	_, _ = w.Write(answerA(q, true)[0])
}

// RFC 8484 section 5.1: what an HTTP cache has held is that much older. A media type may have parameters.
func TestHTTPSAge(t *testing.T) {
	for age, ttl := range map[string]uint32{"": 60, "0": 60, "45": 15, "61": 0, "4294967296": 60, "soon": 60} {
		f := forwardHTTPS(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "Application/DNS-message; charset=binary")
			if age != "" {
				w.Header().Set("Age", age)
			}
			answerHTTPS(w, r)
		})
		if r := ask(t, f, question("age.example.", dns.TypeA), false); len(r.Answer) != 1 || r.Answer[0].Header().Ttl != ttl {
			t.Errorf("Age %q: %v, want TTL %d", age, r, ttl)
		}
	}
}

// R72: an HTTP/2 server that ends its connections again and again, by GOAWAY, costs no query.
func TestHTTPSGoAway(t *testing.T) {
	var n atomic.Int64
	var peers sync.Map
	f := forwardHTTPS(t, func(w http.ResponseWriter, r *http.Request) {
		peers.Store(r.RemoteAddr, true)
		if n.Add(1)%50 == 0 { // more often, and our eight connections all wait for the server to close them
			w.Header().Set("Connection", "close") // which net/http's server says by GOAWAY
		}
		answerHTTPS(w, r)
	})
	var waiting []<-chan []byte
	for i := range 300 {
		b, _ := question(fmt.Sprintf("g%d.example.", i), dns.TypeA).Pack()
		waiting = append(waiting, send(t, f, b, false, nil))
		if i%30 == 29 { // as many at a time
			for _, ch := range waiting {
				if r := wait(t, ch); len(r.Answer) != 1 {
					t.Errorf("reply: %v", r)
				}
			}
			waiting = waiting[:0]
		}
	}
	conns := 0
	peers.Range(func(any, any) bool { conns++; return true })
	if conns < 3 {
		t.Errorf("%d connections: nothing was ended", conns)
	}
}

// R76: goroutines and descriptors go back to where they began.
func TestR76NothingIsLeft(t *testing.T) {
	u := newFarEnd(t, answerA)
	fds := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc: ", err)
		}
		return len(d)
	}
	before, files := runtime.NumGoroutine(), fds()
	f := makeForwarder(slog.New(slog.DiscardHandler), 2)
	if err := f.SetUpstreams(optionsTo(u)); err != nil {
		t.Fatal(err)
	}
	if err := f.start(); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		b, _ := question(fmt.Sprintf("l%d.example.", i), dns.TypeA).Pack()
		wait(t, send(t, f, b, i%10 == 0, nil))
	}
	f.stop(t.Context())
	eventually(t, fmt.Sprintf("%d goroutines and %d descriptors", before, files), func() bool {
		return runtime.NumGoroutine() <= before+1 && fds() <= files+1 // the far end's connection closes by itself
	})
}
