package resolver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/bug"
	"hard/internal/wire"
)

// httpsAsker asks one upstream over HTTPS (RFC 8484), by POST, over HTTP/2
// where the server speaks it. The address is the configured one, whatever the
// URL's host is: looking it up would need us.
type httpsAsker struct {
	log       *slog.Logger
	url       string
	client    *http.Client
	transport *http.Transport
	slots     chan struct{} // queries at a time
	served    atomic.Bool   // a reply came: connections worked once

	mu     sync.Mutex // guards closed, and wg.Add against wg.Wait
	closed bool
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

const (
	httpsQueries = 256 // at a time; beyond: the next upstream
	httpsTimeout = 5 * time.Second
	httpsTries   = 3 // of one query, if its connection breaks
	dnsMessage   = "application/dns-message"
)

func newHTTPSAsker(s Server, roots *x509.CertPool, log *slog.Logger) *httpsAsker {
	addr := s.Addr.String()
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: streamConnect}).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig: &tls.Config{ServerName: s.ServerName, RootCAs: roots, MinVersion: tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(4)},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: streamConnect,
		MaxConnsPerHost:     streamConns,
		MaxIdleConnsPerHost: streamConns,
		IdleConnTimeout:     60 * time.Second,
		DisableCompression:  true,
		Proxy:               nil, // a proxy's name would need a resolver
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second},
	}
	a := &httpsAsker{url: s.URL, log: log, transport: t, slots: make(chan struct{}, httpsQueries),
		client: &http.Client{Transport: t, Timeout: httpsTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

func (a *httpsAsker) ask(msg []byte, done func([]byte, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errStreamClosed
	}
	select {
	case a.slots <- struct{}{}:
	default:
		return errStreamFull
	}
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		reply, err := a.postSafely(msg)
		<-a.slots
		done(reply, err)
	}()
	return nil
}

// postSafely is post; a panic in it is an error.
func (a *httpsAsker) postSafely(msg []byte) (reply []byte, err error) {
	err = errStreamClosed
	defer bug.Caught(a.log, "a query to an upstream over HTTPS")
	return a.post(msg)
}

// post asks, and asks again if the connection breaks that had worked
// (requirement 72): net/http does not repeat a POST by itself, but a query may
// be repeated. More than once, because the next connection that it picks may
// be as dead as the last.
func (a *httpsAsker) post(msg []byte) (reply []byte, err error) {
	for range httpsTries {
		reply, err = a.postOnce(bytes.Clone(msg))
		if err == nil {
			a.served.Store(true)
			return reply, nil
		}
		if !a.served.Load() || !isBroken(err) || a.ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// isBroken reports whether err is that of a connection that was there.
func isBroken(err error) bool {
	var op *net.OpError
	var te *tlsError
	switch {
	case errors.As(err, &te), errors.Is(err, errBadFrame), isTimeout(err):
		return false
	case errors.As(err, &op) && op.Op == "dial":
		return false
	}
	return true
}

// postOnce asks with ID 0, as RFC 8484 section 4.1 wants for caches' sake. It
// changes msg.
func (a *httpsAsker) postOnce(msg []byte) ([]byte, error) {
	id := binary.BigEndian.Uint16(msg)
	msg[0], msg[1] = 0, 0
	req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, a.url, bytes.NewReader(msg))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", dnsMessage)
	req.Header.Set("Accept", dnsMessage)
	req.Header["User-Agent"] = nil
	resp, err := a.client.Do(req)
	if err != nil {
		var ce *tls.CertificateVerificationError
		if errors.As(err, &ce) {
			return nil, &tlsError{err}
		}
		return nil, err
	}
	defer resp.Body.Close()
	m, err := io.ReadAll(io.LimitReader(resp.Body, 65536))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK || !isDNSMessage(resp.Header.Get("Content-Type")) || len(m) > 65535:
		return nil, fmt.Errorf("%w: HTTP status %d, %q", errBadFrame, resp.StatusCode, resp.Header.Get("Content-Type"))
	case !answersQuery(m, msg):
		return nil, fmt.Errorf("%w: other question", errBadFrame)
	}
	takeAge(m, resp.Header.Get("Age"))
	binary.BigEndian.PutUint16(m, id)
	return m, nil
}

func isDNSMessage(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == dnsMessage
}

// takeAge lowers the TTLs of m by the seconds for which an HTTP cache has held it (RFC 8484 section 5.1).
func takeAge(m []byte, header string) {
	age, err := strconv.ParseUint(header, 10, 32)
	var rep wire.Reply
	if err == nil && age > 0 && rep.Parse(m) {
		wire.AgeTTLs(m, rep.QEnd, uint32(age), 0)
	}
}

func (a *httpsAsker) reset() { a.transport.CloseIdleConnections() }

func (a *httpsAsker) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.wg.Wait()
	a.transport.CloseIdleConnections()
}
