package faulty

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var ports atomic.Int32

// Addr is a loopback address and port that nobody else uses: the address is made from this
// process's number, the port counts up below those that the kernel gives out.
func Addr() netip.AddrPort {
	pid := os.Getpid()
	ip := netip.AddrFrom4([4]byte{127, byte(64 + pid>>16&63), byte(pid >> 8), byte(pid)})
	return netip.AddrPortFrom(ip, uint16(10000+ports.Add(1)))
}

// Candidate is an HTTP server that can die, hang and come back. Its fields are set before use.
type Candidate struct {
	Addr  netip.AddrPort
	In    *Namespace
	Delay atomic.Int64 // of each reply, nanoseconds
	Seen  atomic.Int64 // requests

	t    testing.TB
	mu   sync.Mutex
	srv  *http.Server
	done chan struct{}
}

// NewCandidate starts one; an invalid addr stands for one of its own.
func NewCandidate(t testing.TB, in *Namespace, addr netip.AddrPort, delay time.Duration) *Candidate {
	t.Helper()
	if !addr.IsValid() {
		addr = Addr()
	}
	c := &Candidate{Addr: addr, In: in, t: t}
	c.Delay.Store(int64(delay))
	c.Start()
	t.Cleanup(c.Kill)
	return c
}

// Start listens again after Kill.
func (c *Candidate) Start() {
	c.t.Helper()
	var l net.Listener
	err := c.In.Do(func() (err error) {
		l, err = net.Listen("tcp", c.Addr.String())
		return err
	})
	if err != nil {
		c.t.Fatalf("candidate: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	srv, done := &http.Server{Handler: c, ReadHeaderTimeout: Patience}, make(chan struct{})
	c.srv, c.done = srv, done
	go func() { defer close(done); _ = srv.Serve(l) }()
}

// Kill closes the listener and all connections: the port refuses.
func (c *Candidate) Kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.srv != nil {
		_ = c.srv.Close()
		<-c.done
		c.srv = nil
	}
}

// ServeHTTP is http.Handler's.
func (c *Candidate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.Seen.Add(1)
	select {
	case <-time.After(time.Duration(c.Delay.Load())):
		_, _ = io.WriteString(w, "ok\n")
	case <-r.Context().Done():
	}
}

// Upstream is a resolver over UDP and TCP that has an answer to everything: A 192.0.2.53.
type Upstream struct {
	Addr  netip.AddrPort
	Mute  atomic.Bool  // takes queries and says nothing
	Delay atomic.Int64 // of each reply, nanoseconds
	Seen  atomic.Int64 // queries

	answer atomic.Pointer[func(q *dns.Msg) *dns.Msg]
}

// Answers replaces what is answered; nil says nothing.
func (u *Upstream) Answers(f func(q *dns.Msg) *dns.Msg) { u.answer.Store(&f) }

// UpstreamAnswer is what an Upstream answers for an A query.
const UpstreamAnswer = "192.0.2.53"

// NewUpstream starts one; an invalid addr stands for one of its own.
func NewUpstream(t testing.TB, in *Namespace, addr netip.AddrPort) *Upstream {
	t.Helper()
	if !addr.IsValid() {
		addr = Addr()
	}
	u := &Upstream{Addr: addr}
	var pc net.PacketConn
	var l net.Listener
	err := in.Do(func() (err error) {
		if pc, err = net.ListenPacket("udp", addr.String()); err == nil {
			l, err = net.Listen("tcp", addr.String())
		}
		return err
	})
	if err != nil {
		t.Fatalf("upstream: %v", err)
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: u}, {Listener: l, Handler: u}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return u
}

// ServeDNS is dns.Handler's.
func (u *Upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.Seen.Add(1)
	if u.Mute.Load() {
		return
	}
	if d := time.Duration(u.Delay.Load()); d > 0 {
		time.Sleep(d) // the upstream's latency
	}
	answer := Everything
	if f := u.answer.Load(); f != nil {
		answer = *f
	}
	if m := answer(q); m != nil {
		_ = w.WriteMsg(m)
	}
}

// Everything answers A queries with UpstreamAnswer, and others with NODATA.
func Everything(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeA {
		rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN A %s", q.Question[0].Name, UpstreamAnswer))
		if err == nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	return m
}
