package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"hard/internal/wire"
)

// ErrLookup is wrapped by the errors of LookupAddrs that are no context error.
var ErrLookup = errors.New("lookup failed")

// LookupAddrs asks the upstreams, routes included, for the addresses of host
// (canonical text): AAAA with v6, else A. CNAMEs are followed as far as the
// reply contains them. NXDOMAIN and NODATA are no error: no addresses, and ttl
// is the negative TTL (RFC 2308 section 5; 0 without an SOA). Within
// total_timeout there is a result, also if ctx goes on.
func (f *forwarder) LookupAddrs(ctx context.Context, host string, v6 bool) (addrs []netip.Addr, ttl time.Duration, err error) {
	qtype := wire.TypeA
	if v6 {
		qtype = wire.TypeAAAA
	}
	msg, err := lookupQuery(host, qtype)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %q: %w", ErrLookup, host, err)
	}
	m, err := f.exchange(ctx, msg, false)
	if err == nil && m.Truncated {
		m, err = f.exchange(ctx, msg, true)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrLookup, host, err)
	}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError || m.Truncated {
		return nil, 0, fmt.Errorf("%w: %s: %s", ErrLookup, host, describe(m))
	}
	addrs, ttl = addresses(m, qtype)
	return addrs, ttl, nil
}

func lookupQuery(host string, qtype uint16) ([]byte, error) {
	msg := make([]byte, wire.HeaderLen, wire.MinUDP)
	msg[2], msg[5], msg[11] = byte(wire.FlagRD>>8), 1, 1
	msg, err := wire.AppendName(msg, host)
	if err != nil {
		return nil, err
	}
	msg = binary.BigEndian.AppendUint16(msg, qtype)
	msg = binary.BigEndian.AppendUint16(msg, wire.ClassIN)
	return append(msg, 0, 0, byte(wire.TypeOPT), wire.MaxUDP>>8, wire.MaxUDP&0xff, 0, 0, 0, 0, 0, 0), nil
}

// rootQuery is what upstreams are probed with: every resolver knows the answer.
func rootQuery() []byte {
	return []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
}

// exchange asks the upstreams one question of our own.
func (f *forwarder) exchange(ctx context.Context, msg []byte, tcp bool) (*dns.Msg, error) {
	c := f.conf.Load()
	if c == nil {
		return nil, errors.New("no upstreams yet")
	}
	var q wire.Query
	if v := q.Parse(msg); v != wire.VerdictOK {
		return nil, fmt.Errorf("our own query is bad: %d", v)
	}
	reply := make(chan []byte, 1)
	f.laneOf(q.Hash).askOwn(c, &request{msg: msg, q: &q}, tcp, reply)
	select {
	case b := <-reply:
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			return nil, err
		}
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// describe says what is wrong in the words of the reply.
func describe(m *dns.Msg) string {
	s := dns.RcodeToString[m.Rcode]
	if m.Truncated {
		s += ", truncated"
	}
	if o := m.IsEdns0(); o != nil {
		for _, x := range o.Option {
			if e, ok := x.(*dns.EDNS0_EDE); ok {
				s += fmt.Sprintf(", %s %q", dns.ExtendedErrorCodeToString[e.InfoCode], e.ExtraText)
			}
		}
	}
	return s
}

// addresses returns those at the end of the CNAME chain in m's answer.
func addresses(m *dns.Msg, qtype uint16) ([]netip.Addr, time.Duration) {
	owner := dns.CanonicalName(m.Question[0].Name)
	ttl := uint32(1<<31 - 1)
	for range len(m.Answer) { // each CNAME once, in any order
		moved := false
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == owner {
				owner, moved = dns.CanonicalName(c.Target), true
				ttl = min(ttl, c.Hdr.Ttl)
				break
			}
		}
		if !moved {
			break
		}
	}
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != owner {
			continue
		}
		var a netip.Addr
		switch x := rr.(type) {
		case *dns.A:
			a, _ = netip.AddrFromSlice(x.A)
		case *dns.AAAA:
			a, _ = netip.AddrFromSlice(x.AAAA)
		}
		if a.IsValid() {
			addrs = append(addrs, a.Unmap())
			ttl = min(ttl, h.Ttl)
		}
	}
	if len(addrs) > 0 {
		return addrs, time.Duration(ttl) * time.Second
	}
	return nil, time.Duration(negativeTTL(m)) * time.Second
}

// negativeTTL is RFC 2308 section 5's; 0 without an SOA.
func negativeTTL(m *dns.Msg) uint32 {
	for _, rr := range m.Ns {
		if s, ok := rr.(*dns.SOA); ok {
			return min(s.Hdr.Ttl, s.Minttl)
		}
	}
	return 0
}
