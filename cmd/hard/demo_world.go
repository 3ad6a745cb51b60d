package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// world is everything outside hard that the demo needs: candidates on loopback addresses, which
// are near or far by waiting before they answer, and an upstream resolver.
type world struct {
	port       int // of every candidate
	candidates []*candidate
	upstream   *dns.Server
	upAddr     string
}

// candidate is one HTTP server of the demo.
type candidate struct {
	label string
	addr  string
	delay time.Duration

	hung   atomic.Bool // accept, but don't answer
	mu     sync.Mutex
	server *http.Server // nil while dead; guarded by mu
}

// newWorld starts everything on free ports.
func newWorld() (*world, error) {
	w := &world{candidates: []*candidate{
		{label: "east-1", addr: "127.0.0.11", delay: 2 * time.Millisecond},
		{label: "east-2", addr: "127.0.0.12", delay: 9 * time.Millisecond},
		{label: "west-1", addr: "127.0.0.13", delay: 40 * time.Millisecond},
		{label: "west-2", addr: "127.0.0.14", delay: 48 * time.Millisecond},
	}}
	if err := w.startUpstream(); err != nil {
		return nil, err
	}
	// One port for all, as candidates of one service have: the first picks it. Somebody else may
	// hold it on another address, so try again with another.
	var err error
	for range 8 {
		if err = w.startCandidates(); err == nil {
			return w, nil
		}
		w.stopCandidates()
		w.port = 0
	}
	w.stop()
	return nil, err
}

func (w *world) startCandidates() error {
	for _, c := range w.candidates {
		if err := c.start(w.port); err != nil {
			return err
		}
		if w.port == 0 {
			w.port = c.boundPort()
		}
	}
	return nil
}

func (w *world) stopCandidates() {
	for _, c := range w.candidates {
		c.kill()
	}
}

func (w *world) stop() {
	w.stopCandidates()
	if w.upstream != nil {
		_ = w.upstream.Shutdown()
	}
}

// startUpstream runs a resolver that answers every TXT question, so that the demo forwards
// without a word to the machine's own resolvers.
func (w *world) startUpstream() error {
	pc, err := net.ListenPacket("udp", "127.0.0.10:0")
	if err != nil {
		return fmt.Errorf("the demo's upstream: %w", err)
	}
	w.upAddr = pc.LocalAddr().String()
	started := make(chan struct{})
	w.upstream = &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if len(q.Question) == 1 && q.Question[0].Qtype == dns.TypeTXT {
			m.Answer = []dns.RR{&dns.TXT{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1},
				Txt: []string{"forwarded to the demo's upstream"},
			}}
		}
		_ = rw.WriteMsg(m)
	})}
	go func() { _ = w.upstream.ActivateAndServe() }()
	<-started
	return nil
}

// start brings a dead candidate up; port 0 picks one.
func (c *candidate) start(port int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, err := net.Listen("tcp", net.JoinHostPort(c.addr, fmt.Sprint(port)))
	if err != nil {
		return fmt.Errorf("the demo's candidate %s: %w", c.label, err)
	}
	c.hung.Store(false)
	c.server = &http.Server{Addr: l.Addr().String(), Handler: c, ReadHeaderTimeout: 5 * time.Second}
	srv := c.server
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a listener on loopback that stops by itself
		}
	}()
	return nil
}

func (c *candidate) boundPort() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, p, _ := net.SplitHostPort(c.server.Addr)
	n, _ := net.LookupPort("tcp", p)
	return n
}

// kill ends the server: connections are refused from now on.
func (c *candidate) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		_ = c.server.Close()
		c.server = nil
	}
}

// hang lets the server accept and never answer, as a frozen process does.
func (c *candidate) hang() { c.hung.Store(true) }

// ServeHTTP answers the health check after the candidate's delay.
func (c *candidate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.hung.Load() {
		<-r.Context().Done()
		return
	}
	select {
	case <-time.After(c.delay):
		fmt.Fprintf(w, "ok from %s\n", c.label)
	case <-r.Context().Done():
	}
}

// asker asks hard, as any program on the host would.
type asker struct{ server string }

// addresses returns the A answer for a name.
func (a asker) addresses(ctx context.Context, name string) ([]string, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := &dns.Client{Timeout: 2 * time.Second}
	r, _, err := c.ExchangeContext(ctx, m, a.server)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, rr := range r.Answer {
		if rr, ok := rr.(*dns.A); ok {
			out = append(out, rr.A.String())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s A: %s without an address", name, dns.RcodeToString[r.Rcode])
	}
	return out, nil
}

// waitFor asks every few milliseconds until ok says yes, and returns how long that took.
func (a asker) waitFor(ctx context.Context, name string, ok func(first string) bool) (string, time.Duration, error) {
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		addrs, err := a.addresses(ctx, name)
		if err == nil && ok(addrs[0]) {
			return addrs[0], time.Since(start), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", time.Since(start), errors.Join(ctx.Err(), err)
		}
	}
}
