package prober

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"hard/internal/config"
)

// prepared is what all probes of one job share: the request, ready to be sent, and the TLS
// configuration. Immutable.
type prepared struct {
	request *http.Request // for net/http; probes use copies with their own context
	wire    []byte        // the same request as bytes
	tls     *tls.Config
	secrets []string // what no text for people may show
}

// prepare builds it. The error names a CA file that can't be used.
func (p *Prober) prepare(pr *probe) (*prepared, error) {
	check := pr.check
	pre := &prepared{secrets: secretsOf(check)}
	host := check.Host
	if host == "" {
		host = pr.name
	}
	if check.Kind == config.CheckHTTP || check.Kind == config.CheckHTTPS {
		pre.request = newRequest(check, host, p.o.Version)
		pre.wire = appendRequest(nil, pre.request, check.Path)
		if check.Redirects == 0 {
			pre.request.Header = http.Header{} // net/http would copy it for requests to come
		}
	}
	if check.Kind == config.CheckHTTPS || check.Kind == config.CheckTLS || check.Kind == config.CheckHTTP && check.Redirects > 0 {
		conf, err := p.trust.config(check, host)
		if err != nil {
			return nil, err
		}
		pre.tls = conf
	}
	return pre, nil
}

// newRequest makes the request template of an HTTP check.
func newRequest(check *config.Check, host, version string) *http.Request {
	scheme := "http"
	if check.Kind == config.CheckHTTPS {
		scheme = "https"
	}
	u, err := url.ParseRequestURI(check.Path)
	if err != nil {
		u = &url.URL{Path: "/"}
	}
	u.Scheme, u.Host = scheme, host
	req := &http.Request{
		Method: check.Method, URL: u, Host: host, Header: make(http.Header, len(check.Headers)+1),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: true,
	}
	if req.Method == "" {
		req.Method = http.MethodGet
	}
	req.Header.Set("User-Agent", "hard/"+version)
	for _, h := range check.Headers {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Set(h.Name, h.Value)
	}
	return req
}

// appendRequest writes a request in HTTP/1.1 (RFC 9112). target is the request target; "" takes
// that of the URL.
func appendRequest(b []byte, req *http.Request, target string) []byte {
	if target == "" {
		target = req.URL.RequestURI()
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	b = fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, target, host)
	for _, name := range slices.Sorted(maps.Keys(req.Header)) {
		if name == "Connection" {
			continue
		}
		for _, v := range req.Header[name] {
			b = fmt.Appendf(b, "%s: %s\r\n", name, v)
		}
	}
	if req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		b = append(b, "Content-Length: 0\r\n"...)
	}
	return append(b, "Connection: close\r\n\r\n"...)
}

// usesTLS tells whether a check begins with a TLS handshake.
func usesTLS(c *config.Check) bool { return c.Kind == config.CheckHTTPS || c.Kind == config.CheckTLS }

// usesTCP tells whether a check begins with a TCP connection.
func usesTCP(c *config.Check) bool {
	switch c.Kind {
	case config.CheckHTTP, config.CheckHTTPS, config.CheckTCP, config.CheckTLS:
		return true
	}
	return false
}

// port is where a check connects.
func port(c *config.Check) uint16 {
	if c.Port != 0 {
		return c.Port
	}
	switch c.Kind {
	case config.CheckHTTP:
		return 80
	case config.CheckHTTPS, config.CheckTLS:
		return 443
	case config.CheckDNS:
		return 53
	}
	return 0
}

// hostOnly takes the port off a Host header.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}
