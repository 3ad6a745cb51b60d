package prober

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// FuzzHTTPReply: whatever a candidate sends in reply to a probe, there is a verdict, on one printable
// line, after bounded reading; and where net/http can read the reply, too, the status is the same.
func FuzzHTTPReply(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 503 Down\n\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 302 F\r\nLocation: http://other/\r\n\r\n",
		"HTTP/1.1 429 Slow\r\nRetry-After: 99999999999\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 \x1b[31m\r\nA: b\r\n c\r\n\r\n\x00ok",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		check := &config.Check{Kind: config.CheckHTTP, Host: "x", Path: "/", Method: http.MethodGet, Port: 80}
		if body {
			check.Body = "ok"
		}
		req := newRequest(check, "x", "test")
		pr := &probe{check: check, timeout: time.Minute}
		pr.begin()
		near, far := net.Pipe()
		far.Close()
		in := readers.Get().(*bufio.Reader)
		in.Reset(bytes.NewReader(data))
		reply := &replyBody{conn: near, in: in}
		resp, err := readReply(pr, in, req)
		if err != nil {
			pr.fail(err)
		} else {
			reply.limit(resp)
			resp.Body = reply
			judge(pr, resp)
		}
		reply.Close()
		near.Close()
		s := pr.samples[len(pr.samples)-1]
		switch s.Outcome {
		case rank.OK, rank.Status, rank.Body, rank.Protocol:
		default:
			t.Fatalf("%q: %v %s", data, s.Outcome, s.Detail)
		}
		if strings.ContainsFunc(s.Detail, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s.Detail) > 300 {
			t.Fatalf("%q: detail %q", data, s.Detail)
		}
		if err == nil && !bytes.Contains(data, fmt.Appendf(nil, " %03d", resp.StatusCode)) {
			t.Fatalf("%q: status %d", data, resp.StatusCode)
		}
		if theirs, ok := stdlibStatus(data); ok && err == nil && theirs != resp.StatusCode {
			t.Fatalf("%q: status %d, net/http has %d", data, resp.StatusCode, theirs)
		}
	})
}

// stdlibStatus is the status of the final reply as net/http reads it.
func stdlibStatus(data []byte) (int, bool) {
	in := bufio.NewReader(bytes.NewReader(data))
	for range maxInterim {
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
		if err != nil {
			return 0, false
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp.StatusCode, true
		}
	}
	return 0, false
}
