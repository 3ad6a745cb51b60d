package faults

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"hard/test/faulty"
)

// Load, and clients who mean ill. All loads are bounded, and go to loopback.

// packed is a question in wire form.
func packed(t *testing.T, id uint16, name string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	m.Id = id
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLoadManyClients: thousands of clients over UDP, each with a port, and many with an address, of its own,
// and thousands of TCP connections: each gets its answer, local ones and forwarded ones.
func TestLoadManyClients(t *testing.T) {
	needLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.Start(t, nil, faulty.Head(up.Addr)+static)
	h.Wants("forwarding", faulty.Forwarded())
	const clients, atATime = 3000, 50
	for _, network := range []string{"udp", "tcp"} {
		var wrong atomic.Int64
		slots := make(chan struct{}, atATime)
		var mu sync.Mutex
		var conns []net.Conn
		var wg sync.WaitGroup
		for i := range clients {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				local := netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
				d := net.Dialer{Timeout: faulty.Patience, LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
				if network == "tcp" {
					d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
				}
				c, err := d.Dial(network, h.DNS.String())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				conns = append(conns, c) // open until all are through
				mu.Unlock()
				q, name := ours(), "static.example."
				if i%2 == 1 {
					q, name = faulty.Forwarded(), fmt.Sprintf("c%d.%s.example.", i, network)
				}
				m := new(dns.Msg).SetQuestion(name, dns.TypeA)
				r, _, err := (&dns.Client{Net: network, Timeout: faulty.Patience}).ExchangeWithConn(m, &dns.Conn{Conn: c})
				if err != nil || q.Check(r) != "" {
					if wrong.Add(1) < 5 {
						t.Errorf("%s client %d: %v, %v", network, i, r, err)
					}
				}
			})
		}
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
		if n := wrong.Load(); n > 0 {
			t.Errorf("%s: %d of %d answers were lost or wrong", network, n, clients)
		}
		h.Wants("a local answer", ours())
	}
	faulty.Eventually(t, "the connections are gone", func() bool { return h.Usage().Goroutines < 100 })
}

// TestLoadSlowLoris: connections that send a byte now and then, that never read, and that say nothing: others go
// on, over UDP and TCP, and when the clients leave nothing of them stays.
func TestLoadSlowLoris(t *testing.T) {
	needLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.Start(t, nil, faulty.Head(up.Addr)+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), ours().TCP(), faulty.Forwarded().TCP())
	q := packed(t, 1, "static.example")
	frame := append([]byte{0, byte(len(q))}, q...)
	var many []byte
	for range 2000 {
		many = append(many, frame...)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 900 {
		c, err := net.Dial("tcp", h.DNS.String())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			switch {
			case i%3 == 0:
				for k := 0; ; k++ {
					if _, err := c.Write(frame[k%20 : k%20+1]); err != nil {
						return // it was closed, as it should
					}
					select {
					case <-done:
						return
					case <-time.After(200 * time.Millisecond):
					}
				}
			case i%60 == 1:
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				for range 20 {
					if _, err := c.Write(many); err != nil {
						break // it does not read on, or has closed it
					}
				}
			}
			<-done
		})
	}
	for i := range 3 {
		a.More(i, 200)
	}
	close(done)
	wg.Wait()
	a.Clean()
}

// TestLoadFloods: datagrams that are no queries, responses (QR=1), and packets from everywhere, as fast as one
// thread can send them for a while: those who ask meanwhile are served, junk gets no answers, and all is
// well afterwards.
func TestLoadFloods(t *testing.T) {
	needLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.Start(t, nil, faulty.Head(up.Addr)+static)
	h.Wants("forwarding", faulty.Forwarded())
	rng := rand.New(rand.NewPCG(1, 2))
	response := packed(t, 7, "static.example")
	response[2] |= 0x80
	kinds := map[string]func(i int) []byte{
		"junk": func(int) []byte {
			b := make([]byte, rng.IntN(600))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if len(b) > 2 {
				b[2] |= 0x80 // not even an error is owed
			}
			return b
		},
		"responses": func(int) []byte { return response },
		"short":     func(i int) []byte { return response[:i%12] },
	}
	for kind, datagram := range kinds {
		c, err := net.Dial("udp", h.DNS.String())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 30000 {
			_, _ = c.Write(datagram(i))
		}
		h.Wants("a local answer after "+kind, ours())
		h.Wants("forwarding after "+kind, faulty.Forwarded())
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1500)); err == nil {
			t.Errorf("%s: an answer of %d bytes", kind, n)
		}
		c.Close()
	}
}

// TestLoadStarvation: one client floods unique names that the upstream never answers, more than max_inflight of
// them: another client's forwards and local answers go on.
func TestLoadStarvation(t *testing.T) {
	needLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	up.Answers(func(q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "flood") {
			return nil
		}
		return faulty.Everything(q)
	})
	h := faulty.Start(t, nil, strings.Replace(headWith(up.Addr.String()), "[store]", "max_inflight = 128\n[store]", 1)+static)
	h.Wants("forwarding", faulty.Forwarded())
	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded().TCP())
	c, err := net.Dial("udp", h.DNS.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	sent := 0
	wg.Go(func() {
		for {
			for range 64 { // a burst far below what the socket's buffer holds
				_, _ = c.Write(packed(t, uint16(sent), fmt.Sprintf("flood%d.example", sent)))
				sent++
			}
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	for i := range 3 {
		a.More(i, 150)
	}
	close(stop)
	wg.Wait()
	if sent < 1000 {
		t.Errorf("only %d were sent: no flood", sent)
	}
	t.Logf("%d of the flood", sent)
	a.Clean()
}

// TestLoadSpoofedReplies: somebody off the path sends replies in the upstream's name (raw packets, the right
// address and port) to the very sockets that wait: with every ID but another question; and with the right
// question from another port. Nobody is fooled, and the true answer comes through.
func TestLoadSpoofedReplies(t *testing.T) {
	needLong(t)
	in := faulty.NewNamespace(t)
	up := faulty.NewUpstream(t, in, netip.AddrPort{})
	release := make(chan struct{})
	up.Answers(func(q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "waits") {
			<-release
		}
		return faulty.Everything(q)
	})
	h := faulty.Start(t, in, strings.Replace(headWith(up.Addr.String()), "attempt_timeout = \"300ms\"\ntotal_timeout = \"1500ms\"",
		"attempt_timeout = \"30s\"\ntotal_timeout = \"30s\"", 1)+static)
	h.Wants("forwarding", faulty.Forwarded())
	waits := faulty.Forwarded()
	waits.Each = func(int) string { return "waits.example." }
	result := make(chan string, 1)
	seen := up.Seen.Load()
	go func() {
		var r *dns.Msg
		var err error
		if r, _, err = waits.Exchange(in, h.DNS, 0); err != nil { // a client that asks again, as any does
			r, _, err = waits.Exchange(in, h.DNS, 0)
		}
		if err != nil {
			result <- err.Error()
			return
		}
		result <- waits.Check(r)
	}()
	faulty.Eventually(t, "the query is on its way", func() bool { return up.Seen.Load() > seen })
	ports := connectedTo(t, h.PID(), up.Addr)
	if len(ports) == 0 {
		t.Fatal("no socket to the upstream was found")
	}
	evil := func(name string, id uint16) []byte {
		m := new(dns.Msg).SetQuestion(name, dns.TypeA)
		m.Id, m.Response, m.RecursionAvailable = id, true, true
		rr, err := dns.NewRR(name + " 60 IN A 6.6.6.6")
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = []dns.RR{rr}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var raw int
	if err := in.Do(func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		t.Skip("skipped: no raw socket here: ", err)
	}
	defer unix.Close(raw)
	other := evil("evil.example.", 0)
	right := evil("waits.example.", 0)
	for _, port := range ports[:min(len(ports), 4)] {
		to := netip.AddrPortFrom(up.Addr.Addr(), port)
		for id := range 1 << 16 {
			binary.BigEndian.PutUint16(other, uint16(id))
			spoof(raw, up.Addr, to, other)
			if id%8 == 0 {
				binary.BigEndian.PutUint16(right, uint16(id))
				spoof(raw, netip.AddrPortFrom(up.Addr.Addr(), up.Addr.Port()+1000), to, right)
			}
		}
	}
	h.Wants("a local answer", ours())
	select {
	case text := <-result:
		t.Fatalf("an answer before the upstream gave one: %s", text)
	default:
	}
	close(release)
	if text := <-result; text != "" {
		t.Error(text)
	}
}

// connectedTo finds the local ports of the UDP sockets of a process's network that are connected to an address.
func connectedTo(t *testing.T, pid int, to netip.AddrPort) (ports []uint16) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", pid))
	if err != nil {
		t.Fatal(err)
	}
	ip := to.Addr().As4()
	remote := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], to.Port())
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 3 && f[2] == remote {
			var port uint16
			if _, err := fmt.Sscanf(f[1][strings.IndexByte(f[1], ':')+1:], "%x", &port); err == nil && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// spoof sends a UDP datagram with any source.
func spoof(raw int, from, to netip.AddrPort, payload []byte) {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[20:], from.Port())
	binary.BigEndian.PutUint16(b[22:], to.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload))) // no checksum: allowed, and left out here
	_ = unix.Sendto(raw, append(b, payload...), 0, &unix.SockaddrInet4{Addr: dst})
}

// TestLoadTenThousandNames: a configuration with 10,000 names, reloaded under load with one of them changed.
func TestLoadTenThousandNames(t *testing.T) {
	needLong(t)
	file := func(last string) string {
		var b strings.Builder
		b.WriteString(headWith("127.0.0.1:9") + "[defaults]\ncheck = \"static:\"\n")
		for i := range 9999 {
			fmt.Fprintf(&b, "[name.\"n%d.example\"]\ncandidates = [\"10.0.%d.%d\"]\n", i, i>>8, i&255)
		}
		return b.String() + "[name.\"last.example\"]\ncandidates = [\"" + last + "\"]\n"
	}
	h := faulty.New(t, nil, file("192.0.2.1"))
	h.Program = faulty.Plain(t)
	began := time.Now()
	h.Run()
	t.Logf("serving after %v", time.Since(began).Round(time.Millisecond))
	before := h.Usage()
	n := faulty.Question{Type: dns.TypeA, Each: func(n int) string { return fmt.Sprintf("n%d.example.", n*37%9999) }}
	n.Check = func(r *dns.Msg) string {
		var i int
		if _, err := fmt.Sscanf(r.Question[0].Name, "n%d.", &i); err != nil {
			return err.Error()
		}
		if got := faulty.Addresses(r); !slices.Equal(got, []string{fmt.Sprintf("10.0.%d.%d", i>>8, i&255)}) {
			return fmt.Sprintf("%s: %v", r.Question[0].Name, got)
		}
		return ""
	}
	a := h.Ask(n, n, faulty.Ours("last.example", "192.0.2.1", "192.0.2.2"))
	for i := range 5 {
		last := fmt.Sprintf("192.0.2.%d", 1+i%2)
		h.Config(file(last))
		began := time.Now()
		if ok, err := reload(h); !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
		t.Logf("reloaded in %v", time.Since(began).Round(time.Millisecond))
		h.Wants("the changed name", faulty.Ours("last.example", last))
	}
	a.Clean()
	faulty.Eventually(t, "goroutines are back", func() bool { return h.Usage().Goroutines <= before.Goroutines+4 })
}
