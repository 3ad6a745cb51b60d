package resolver

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestAskedOfIdleNames(t *testing.T) {
	var asked atomic.Int64
	r := serve(t, Options{Asked: func(slot int) { asked.Add(int64(1 + 100*slot)) }})
	exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA))
	exchange(t, "udp", r.Addrs()[0], query(tIdle, dns.TypeA))
	exchange(t, "tcp", r.Addrs()[0], query(tIdle, dns.TypeAAAA))
	if got := asked.Load(); got != 402 {
		t.Errorf("asked: %d", got)
	}
}

func TestStats(t *testing.T) {
	r := serve(t, Options{Listeners: 1}, newFarEnd(t, answerA))
	at := r.Addrs()[0]
	for range sampleEvery {
		exchange(t, "udp", at, query(tName, dns.TypeA))
	}
	exchange(t, "tcp", at, query(tName, dns.TypeAAAA))
	exchange(t, "udp", at, query("localhost.", dns.TypeA))
	exchange(t, "udp", at, query("else.example.", dns.TypeHTTPS))
	exchange(t, "tcp", at, query("else.example.", dns.TypeMX))
	bad := query(tName, dns.TypeA)
	bad.SetEdns0(1232, false)
	bad.IsEdns0().SetVersion(1)
	exchange(t, "udp", at, bad)
	s := r.Stats()
	requests := make(map[string]uint64)
	for _, x := range s.Requests {
		requests[x.Proto+" "+x.Type+" "+x.Source] = x.N
	}
	for k, want := range map[string]uint64{"udp A local": sampleEvery, "tcp AAAA local": 1, "udp A special": 1,
		"udp HTTPS forward": 1, "tcp MX forward": 1, "udp A error": 1} {
		if requests[k] != want {
			t.Errorf("requests %s: %d, want %d", k, requests[k], want)
		}
	}
	responses := make(map[string]uint64)
	for _, x := range s.Responses {
		responses[x.Rcode+" "+x.Source] = x.N
	}
	for k, want := range map[string]uint64{"NOERROR local": sampleEvery + 1, "NOERROR special": 1, "NOERROR forward": 2, "BADVERS error": 1} {
		if responses[k] != want {
			t.Errorf("responses %s: %d, want %d", k, responses[k], want)
		}
	}
	durations := make(map[string]uint64)
	for _, d := range s.Durations {
		for _, n := range d.Counts {
			durations[d.Source] += n
		}
	}
	if durations["forward"] != 2 || durations["local"] == 0 {
		t.Errorf("durations: %v", durations)
	}
	if len(s.Answers) == 0 || s.Answers[0] != sampleEvery+1 {
		t.Errorf("answers: %v", s.Answers)
	}
}

// BenchmarkBatch is what a query costs between the two system calls.
func BenchmarkBatch(b *testing.B) {
	r := newServer(b, Options{Listeners: 1})
	l := r.endpoints[0].udp[0]
	msg := pack(b, query(tName, dns.TypeA))
	fill(b, l, msg, udpBatch)
	table := r.table.Load()
	b.ReportAllocs()
	for b.Loop() {
		for i := range udpBatch {
			copy(l.rx.Buf(i), msg)
			l.handle(table, i)
		}
		l.tx.Drop()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/udpBatch, "ns/query")
}

// BenchmarkForward is what a forwarded query costs with everything: two
// sockets here, and the client's and the upstream's work, in batches of 32.
func BenchmarkForward(b *testing.B) {
	up, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	defer up.Close()
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := up.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80
			_, _ = up.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	r := serve(b, Options{Listeners: 1})
	at := up.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := r.SetUpstreams(UpstreamOptions{Servers: []Server{{Addr: at}}}); err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg, buf := pack(b, query("00000000.example.", dns.TypeA)), make([]byte, 512)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for j := range udpBatch {
			copy(msg[13:], fmt.Sprintf("%08d", i*udpBatch+j))
			if _, err := c.Write(msg); err != nil {
				b.Fatal(err)
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		for range udpBatch {
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/udpBatch, "ns/query")
}
