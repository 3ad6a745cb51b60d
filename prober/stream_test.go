package prober

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/config"
	"hard/internal/rank"
)

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	a := &authority{}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a server's TLS configuration for a host name, valid between two times from now.
func (a *authority) issue(t testing.TB, host string, from, to time.Duration, selfSigned bool) *tls.Config {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := a.cert, a.key
	if selfSigned {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// overTLS serves f behind TLS.
func overTLS(conf *tls.Config, f func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		s := tls.Server(c, conf)
		if s.Handshake() == nil {
			f(s)
		}
	}
}

func TestTLSOutcomes(t *testing.T) {
	a := newAuthority(t)
	const host, hour = "www.example.com", time.Hour
	good := a.issue(t, host, -hour, hour, false)
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	tests := []struct {
		name   string
		server func(net.Conn)
		change func(*config.Check)
		want   rank.Outcome
		detail string
	}{
		{"well", overTLS(good, reply(okReply)), nil, rank.OK, ""},
		{"name with a port", overTLS(good, reply(okReply)), func(c *config.Check) { c.Host += ":8443" }, rank.OK, ""},
		{"server_name", overTLS(good, reply(okReply)), func(c *config.Check) { c.ServerName, c.Host = host, "other.example.com" }, rank.OK, ""},
		{"503", overTLS(good, reply("HTTP/1.1 503 No\r\n\r\n")), nil, rank.Status, "503"},
		{"expired", overTLS(a.issue(t, host, -2*hour, -hour, false), reply(okReply)), nil, rank.TLS, "valid only from"},
		{"not yet valid", overTLS(a.issue(t, host, hour, 2*hour, false), reply(okReply)), nil, rank.TLS, "valid only from"},
		{"wrong host", overTLS(a.issue(t, "other.example.com", -hour, hour, false), reply(okReply)), nil, rank.TLS, "valid for other.example.com, not www.example.com"},
		{"self-signed", overTLS(a.issue(t, host, -hour, hour, true), reply(okReply)), nil, rank.TLS, "unknown authority"},
		{"our CA is not the system's", overTLS(good, reply(okReply)), func(c *config.Check) { c.CAFile = "" }, rank.TLS, "unknown authority"},
		{"verify = false", overTLS(a.issue(t, "x", -2*hour, -hour, true), reply(okReply)), func(c *config.Check) { c.Insecure = true }, rank.OK, ""},
		{"no CA file", overTLS(good, reply(okReply)), func(c *config.Check) { c.CAFile = "/nonexistent" }, rank.TLS, "ca_file"},
		{"TLS 1.0 only", overTLS(old, reply(okReply)), nil, rank.TLS, "protocol version"},
		{"speaks HTTP", reply(okReply), nil, rank.Timeout, "TLS handshake"}, // waits for an end of line first
		{"speaks another protocol", func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n"); untilClosed(c) }, nil, rank.TLS, "does not speak TLS"},
		{"hangs in the handshake", untilClosed, nil, rank.Timeout, "no TLS handshake"},
		{"closes in the handshake", func(c net.Conn) { c.Read(make([]byte, 4096)) }, nil, rank.TLS, "closed in the TLS handshake"},
		{"resets in the handshake", func(c net.Conn) { c.Read(make([]byte, 1)); c.(*net.TCPConn).SetLinger(0) }, nil, rank.Reset, "reset before TLS handshake"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, tt.server)
			check := httpCheck(addr.Port())
			check.Kind, check.CAFile = config.CheckHTTPS, a.file
			if tt.change != nil {
				tt.change(check)
			}
			timeout := patience
			if tt.want == rank.Timeout {
				timeout = 2 * time.Second // and until then a busy machine must have connected
			}
			s := probeOnce(t, check, timeout)
			wantOutcome(t, s, tt.want, tt.detail)
			if s.Outcome == rank.OK && (s.Phases.TLS <= s.Phases.Connect || s.Phases.FirstByte < s.Phases.TLS) {
				t.Errorf("phases: %+v", s.Phases)
			}
		})
	}
}

func TestSNIAndALPN(t *testing.T) {
	a := newAuthority(t)
	conf := a.issue(t, "www.example.com", -time.Hour, time.Hour, false)
	hello := make(chan *tls.ClientHelloInfo, 1)
	conf.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { hello <- h; return nil, nil }
	check := httpCheck(serve(t, overTLS(conf, reply(okReply))).Port())
	check.Kind, check.CAFile = config.CheckHTTPS, a.file
	wantOutcome(t, probeOnce(t, check, patience), rank.OK, "")
	if h := <-hello; h.ServerName != "www.example.com" || strings.Join(h.SupportedProtos, " ") != "http/1.1" {
		t.Errorf("SNI %q, ALPN %v", h.ServerName, h.SupportedProtos)
	}
}

func TestStreamOutcomes(t *testing.T) {
	const some = 2 * time.Second // for what comes up to a point: a busy machine must get there in time
	a := newAuthority(t)
	conf := a.issue(t, "www.example.com", -time.Hour, time.Hour, false)
	pong := func(c net.Conn) {
		b := make([]byte, 6)
		if io.ReadFull(c, b); string(b) == "PING\r\n" {
			io.WriteString(c, "+PO")
			time.Sleep(time.Millisecond)
			io.WriteString(c, "NG\r\n")
		}
		untilClosed(c)
	}
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, text); untilClosed(c) }
	}
	tests := []struct {
		name         string
		kind         config.CheckKind
		send, expect string
		server       func(net.Conn)
		want         rank.Outcome
		detail       string
	}{
		{"connects", config.CheckTCP, "", "", untilClosed, rank.OK, ""},
		{"sends", config.CheckTCP, "PING\r\n", "", untilClosed, rank.OK, ""},
		{"sends and gets", config.CheckTCP, "PING\r\n", "+PONG", pong, rank.OK, ""},
		{"gets a banner", config.CheckTCP, "", "220 ", says("220 mail\r\n"), rank.OK, ""},
		{"gets something else", config.CheckTCP, "", "220 ", says("554 no\r\n"), rank.Body, `expected "220 ", got "554 no`},
		{"gets too much", config.CheckTCP, "", "never", says(strings.Repeat("x", 1<<20)), rank.Body, "expected"},
		{"gets nothing", config.CheckTCP, "PING\r\n", "+PONG", untilClosed, rank.Timeout, "no reply"},
		{"is closed", config.CheckTCP, "PING\r\n", "+PONG", func(c net.Conn) { c.Read(make([]byte, 6)) }, rank.Protocol, "closed before reply"},
		{"shakes hands", config.CheckTLS, "", "", overTLS(conf, untilClosed), rank.OK, ""},
		{"sends and gets over TLS", config.CheckTLS, "PING\r\n", "+PONG", overTLS(conf, pong), rank.OK, ""},
		{"gets something else over TLS", config.CheckTLS, "", "+PONG", overTLS(conf, says("-ERR")), rank.Body, "-ERR"},
		{"is not TLS", config.CheckTLS, "", "", says("220 mail\r\n"), rank.TLS, "does not speak TLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := &config.Check{Kind: tt.kind, Host: "www.example.com", Port: serve(t, tt.server).Port(), Send: tt.send, Expect: tt.expect, CAFile: a.file}
			timeout := patience
			if tt.want == rank.Timeout || tt.want == rank.Body {
				timeout = some
			}
			wantOutcome(t, probeOnce(t, check, timeout), tt.want, tt.detail)
		})
	}
}

// dnsServer answers over UDP and TCP on one port.
func dnsServer(t *testing.T, h dns.HandlerFunc) uint16 {
	t.Helper()
	var l net.Listener
	var pc net.PacketConn
	eventually(t, "a port that is free for both", func() (ok bool) {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", l.Addr().String()); err != nil {
			l.Close()
		}
		return err == nil
	})
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: pc, Handler: h}} {
		go s.ActivateAndServe()
	}
	t.Cleanup(func() { l.Close(); pc.Close() })
	return port
}

func TestDNSOutcomes(t *testing.T) {
	rcode := func(code int) dns.HandlerFunc {
		return func(w dns.ResponseWriter, r *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(r, code)) }
	}
	tests := []struct {
		name   string
		server dns.HandlerFunc
		want   rank.Outcome
		status int
		detail string
	}{
		{"well", rcode(dns.RcodeSuccess), rank.OK, 0, ""},
		{"SERVFAIL", rcode(dns.RcodeServerFailure), rank.DNS, 2, "SERVFAIL"},
		{"REFUSED", rcode(dns.RcodeRefused), rank.Status, 5, "REFUSED"},
		{"NXDOMAIN", rcode(dns.RcodeNameError), rank.Status, 3, "NXDOMAIN"},
		{"truncated, well over TCP", func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			_, m.Truncated = w.RemoteAddr().(*net.UDPAddr)
			w.WriteMsg(m)
		}, rank.OK, 0, ""},
		{"another question", func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg).SetReply(r)
			m.Question[0].Name = "other.example."
			w.WriteMsg(m)
		}, rank.Protocol, 0, "another question"},
		{"silence", func(dns.ResponseWriter, *dns.Msg) {}, rank.Timeout, 0, "no reply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := &config.Check{Kind: config.CheckDNS, Host: "x", Port: dnsServer(t, tt.server), DNSName: "example.com", DNSType: dns.TypeSOA}
			timeout := patience
			if tt.want == rank.Timeout {
				timeout = 500 * time.Millisecond
			}
			s := probeOnce(t, check, timeout)
			wantOutcome(t, s, tt.want, tt.detail)
			if s.Status != tt.status {
				t.Errorf("status %d, want %d", s.Status, tt.status)
			}
		})
	}
	check := &config.Check{Kind: config.CheckDNS, Host: "x", Port: 1, DNSName: "example.com", DNSType: dns.TypeSOA}
	wantOutcome(t, probeOnce(t, check, patience), rank.Refused, "")
}

func TestDNSAbort(t *testing.T) {
	asked := make(chan bool, 1)
	port := dnsServer(t, func(dns.ResponseWriter, *dns.Msg) { asked <- true })
	check := &config.Check{Kind: config.CheckDNS, Host: "x", Port: port, DNSName: "example.com", DNSType: dns.TypeSOA}
	p := newProber(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	s, _ := p.Probe(ctx, target(check, time.Minute), false)
	wantOutcome(t, s, rank.Aborted, "")
}

func TestExecOutcomes(t *testing.T) {
	sh := func(script string) *config.Check {
		return &config.Check{Kind: config.CheckExec, Command: "/bin/sh", Args: []string{"-c", script}, Port: 5432}
	}
	long := patience
	wantOutcome(t, probeOnce(t, sh("exit 0"), long), rank.OK, "")
	s := probeOnce(t, sh("echo replication lag; echo more; exit 3"), long)
	wantOutcome(t, s, rank.Status, "replication lag")
	if s.Status != 3 || strings.Contains(s.Detail, "more") {
		t.Errorf("%+v", s)
	}
	wantOutcome(t, probeOnce(t, sh(`echo "$HARD_ADDRESS $HARD_PORT $HARD_NAME $HARD_CANDIDATE"; exit 1`), long),
		rank.Status, "127.0.0.1 5432 www.example.com a")
	wantOutcome(t, probeOnce(t, sh("kill -9 $$"), long), rank.Status, "killed")
	wantOutcome(t, probeOnce(t, sh("yes; exit 1"), 200*time.Millisecond), rank.Timeout, "")
	wantOutcome(t, probeOnce(t, &config.Check{Kind: config.CheckExec, Command: "/nonexistent"}, long), rank.Protocol, "no such file")
}

// At the timeout the whole process group is killed, not only the program.
func TestExecKillsItsGroup(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "child")
	check := &config.Check{Kind: config.CheckExec, Command: "/bin/sh", Args: []string{"-c", "sleep 1000 & echo $! > " + mark + "; wait"}}
	var pid []byte
	timeout := 500 * time.Millisecond
	eventually(t, "a program that had time to start", func() bool {
		wantOutcome(t, probeOnce(t, check, timeout), rank.Timeout, "")
		timeout *= 2
		var err error
		pid, err = os.ReadFile(mark)
		return err == nil && len(pid) > 1
	})
	eventually(t, "the end of the child", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}
