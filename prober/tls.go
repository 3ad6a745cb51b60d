package prober

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"

	"hard/internal/config"
)

// trust holds the certificates that are trusted. The system's are loaded once, each CA file once
// while a check uses it: a new one is read after a restart.
type trust struct {
	mu    sync.Mutex
	pools map[string]*x509.CertPool // by CA file; "" = the system's
}

// config makes the TLS configuration of a check. Name and SNI are the configured name's, never
// the address; sessions are not resumed, so that every probe sees the certificate.
func (t *trust) config(check *config.Check, host string) (*tls.Config, error) {
	conf := &tls.Config{
		ServerName:         check.ServerName,
		InsecureSkipVerify: check.Insecure, // verify = false, asked for in the file
	}
	if conf.ServerName == "" {
		conf.ServerName = hostOnly(host)
	}
	if check.Kind != config.CheckTLS {
		conf.NextProtos = []string{"http/1.1"}
	}
	if check.Insecure {
		return conf, nil
	}
	pool, err := t.pool(check.CAFile)
	conf.RootCAs = pool
	return conf, err
}

func (t *trust) pool(file string) (*x509.CertPool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool := t.pools[file]; pool != nil {
		return pool, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a host without certificates trusts nobody
	}
	if file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: no certificate in %s", file)
		}
	}
	if t.pools == nil {
		t.pools = make(map[string]*x509.CertPool)
	}
	t.pools[file] = pool
	return pool, nil
}

// dialTLS connects and completes the TLS handshake.
func (n *network) dialTLS(pr *probe, to uint16) (*tls.Conn, error) {
	raw, err := n.dial(pr, to, nil)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, pr.prepared.tls)
	if err := c.Handshake(); err != nil { // ends with the probe, as its connection does
		raw.Close()
		return nil, err
	}
	pr.secured()
	if pr.trace != nil {
		st := c.ConnectionState()
		pr.tracef("*", "%s, %s", tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite))
		for _, cert := range st.PeerCertificates {
			pr.tracef("*", "certificate of %s, by %s, until %s", cert.Subject, cert.Issuer, cert.NotAfter.UTC().Format("2006-01-02"))
		}
	}
	return c, nil
}

// closeRaw closes a connection without a TLS farewell, which could block and nobody waits for.
func closeRaw(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	c.Close()
}
