package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	selfTime  = time.Second            // for a query to ourselves
	selfFresh = 100 * time.Millisecond // a result may be shared by those who ask within this time
)

// healthCheck asks ourselves, one question at a time for all who want to know.
type healthCheck struct {
	mu  sync.Mutex // held while a query is out; guards the rest
	at  time.Time
	err error
}

// run sends a query to the first DNS listener over UDP, as a client would. It asks for
// localhost, which is answered from the table and does not depend on any candidate or upstream.
func (h *healthCheck) run(ctx context.Context, listen []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < selfFresh {
		return h.err
	}
	h.err = askSelf(ctx, listen)
	h.at = time.Now()
	return h.err
}

func askSelf(ctx context.Context, listen []netip.AddrPort) error {
	if len(listen) == 0 {
		return errors.New("no DNS listener")
	}
	to := listen[0]
	if to.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if to.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		to = netip.AddrPortFrom(loopback, to.Port())
	}
	ctx, cancel := context.WithTimeout(ctx, selfTime)
	defer cancel()
	c := dns.Client{Net: "udp", Timeout: selfTime}
	m := new(dns.Msg).SetQuestion("localhost.", dns.TypeA)
	r, _, err := c.ExchangeContext(ctx, m, to.String())
	if err != nil {
		return fmt.Errorf("a query to %s: %w", to, err)
	}
	if r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
		return fmt.Errorf("a query to %s: %s with %d records", to, dns.RcodeToString[r.Rcode], len(r.Answer))
	}
	return nil
}

// Healthy asks ourselves over UDP, as /healthz does and the service manager's watchdog wants to know.
func (s *Server) Healthy(ctx context.Context) error { return s.health.run(ctx, s.o.Backend.Info().DNS) }

// healthz is 200 when a query to ourselves was answered just now, else 503.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	verdict(w, s.Healthy(r.Context()))
}

// readyz is 200 when the first table is published and until we stop, else 503.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	var err error
	if !s.o.Backend.Info().Ready {
		err = errors.New("not ready")
	}
	verdict(w, err)
}

func verdict(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}
