package faults

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hard/test/faulty"
)

// badServer is a candidate that does to each connection what it is told to.
type badServer struct {
	addr netip.AddrPort
	mu   sync.Mutex
	do   func(c *net.TCPConn)
	seen atomic.Int64
}

func newBadServer(t *testing.T, addr netip.AddrPort) *badServer {
	t.Helper()
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	b := &badServer{addr: addr}
	b.set(goodReply)
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.seen.Add(1)
			b.mu.Lock()
			do := b.do
			b.mu.Unlock()
			wg.Go(func() {
				stop := make(chan struct{})
				wg.Go(func() {
					select {
					case <-end:
						c.Close()
					case <-stop:
					}
				})
				do(c.(*net.TCPConn))
				c.Close()
				close(stop)
			})
		}
	})
	t.Cleanup(func() { close(end); l.Close(); wg.Wait() })
	return b
}

func (b *badServer) set(do func(c *net.TCPConn)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.do = do
}

func goodReply(c *net.TCPConn) { say(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nI am it") }

// say reads a request and answers it.
func say(c *net.TCPConn, reply string) {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	_, _ = io.WriteString(c, reply)
}

// TestFault26BadCandidate and fault 28: the nearest candidate misbehaves in every way known: each time its
// clients go to the other one, and come back when it is well again; nothing of it is left.
func TestFault26BadCandidate(t *testing.T) {
	needLong(t)
	modes := []struct {
		what string
		do   func(c *net.TCPConn)
	}{
		{"hangs", func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }},
		{"drips", func(c *net.TCPConn) {
			for i := 0; ; i++ {
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n"[i%16:i%16+1]); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // between its drops
			}
		}},
		{"resets", func(c *net.TCPConn) { _ = c.SetLinger(0) }},
		{"half-closes", func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }},
		{"500", func(c *net.TCPConn) { say(c, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") }},
		{"garbage", func(c *net.TCPConn) { say(c, strings.Repeat("\x00\xff\x1b[2J", 1000)) }},
		{"redirects for ever", func(c *net.TCPConn) { say(c, "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n") }},
		{"a captive portal", func(c *net.TCPConn) { say(c, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nplease pay!!") }},
		{"a redirect to a portal", func(c *net.TCPConn) { say(c, "HTTP/1.1 307 T\r\nLocation: http://portal.example/\r\n\r\n") }},
		{"an endless body", func(c *net.TCPConn) {
			say(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := c.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}},
		{"an endless header", func(c *net.TCPConn) {
			say(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X-Header: "+strings.Repeat("x", 4000)+"\r\n"); err != nil {
					return
				}
			}
		}},
	}
	port := faulty.Addr().Port()
	ip := faulty.Addr().Addr().As4()
	ip[1] |= 0x80
	bad := newBadServer(t, netip.AddrPortFrom(netip.AddrFrom4(ip), port))
	ip[3]++
	good := newBadServer(t, netip.AddrPortFrom(netip.AddrFrom4(ip), port))
	good.set(func(c *net.TCPConn) {
		time.Sleep(30 * time.Millisecond) // farther away
		goodReply(c)
	})
	near, far := bad.addr.Addr().String(), good.addr.Addr().String()
	h := faulty.Start(t, nil, headWith("127.0.0.1:9")+static+fmt.Sprintf(`
[name."api.example"]
candidates = [%q, %q]
check = { url = "http://:%d/", body = "I am it", redirects = 3 }
interval = "100ms"
fast_interval = "20ms"
timeout = "100ms"
backoff_max = "200ms"
hold = "0s"
`, near, far, port))
	h.Wants("the nearer one", faulty.Ours("api.example", near))
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Ours("api.example", near, far))
	for _, m := range modes {
		bad.set(m.do)
		h.Wants("the other one, as the nearer "+m.what, faulty.Ours("api.example", far))
		bad.set(goodReply)
		h.Wants("the nearer one after "+m.what, faulty.Ours("api.example", near))
	}
	a.Clean()
}

// TestFault27TLSCandidates: what is wrong with a certificate takes a candidate out, and status says why.
func TestFault27TLSCandidates(t *testing.T) {
	needLong(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issue := func(name string, from, to time.Duration, parent *x509.Certificate) (tls.Certificate, *x509.Certificate) {
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(now.Nanosecond())), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: now.Add(from), NotAfter: now.Add(to), IsCA: parent == nil, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, leaf
	}
	day := 24 * time.Hour
	_, ca := issue("test authority", -day, day, nil)
	h := faulty.New(t, nil, "")
	caFile := filepath.Join(h.Dir, "ca.pem")
	mustWrite(t, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})))
	port := faulty.Addr().Port()
	ip := faulty.Addr().Addr().As4()
	ip[1] |= 0x80
	listen := func(conf *tls.Config) string {
		ip[3]++
		addr := netip.AddrPortFrom(netip.AddrFrom4(ip), port)
		s := newBadServer(t, addr)
		s.set(func(c *net.TCPConn) {
			if conf == nil { // says nothing
				_, _ = io.Copy(io.Discard, c)
				return
			}
			tc := tls.Server(c, conf)
			if tc.Handshake() == nil {
				b := make([]byte, 1000)
				_, _ = tc.Read(b)
				_, _ = io.WriteString(tc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			_ = tc.Close()
		})
		return addr.Addr().String()
	}
	with := func(c tls.Certificate, _ *x509.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}}
	}
	old := with(issue("api.example", -day, day, ca))
	old.MaxVersion, old.MinVersion = tls.VersionTLS10, tls.VersionTLS10
	good := listen(with(issue("api.example", -day, day, ca)))
	bad := map[string]string{
		listen(with(issue("api.example", -2*day, -day, ca))): "expired",
		listen(with(issue("api.example", day, 2*day, ca))):   "not yet valid",
		listen(with(issue("other.example", -day, day, ca))):  "other.example",
		listen(with(issue("api.example", -day, day, nil))):   "unknown authority",
		listen(old): "version",
		listen(nil): "timeout",
	}
	list := fmt.Sprintf("%q", good)
	for addr := range bad {
		list += fmt.Sprintf(", %q", addr)
	}
	h.Config(headWith("127.0.0.1:9") + fmt.Sprintf(`
[defaults]
interval = "200ms"
fast_interval = "50ms"
[name."api.example"]
candidates = [%s]
check = { url = "https://api.example:%d/", ca_file = %q }
[name."trusting.example"]
candidates = [%q]
check = { url = "https://api.example:%[2]d/", verify = false }
`, list, port, caFile, firstKey(bad, "expired")))
	h.Run()
	h.Wants("the good one", faulty.Ours("api.example", good))
	h.Wants("one that need not be verified", faulty.Ours("trusting.example", firstKey(bad, "expired")))
	faulty.Eventually(t, "all others are found to be bad", func() bool {
		return healthy(h, "api.example") == 1 && strings.Count(h.Log(), "endpoint is unhealthy") >= len(bad)
	})
	for addr, why := range bad {
		out, code := h.Verb("probe", "api.example/"+addr)
		if why == "expired" || why == "not yet valid" {
			why = "valid only from" // and both dates
		}
		if !strings.Contains(strings.ToLower(out), why) {
			t.Errorf("%s: no word of %q (exit %d): %s", addr, why, code, out)
		}
	}
	h.Wants("the good one", faulty.Ours("api.example", good))
}

func firstKey(m map[string]string, value string) string {
	for k, v := range m {
		if v == value {
			return k
		}
	}
	return ""
}
