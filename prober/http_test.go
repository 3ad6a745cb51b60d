package prober

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// collector is a Sink that keeps everything.
type collector struct {
	samples chan rank.Sample
	found   chan Found
}

func newCollector() *collector {
	return &collector{make(chan rank.Sample, 100000), make(chan Found, 1000)}
}

func (c *collector) Sample(s rank.Sample) { c.samples <- s }
func (c *collector) Addresses(f Found)    { c.found <- f }

// next waits for the next sample.
func (c *collector) next(t testing.TB) rank.Sample {
	t.Helper()
	select {
	case s := <-c.samples:
		return s
	case <-time.After(patience):
		t.Fatal("no sample came")
		return rank.Sample{}
	}
}

// newProber makes a prober that is stopped at the end of the test.
func newProber(t testing.TB, o Options) *Prober {
	t.Helper()
	if o.Sink == nil {
		o.Sink = newCollector()
	}
	o.Version = "test"
	p := New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Stop(ctx); err != nil {
			t.Error("stop:", err)
		}
	})
	return p
}

// serve runs a TCP server on loopback; each connection is given to f and closed after it.
func serve(t testing.TB, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, f)
}

func serveOn(t testing.TB, l net.Listener, f func(net.Conn)) netip.AddrPort {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// request reads the head of a request and returns its lines.
func request(c net.Conn) []string {
	var lines []string
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" { // not any blank line: a ClientHello has a kilobyte of random octets
			return lines
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
	}
}

// reply answers each request with a fixed text.
func reply(text string) func(net.Conn) {
	return func(c net.Conn) {
		request(c)
		io.WriteString(c, text)
	}
}

// untilClosed waits until the peer closes.
func untilClosed(c net.Conn) { io.Copy(io.Discard, c) }

const okReply = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

func httpCheck(port uint16) *config.Check {
	return &config.Check{
		Kind: config.CheckHTTP, Host: "www.example.com", Port: port, Path: "/healthz", Method: "GET",
		Status: []config.StatusRange{{Low: 200, High: 299}},
	}
}

func pace(timeout time.Duration) *rank.Pace {
	return &rank.Pace{Interval: time.Second, FastInterval: 250 * time.Millisecond, BackoffMax: 30 * time.Second, Timeout: timeout, Rise: 2, Fall: 2}
}

var loopback = netip.MustParseAddr("127.0.0.1")

func target(c *config.Check, timeout time.Duration) Target {
	return Target{Key: rank.Key{Name: "www.example.com", Candidate: "a", Addr: loopback}, Check: c, Pace: pace(timeout)}
}

// probeOnce runs one probe of a check.
func probeOnce(t testing.TB, c *config.Check, timeout time.Duration) rank.Sample {
	t.Helper()
	p := newProber(t, Options{})
	s, _ := p.Probe(t.Context(), target(c, timeout), false)
	return s
}

func wantOutcome(t testing.TB, s rank.Sample, want rank.Outcome, detail string) {
	t.Helper()
	if s.Outcome != want || !strings.Contains(s.Detail, detail) {
		t.Errorf("got %v (status %d): %q, want %v: ...%s...", s.Outcome, s.Status, s.Detail, want, detail)
	}
	if want == rank.OK && (s.Phases.Connect <= 0 || s.Phases.FirstByte < s.Phases.Connect || s.Phases.Total < s.Phases.FirstByte) {
		t.Errorf("phases out of order: %+v", s.Phases)
	}
}

// R89: whatever a candidate does, a probe ends in time, reads a bounded number of bytes and names the outcome.
func TestHTTPOutcomes(t *testing.T) {
	// some is for what comes up to a point: a busy machine must get there in time.
	const some, long = 2 * time.Second, patience
	huge := strings.Repeat("x", 1<<20)
	tests := []struct {
		name    string
		server  func(net.Conn)
		change  func(*config.Check)
		timeout time.Duration
		want    rank.Outcome
		status  int
		detail  string
	}{
		{"well", reply(okReply), nil, long, rank.OK, 200, ""},
		{"well, HTTP/1.0 and bare line ends", reply("HTTP/1.0 200 OK\nServer: x\n\nhello"), nil, long, rank.OK, 200, ""},
		{"well, no reason phrase", reply("HTTP/1.1 204\r\n\r\n"), nil, long, rank.OK, 204, ""},
		{"interim replies first", reply("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okReply), nil, long, rank.OK, 200, ""},
		{"interim replies for ever", reply(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100)), nil, long, rank.Protocol, 0, "interim"},
		{"503", reply("HTTP/1.1 503 Service Unavailable\r\n\r\n"), nil, long, rank.Status, 503, "503 Service Unavailable"},
		{"302 that is not followed", reply("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n"), nil, long, rank.Status, 302, "302 Found"},
		{"404 that is wanted", reply("HTTP/1.1 404 Not Found\r\n\r\n"), func(c *config.Check) { c.Status = []config.StatusRange{{Low: 404, High: 404}} }, long, rank.OK, 404, ""},
		{"200 that is not wanted", reply(okReply), func(c *config.Check) { c.Status = []config.StatusRange{{Low: 404, High: 404}} }, long, rank.Status, 200, "200 OK"},
		{"429", reply("HTTP/1.1 429 Too Many Requests\r\n\r\n"), nil, long, rank.OK, 429, "slows down"},
		{"silence", untilClosed, nil, some, rank.Timeout, 0, "no reply within 2s"},
		{"drip", func(c net.Conn) {
			request(c)
			for _, b := range []byte(okReply) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond) // 4.3 s for all
			}
		}, nil, some, rank.Timeout, 0, "no end of the reply"},
		{"half a header, then silence", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nServ"); untilClosed(c) }, nil, some, rank.Timeout, 0, "end of the reply"},
		{"half a header, then the end", reply("HTTP/1.1 200 OK\r\nServ"), nil, long, rank.Protocol, 0, "closed before end of the reply"},
		{"closes early", func(c net.Conn) { request(c) }, nil, long, rank.Protocol, 0, "closed before reply"},
		{"resets", func(c net.Conn) { request(c); c.(*net.TCPConn).SetLinger(0) }, nil, long, rank.Reset, 0, "reset before reply"},
		{"another protocol", func(c net.Conn) { io.WriteString(c, "220 mail.example.com ESMTP\r\n"); untilClosed(c) }, nil, long, rank.Protocol, 0, "not an HTTP/1 reply"},
		{"another protocol without line ends", reply("\x15\x03\x01\x00\x02\x02\x46"), nil, long, rank.Protocol, 0, "not an HTTP/1 reply"},
		{"garbage for a header", reply("HTTP/1.1 200 OK\r\nno header at all\r\n\r\n"), nil, long, rank.Protocol, 0, "header field"},
		{"huge header", reply("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Pad: "+strings.Repeat("y", 100)+"\r\n", 10000)), nil, long, rank.Protocol, 0, "header is larger"},
		{"one endless header line", reply("HTTP/1.1 200 OK\r\nX-Pad: " + huge), nil, long, rank.Protocol, 0, "header is larger"},
		{"long header line", reply("HTTP/1.1 200 OK\r\nX-Pad: " + huge[:9000] + "\r\nContent-Length: 5\r\n\r\nhello"), wantBody("ell"), long, rank.OK, 200, ""},
		{"body is there", reply(okReply), wantBody("ell"), long, rank.OK, 200, ""},
		{"body is another", reply(okReply), wantBody("captive"), long, rank.Body, 200, `"captive" is not in the first 5 bytes`},
		{"body in chunks", reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), wantBody("ell"), long, rank.OK, 200, ""},
		{"bad chunks", reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhe\r\n"), wantBody("ell"), long, rank.Protocol, 200, "bad body"},
		{"body up to the end of the connection", reply("HTTP/1.1 200 OK\r\n\r\nhello"), wantBody("llo"), long, rank.OK, 200, ""},
		{"body that ends early", reply("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"), wantBody("never"), long, rank.Protocol, 200, "closed before"},
		{"body that hangs", func(c net.Conn) {
			request(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhel")
			untilClosed(c)
		}, wantBody("hello"), some, rank.Timeout, 200, "end of the reply"},
		{"huge body", reply("HTTP/1.1 200 OK\r\n\r\n" + huge + "never"), wantBody("never"), long, rank.Body, 200, "first 65536 bytes"},
		{"huge body that nobody reads", reply("HTTP/1.1 200 OK\r\n\r\n" + huge), nil, long, rank.OK, 200, ""},
		{"two lengths", reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), nil, long, rank.Protocol, 0, "Content-Length"},
		{"endless redirect", reply("HTTP/1.1 302 Found\r\nLocation: /healthz\r\n\r\n"), func(c *config.Check) { c.Redirects = 3 }, long, rank.Status, 302, "more than 3 redirects"},
		{"redirect to another host", reply("HTTP/1.1 302 Found\r\nLocation: http://login.example.net/\r\n\r\n"), func(c *config.Check) { c.Redirects = 3 }, long, rank.Status, 302, "another host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check := httpCheck(serve(t, tt.server).Port())
			if tt.change != nil {
				tt.change(check)
			}
			s := probeOnce(t, check, tt.timeout)
			wantOutcome(t, s, tt.want, tt.detail)
			if s.Status != tt.status {
				t.Errorf("status %d, want %d", s.Status, tt.status)
			}
			if !s.Final || s.Try != 0 {
				t.Errorf("final %v, try %d", s.Final, s.Try)
			}
		})
	}
}

func wantBody(text string) func(*config.Check) { return func(c *config.Check) { c.Body = text } }

func TestRefusedAndUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	wantOutcome(t, probeOnce(t, httpCheck(port), patience), rank.Refused, "refused")

	// 255.255.255.255 is never sent to: the kernel refuses to connect a stream to it.
	p := newProber(t, Options{})
	tg := target(httpCheck(port), patience)
	tg.Key.Addr = netip.MustParseAddr("255.255.255.255")
	s, _ := p.Probe(t.Context(), tg, false)
	wantOutcome(t, s, rank.Unreachable, "unreachable")

	check := httpCheck(port)
	check.Source = netip.MustParseAddr("192.0.2.1")
	wantOutcome(t, probeOnce(t, check, patience), rank.Unreachable, "no local address")
}

func TestHTTPRequest(t *testing.T) {
	got := make(chan []string, 1)
	addr := serve(t, func(c net.Conn) {
		got <- request(c)
		io.WriteString(c, okReply)
	})
	check := httpCheck(addr.Port())
	check.Method, check.Path = "HEAD", "/a?b=c%20d"
	check.Host = "www.example.com:8443"
	check.Headers = []config.Header{{Name: "X-Probe", Value: "hard"}}
	check.Body = "" // HEAD has none
	wantOutcome(t, probeOnce(t, check, patience), rank.OK, "")
	want := "HEAD /a?b=c%20d HTTP/1.1|Host: www.example.com:8443|User-Agent: hard/test|X-Probe: hard|Connection: close"
	if lines := strings.Join(<-got, "|"); lines != want {
		t.Errorf("request:\n%s, want\n%s", lines, want)
	}
}

func TestHostDefaultsToName(t *testing.T) {
	got := make(chan []string, 1)
	addr := serve(t, func(c net.Conn) { got <- request(c); io.WriteString(c, okReply) })
	check := httpCheck(addr.Port())
	check.Host = ""
	wantOutcome(t, probeOnce(t, check, patience), rank.OK, "")
	if lines := <-got; lines[1] != "Host: www.example.com" {
		t.Error(lines)
	}
}

func TestSource(t *testing.T) {
	from := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		from <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		reply(okReply)(c)
	})
	check := httpCheck(addr.Port())
	check.Source = netip.MustParseAddr("127.0.0.77")
	wantOutcome(t, probeOnce(t, check, patience), rank.OK, "")
	if got := <-from; got != "127.0.0.77" {
		t.Error("probed from", got)
	}
}

func TestIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 loopback:", err)
	}
	addr := serveOn(t, l, reply(okReply))
	p := newProber(t, Options{})
	tg := target(httpCheck(addr.Port()), patience)
	tg.Key.Addr = netip.IPv6Loopback()
	s, _ := p.Probe(t.Context(), tg, false)
	wantOutcome(t, s, rank.OK, "")
}

func TestRedirectsAreFollowed(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		lines := request(c)
		switch {
		case strings.HasPrefix(lines[0], "GET /healthz "):
			io.WriteString(c, "HTTP/1.1 301 Moved\r\nLocation: http://WWW.example.com/two\r\nContent-Length: 1000000\r\n\r\n")
		case strings.HasPrefix(lines[0], "GET /two ") && lines[1] == "Host: WWW.example.com":
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: three\r\n\r\n")
		case strings.HasPrefix(lines[0], "GET /three "):
			io.WriteString(c, okReply)
		default:
			io.WriteString(c, "HTTP/1.1 500 "+lines[0]+"\r\n\r\n")
		}
	})
	check := httpCheck(addr.Port())
	check.Redirects = 2
	s := probeOnce(t, check, patience)
	wantOutcome(t, s, rank.OK, "")
	if s.Status != 200 {
		t.Error("status", s.Status)
	}
}

// Every try is a sample of its own; the latency of the last one has no waiting in it. A busy machine may take as long as the
// waiting, but not each time.
func TestRetries(t *testing.T) {
	eventually(t, "tries with no waiting in their latency", func() bool { return retriesWithoutWaiting(t) })
}

func retriesWithoutWaiting(t *testing.T) bool {
	var n atomic.Int32
	addr := serve(t, func(c net.Conn) {
		request(c)
		if n.Add(1) < 3 {
			io.WriteString(c, "HTTP/1.1 500 Oops\r\n\r\n")
			return
		}
		io.WriteString(c, okReply)
	})
	check := httpCheck(addr.Port())
	check.Retries = 5
	sink := newCollector()
	p := newProber(t, Options{Sink: sink})
	p.Start()
	p.SetName("www.example.com", []Target{target(check, patience)})
	waited := false
	for try := range 3 {
		s := sink.next(t)
		if s.Try != try || s.Final != (try == 2) || (s.Outcome == rank.OK) != (try == 2) {
			t.Errorf("sample %d: %+v", try, s)
		}
		waited = waited || try > 0 && s.Phases.Total >= retryWait
	}
	if got := n.Load(); got < 3 {
		t.Error("tries:", got)
	}
	return !waited
}

func TestRetriesEndWithTheTimeout(t *testing.T) {
	addr := serve(t, reply("HTTP/1.1 500 Oops\r\n\r\n"))
	check := httpCheck(addr.Port())
	check.Retries = 1000
	s := probeOnce(t, check, time.Second)
	if s.Outcome != rank.Timeout { // of a last try that was starved
		wantOutcome(t, s, rank.Status, "500")
	}
	if s.Try == 0 || s.Try == check.Retries {
		t.Errorf("%d tries in a second", s.Try)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "7": 7 * time.Second,
		"Sat, 21 Nov 2026 08:00:09 GMT": 9 * time.Second,
		"Sat, 21 Nov 2026 07:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestTrace(t *testing.T) {
	addr := serve(t, reply("HTTP/1.1 200 OK\r\nServer: \x1b[31mevil\r\n\r\n"))
	p := newProber(t, Options{})
	s, lines := p.Probe(t.Context(), target(httpCheck(addr.Port()), patience), true)
	wantOutcome(t, s, rank.OK, "")
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&text, l.Dir, l.Text)
	}
	for _, want := range []string{"> GET /healthz HTTP/1.1", "< HTTP/1.1 200 OK", "* ok\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Error("an escape sequence came through")
	}
}

// What was never sent is not shown as sent.
func TestTraceOfRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	stream := &config.Check{Kind: config.CheckTCP, Port: port, Send: "PING\r\n"}
	for _, check := range []*config.Check{httpCheck(port), stream} {
		p := newProber(t, Options{})
		s, lines := p.Probe(t.Context(), target(check, patience), true)
		wantOutcome(t, s, rank.Refused, "")
		if len(lines) != 2 || !strings.HasPrefix(lines[0].Text, "connect to ") || !strings.HasPrefix(lines[1].Text, "refused: ") {
			t.Errorf("%v", lines)
		}
	}
}

func TestAbortedProbe(t *testing.T) {
	accepted := make(chan bool, 1)
	addr := serve(t, func(c net.Conn) { accepted <- true; untilClosed(c) })
	p := newProber(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-accepted; cancel() }()
	s, _ := p.Probe(ctx, target(httpCheck(addr.Port()), time.Minute), false)
	wantOutcome(t, s, rank.Aborted, "")
}

// A new connection per probe, closed with a reset: no descriptor and no port stays behind.
func TestNoLeaks(t *testing.T) {
	ok := serve(t, reply(okReply))
	closed := serve(t, func(c net.Conn) {})
	p := newProber(t, Options{})
	probe := func(port uint16) {
		check := httpCheck(port)
		check.Body = "hello"
		p.Probe(t.Context(), target(check, patience), false)
	}
	probe(ok.Port()) // starts the reactor
	before := descriptors(t)
	for range 200 {
		probe(ok.Port())
		probe(closed.Port())
		probe(1)
	}
	deadline := time.Now().Add(patience)
	for descriptors(t) > before+2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors before, %d after", before, descriptors(t))
		}
		time.Sleep(time.Millisecond)
	}
}

func descriptors(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	return len(entries)
}

// A probe on a new connection; the server's part, in the same process, is in the figures.
func BenchmarkHTTPProbe(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer l.Close()
	p := newProber(b, Options{})
	check := httpCheck(uint16(l.Addr().(*net.TCPAddr).Port))
	var keep *prepared // as a job does
	b.ReportAllocs()
	for b.Loop() {
		pr := &probe{check: check, prepared: keep, addr: loopback, timeout: time.Second}
		p.runProbe(pr)
		keep = pr.prepared
		if pr.outcome() != rank.OK {
			b.Fatal(pr.samples)
		}
	}
}
