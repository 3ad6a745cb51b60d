package resolver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/answer"
	"hard/internal/wire"
)

// Parsers of what others send, beside those of package wire. FuzzReply is in forward_trust_test.go.

// FuzzRewrite: whatever an upstream answers to an HTTPS query of a configured name, what the client
// gets leads to no address but our own, as miekg/dns reads it.
func FuzzRewrite(f *testing.F) {
	asked, err := withOPT(question("own.example.", dns.TypeHTTPS)).Pack()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		`own.example. 60 IN HTTPS 1 . alpn="h2" ipv4hint="192.0.2.1" ipv6hint="2001:db8::1" mandatory="ipv4hint,alpn"`,
		`own.example. 60 IN HTTPS 1 other.example. port="8443"`,
		`own.example. 60 IN HTTPS 0 alias.example.`,
		`OWN.example. 60 IN HTTPS 2 own.example. key65000="x"`,
		`own.example. 60 IN CNAME other.example.`,
		`own.example. 60 IN SVCB 1 . ipv4hint="192.0.2.1"`,
		`own.example. 60 IN A 192.0.2.1`,
	} {
		f.Add(replyTo(asked, func(m *dns.Msg) {
			m.Answer = []dns.RR{mustRR(text)}
			m.Extra = append(m.Extra, mustRR("other.example. 60 IN A 192.0.2.2"))
		})[12:])
	}
	f.Add(replyTo(asked, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError; m.Answer = nil })[12:])
	fw := makeForwarder(slog.New(slog.DiscardHandler), 1)
	if err := fw.SetUpstreams(UpstreamOptions{Servers: []Server{{Addr: addrPort("127.0.0.1", 9)}}}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := afterReply(fw, asked, body, &answer.Entry{TTL: 3})
		m := new(dns.Msg)
		if err := m.Unpack(got); err != nil || len(m.Question) != 1 || m.Question[0].Name != "own.example." {
			t.Fatalf("client got %x: %v", got, err)
		}
		if m.Rcode == dns.RcodeNameError {
			t.Fatalf("the name exists: %v", m)
		}
		for _, rr := range m.Answer {
			s := svcbOf(rr)
			if s == nil || s.Priority == 0 || !strings.EqualFold(s.Hdr.Name, "own.example.") ||
				s.Target != "." && !strings.EqualFold(s.Target, "own.example.") {
				t.Fatalf("it leads elsewhere: %v", rr)
			}
			for _, kv := range s.Value {
				if k := kv.Key(); k == dns.SVCB_IPV4HINT || k == dns.SVCB_IPV6HINT {
					t.Fatalf("a hint is left: %v", rr)
				}
			}
		}
		if m.Rcode == dns.RcodeSuccess && (len(m.Extra) != 1 || m.IsEdns0() == nil) {
			t.Fatalf("additional records are left: %v", m)
		}
	})
}

// afterReply is what the client gets when the upstream's reply to asked has this body behind its
// header, and nothing else comes. entry is that of a configured name.
func afterReply(fw *forwarder, asked, body []byte, entry *answer.Entry) (got []byte) {
	msg := bytes.Clone(asked)
	var q wire.Query
	q.Parse(msg)
	l := fw.lanes[0]
	l.add(fw.conf.Load(), &request{msg: msg, q: &q, entry: entry,
		from: testAsker(false, func(m []byte) { got = bytes.Clone(m) })}, false, nil)
	at := l.stage[0]
	l.stage = l.stage[:0]
	at.staged = false
	l.schedule(at, 1)
	buf := make([]byte, rxSize+fitRoom)
	n := copy(buf[:rxSize], asked[:12])
	n += copy(buf[n:rxSize], body)
	buf[2] |= 0x80
	l.reply(at, buf, n, false, 2, false)
	for l.oldest != nil { // ignored, or asked again: end it
		l.fail(l.oldest, wire.EDENoReachable)
	}
	clear(l.stage)
	l.stage = l.stage[:0]
	return got
}

// FuzzResolvConf: what is read of a resolv.conf are addresses that stand there behind the word, in
// order, no more than the bound; and they are read again as they were.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("# x\nnameserver 127.0.0.1\nnameserver\t::1 # local\noptions ndots:1\nnameserver fe80::1%eth0\nnameserver 1.2.3.4.5\r\n"))
	f.Add([]byte("nameserver 192.0.2.1\r\nnameserver 192.0.2.2"))
	f.Add([]byte(strings.Repeat("nameserver ::ffff:192.0.2.1\n", 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseNameservers(bytes.NewReader(data))
		if err != nil || len(list) > resolvConfMaxServers {
			t.Fatalf("%d, %v", len(list), err)
		}
		var want []netip.Addr
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if len(line) > 60<<10 {
				return // longer than what is read at a time
			}
			w := strings.Fields(string(line))
			if len(w) < 2 || w[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(w[1]); err == nil && len(want) < resolvConfMaxServers {
				want = append(want, a.Unmap())
			}
		}
		if len(data) < resolvConfMaxSize && !slices.Equal(list, want) {
			t.Fatalf("%v, want %v", list, want)
		}
		var text bytes.Buffer
		for _, a := range list {
			fmt.Fprintf(&text, "nameserver %s\n", a)
		}
		if again, err := parseNameservers(&text); err != nil || !slices.Equal(again, list) {
			t.Fatalf("%v was read again as %v, %v", list, again, err)
		}
	})
}

// FuzzUpstreamStream: whatever an upstream sends over a stream (TCP, TLS), in whatever pieces, each
// query is told once, of a reply to its question or of an error.
func FuzzUpstreamStream(f *testing.F) {
	query, err := question("stream.example.", dns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	good := frame(replyTo(query, nil))
	f.Add(good, byte(1))
	f.Add(append(slices.Clone(good), good...), byte(7))
	f.Add([]byte{0, 3, 1, 2, 3}, byte(0))
	f.Add([]byte{255, 255, 0}, byte(2))
	f.Fuzz(func(t *testing.T, data []byte, piece byte) {
		a := &streamAsker{}
		near, far := net.Pipe()
		c := &streamConn{s: a, ctx: t.Context(), cancel: func() {}, wake: make(chan struct{}, 1),
			pending: make(map[uint16]*streamQuery), heard: time.Now(), conn: near}
		told := 0
		for i := range 2 {
			q := &streamQuery{msg: bytes.Clone(query), id: uint16(i), since: time.Now(), done: func(m []byte, err error) {
				told++
				if (m == nil) == (err == nil) || m != nil && !answersQuery(m, query) {
					t.Errorf("told %x, %v", m, err)
				}
			}}
			id := binary.BigEndian.Uint16(query) + uint16(i)
			binary.BigEndian.PutUint16(q.msg, id)
			c.pending[id] = q
		}
		written := make(chan struct{})
		go func() {
			defer close(written)
			for b := data; len(b) > 0; {
				n := min(len(b), int(piece)+1)
				if _, err := far.Write(b[:n]); err != nil {
					break
				}
				b = b[n:]
			}
			far.Close()
		}()
		err := c.read(near)
		near.Close()
		<-written
		a.closed = true // no second connection
		c.end(err)
		if told != 2 {
			t.Fatalf("told %d times, %v", told, err)
		}
	})
}

// FuzzClientStream: what a TCP client gets does not depend on the pieces in which its bytes come, and
// is whole frames.
func FuzzClientStream(f *testing.F) {
	msg := frame(pack(f, query(tName, dns.TypeA)))
	f.Add(msg, byte(0))
	f.Add(append(slices.Clone(msg), msg...), byte(30))
	f.Add(append(slices.Clone(msg), 0, 0, 0, 1, 7), byte(3))
	f.Add(append(frame(pack(f, query("elsewhere.example.", dns.TypeA))), 255, 255, 1), byte(5))
	r := newServer(f, Options{Log: slog.New(slog.DiscardHandler)})
	r.tcp.limits.tick = 5 * time.Millisecond // which may have to notice the client's end
	r.Start()
	ask := func(t *testing.T, data []byte, piece int) (got []byte, ok bool) {
		conn, err := net.Dial("tcp", r.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		c := conn.(*net.TCPConn)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		for b := data; len(b) > 0; {
			n := min(len(b), piece)
			if _, err := c.Write(b[:n]); err != nil {
				break
			}
			b = b[n:]
		}
		_ = c.CloseWrite()
		got, err = io.ReadAll(c)
		return got, err == nil // else reset, as what was sent behind the end is not read
	}
	f.Fuzz(func(t *testing.T, data []byte, piece byte) {
		if len(data) > 512 {
			return
		}
		whole, ok := ask(t, data, len(data)+1)
		if !ok {
			return
		}
		for b := whole; len(b) > 0; {
			if len(b) < 2+wire.HeaderLen || len(b) < 2+int(binary.BigEndian.Uint16(b)) || b[4]&0x80 == 0 {
				t.Fatalf("sent %x, got %x", data, whole)
			}
			b = b[2+int(binary.BigEndian.Uint16(b)):]
		}
		if pieces, ok := ask(t, data, int(piece)+1); ok && !bytes.Equal(sorted(pieces), sorted(whole)) {
			t.Fatalf("sent %x, got %x, in pieces %x", data, whole, pieces)
		}
	})
}

// sorted puts frames in an order, since replies may come in any.
func sorted(b []byte) []byte {
	var frames [][]byte
	for len(b) > 2 && len(b) >= 2+int(binary.BigEndian.Uint16(b)) {
		n := 2 + int(binary.BigEndian.Uint16(b))
		frames = append(frames, b[:n])
		b = b[n:]
	}
	slices.SortFunc(frames, bytes.Compare)
	return append(bytes.Join(frames, nil), b...)
}
