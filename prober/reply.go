package prober

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// head is what is kept of a reply's header.
type head struct {
	size       int // bytes read
	length     int64
	chunked    bool
	location   string
	retryAfter string
}

// readReply reads status line and header of the final reply. Header is set, with the Location
// alone, only for a redirect that the check wants followed.
func readReply(pr *probe, in *bufio.Reader, req *http.Request) (*http.Response, error) {
	var h head
	for interim := 0; ; interim++ {
		h.length = -1
		code, err := h.read(pr, in)
		if err != nil {
			return nil, err
		}
		if code < 200 && code != http.StatusSwitchingProtocols {
			if interim == maxInterim {
				return nil, protocolError("more than %d interim replies", maxInterim)
			}
			continue
		}
		resp := &http.Response{StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: h.length, Close: true}
		if h.chunked {
			resp.ContentLength = -1
			resp.TransferEncoding = chunkedEncoding
		}
		if req.Method == http.MethodHead || code == http.StatusNoContent || code == http.StatusNotModified {
			resp.ContentLength = 0
		}
		if code == http.StatusTooManyRequests {
			pr.retryAfter = parseRetryAfter(h.retryAfter, time.Now())
		}
		if h.location != "" && pr.check.Redirects > 0 && code/100 == 3 {
			resp.Header = http.Header{"Location": {h.location}}
		}
		return resp, nil
	}
}

var chunkedEncoding = []string{"chunked"}

// read reads one status line and the header after it.
func (h *head) read(pr *probe, in *bufio.Reader) (int, error) {
	line, err := h.line(in)
	if len(line) > 0 || err == nil {
		pr.firstByte()
	}
	if err != nil {
		if len(line) > 0 && err == io.EOF && !strings.HasPrefix(string(line), "HTTP/1") {
			return 0, notHTTP(line)
		}
		return 0, err
	}
	code, ok := parseStatusLine(line)
	if !ok {
		return 0, notHTTP(line)
	}
	if pr.trace != nil {
		pr.tracef("<", "%s", line)
	}
	for {
		line, err := h.line(in)
		if err != nil {
			return 0, noEOF(err)
		}
		if len(line) == 0 {
			return code, nil
		}
		if pr.trace != nil {
			pr.tracef("<", "%s", line)
		}
		if err := h.field(line); err != nil {
			return 0, err
		}
	}
}

func notHTTP(line []byte) error {
	return protocolError("not an HTTP/1 reply: %.60q", line)
}

// noEOF says that an end here is too early.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// line reads one line without its end. Of a line longer than the buffer it returns the first
// part: no field that matters here is that long.
func (h *head) line(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	h.size += len(line)
	if err == bufio.ErrBufferFull {
		kept := append([]byte(nil), line[:1024]...)
		for err == bufio.ErrBufferFull && h.size <= maxHead {
			line, err = in.ReadSlice('\n')
			h.size += len(line)
		}
		line = kept
	}
	if h.size > maxHead {
		return line, protocolError("header is larger than %d bytes", maxHead)
	}
	if err != nil {
		return line, err
	}
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// parseStatusLine reads "HTTP/1.1 200 OK" (RFC 9112, section 4).
func parseStatusLine(line []byte) (int, bool) {
	const prefix = len("HTTP/1.1 200")
	if len(line) < prefix || string(line[:7]) != "HTTP/1." || line[8] != ' ' || len(line) > prefix && line[prefix] != ' ' {
		return 0, false
	}
	code := 0
	for _, c := range line[9:prefix] {
		if c < '0' || c > '9' {
			return 0, false
		}
		code = code*10 + int(c-'0')
	}
	return code, code >= 100 && (line[7] == '0' || line[7] == '1')
}

// field takes one line of the header.
func (h *head) field(line []byte) error {
	colon := -1
	for i, c := range line {
		if c == ':' {
			colon = i
			break
		}
	}
	if colon <= 0 {
		if line[0] == ' ' || line[0] == '\t' {
			return nil // the folded rest of a field, obsolete but harmless
		}
		return protocolError("not an HTTP header field: %.60q", line)
	}
	// Look at the length first: most fields are none of ours.
	switch colon {
	case len("Location"):
		return h.value(line, "Location", colon, &h.location)
	case len("Retry-After"):
		return h.value(line, "Retry-After", colon, &h.retryAfter)
	case len("Content-Length"):
		var v string
		if h.value(line, "Content-Length", colon, &v); v == "" {
			return nil
		}
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return protocolError("bad Content-Length %.40q", v)
		}
		h.length = int64(n)
	case len("Transfer-Encoding"):
		var v string
		h.value(line, "Transfer-Encoding", colon, &v)
		h.chunked = h.chunked || strings.EqualFold(v, "chunked")
	}
	return nil
}

// value stores the value of a field if it has this name. It never fails.
func (h *head) value(line []byte, name string, colon int, v *string) error {
	if strings.EqualFold(string(line[:colon]), name) {
		*v = textproto.TrimString(string(line[colon+1:]))
	}
	return nil
}

// parseRetryAfter reads a Retry-After: seconds or a date (RFC 9110, section 10.2.3); 0: none.
func parseRetryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// replyBody is the body of a reply. Close ends the connection; nothing is drained.
type replyBody struct {
	conn net.Conn
	in   *bufio.Reader
	src  io.Reader // set up by limit, and only when it is read
	resp *http.Response
}

func (b *replyBody) limit(resp *http.Response) { b.resp = resp }

func (b *replyBody) Read(p []byte) (int, error) {
	if b.conn == nil {
		return 0, errBodyClosed
	}
	if b.src == nil {
		switch r := b.resp; {
		case r.TransferEncoding != nil:
			b.src = httputil.NewChunkedReader(b.in)
		case r.ContentLength >= 0:
			b.src = &exactReader{b.in, r.ContentLength}
		default:
			b.src = b.in // up to the end of the connection
		}
	}
	n, err := b.src.Read(p)
	if err != nil && err != io.EOF && strings.Contains(err.Error(), "chunk") {
		err = protocolError("bad body: %v", err)
	}
	return n, err
}

func (b *replyBody) Close() error {
	if b.conn != nil {
		closeRaw(b.conn)
		b.conn = nil
		b.in.Reset(nil)
		readers.Put(b.in)
		b.in, b.src = nil, nil
	}
	return nil
}

// exactReader reads exactly n bytes; an earlier end is an error.
type exactReader struct {
	r io.Reader
	n int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	e.n -= int64(n)
	if err == io.EOF && e.n > 0 {
		err = fmt.Errorf("body ends %d bytes early: %w", e.n, io.ErrUnexpectedEOF)
	}
	return n, err
}
