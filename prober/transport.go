package prober

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// maxHead bounds the header of a reply, and maxInterim the 1xx replies before it.
const (
	maxHead    = 64 << 10
	maxInterim = 5
)

// transport makes one HTTP/1.1 round trip on a new connection to the endpoint's address, whatever
// the URL's host is. Of the header it keeps the few fields that a check needs. It is under a third
// of the cost of net/http's Transport, which has a pool, two goroutines a connection and a full
// header to care for.
type transport struct{ net *network }

// RoundTrip makes it an http.RoundTripper. The request's context is the probe.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	pr := req.Context().(*probe)
	wire, to := pr.prepared.wire, port(pr.check)
	if req.Response != nil { // net/http's mark of a request that a redirect led to
		wire, to = appendRequest(nil, req, ""), redirectPort(pr, req.URL)
	} else if len(pr.samples) > 0 {
		pr.beginTry(len(pr.samples))
	}
	stream, err := t.send(pr, wire, to, req.URL.Scheme == "https")
	if err != nil {
		return nil, err
	}
	in := readers.Get().(*bufio.Reader)
	in.Reset(stream)
	body := &replyBody{conn: stream, in: in}
	resp, err := readReply(pr, in, req)
	if err != nil {
		body.Close()
		return nil, err
	}
	if resp.Header != nil { // a redirect to be followed: nobody needs its body
		body.Close()
		resp.Body = http.NoBody
		return resp, nil
	}
	body.limit(resp)
	resp.Body = body
	return resp, nil
}

// redirectPort is the port that a redirect leads to. The check's port stands for the URL's.
func redirectPort(pr *probe, u *url.URL) uint16 {
	first := pr.prepared.request.URL
	if u.Scheme == first.Scheme && u.Port() == first.Port() {
		return port(pr.check)
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return uint16(n)
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// send opens the connection and sends the request.
func (t *transport) send(pr *probe, wire []byte, to uint16, secure bool) (net.Conn, error) {
	if pr.trace != nil {
		pr.tracef("*", "connect to %v port %d", pr.addr, to)
	}
	c, err := t.net.dialAndSend(pr, to, wire, secure)
	if err == nil && pr.trace != nil { // what was never sent is not shown
		traceLines(pr, ">", wire)
	}
	return c, err
}

// dialAndSend opens a connection and writes to it; in clear text both go together.
func (n *network) dialAndSend(pr *probe, to uint16, wire []byte, secure bool) (net.Conn, error) {
	if !secure {
		return n.dial(pr, to, wire)
	}
	c, err := n.dialTLS(pr, to)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(wire); err != nil {
		closeRaw(c)
		return nil, err
	}
	return c, nil
}

func traceLines(pr *probe, dir string, text []byte) {
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\r\n\r\n"), "\r\n") {
		pr.tracef(dir, "%s", line)
	}
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}
