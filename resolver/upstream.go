package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"hard/internal/wire"
)

// upstream is one resolver that queries are forwarded to. It outlives changes
// of the configuration that name it again, with its health and connections.
type upstream struct {
	server Server // Kind is never ResolvConf
	text   string // for logs and metrics
	dests  string // key: equal means the same upstream
	local  bool   // on a loopback address: its replies prove nothing of the network
	self   bool   // one of our own listeners; never asked

	health health
	stream asyncAsker // TCP, TLS or HTTPS; for Plain the way of TCP clients
	lanes  []upLane   // by lane; each guarded by that lane's lock
}

// upLane is what one lane keeps of an upstream. Guarded by the lane's lock.
type upLane struct {
	pool     []*sock // by slot, nil where empty; nil as a whole until the first use
	pooled   int     // sockets in pool
	fresh    bucket  // queries that may leave from a socket of their own
	inflight int     // attempts whose reply is awaited
	counts   upCounts
}

// upCounts is summed over lanes by UpstreamStats.
type upCounts struct {
	sent     uint64
	rcodes   [rcodeSlots]uint64 // the last slot is for all others
	failures [failSlots]uint64
	strays   uint64                          // datagrams that matched no query: late, wrong or spoofed
	times    [len(durationBounds) + 1]uint64 // replies by the time they took; not cumulative
	timeSum  time.Duration
}

const rcodeSlots = 17 // 0 to 15, and the rest

// failure is why an attempt brought no reply that can be passed on.
type failure uint8

const (
	failNone    failure = iota
	failTimeout         // nothing within attempt_timeout
	failRefused         // ICMP port unreachable, RST
	failNetwork         // no route, network down, no socket
	failInvalid         // a matching reply that is broken
	failTLS             // handshake or certificate
	failLocal           // we had no descriptor, port or memory for it: not the upstream's fault
	failSlots
)

var failNames = [failSlots]string{"", "timeout", "refused", "unreachable", "invalid", "tls", "local"}

// UpstreamStat is one upstream's state, for status and metrics.
type UpstreamStat struct {
	Upstream string            // as configured, or the address read from resolv.conf
	State    string            // up | suspect | down | loop | self
	RTT      time.Duration     // smoothed; 0 = never measured
	Queries  uint64            // sent, hedges and retries included
	Rcodes   map[string]uint64 // replies by response code
	Failures map[string]uint64 // attempts without a reply, by kind
	Strays   uint64            // datagrams that matched no query
	Inflight int
	LastSeen time.Time // last reply; zero = never
	Duration Duration  // from an attempt to its reply; Source is unused
}

// asyncAsker asks over a stream. ask never blocks. Unless it returns an error,
// done is called at most once, later, from any goroutine, without locks held;
// the caller has timers of its own. query is the whole message and may be kept
// and changed.
type asyncAsker interface {
	ask(query []byte, done func(reply []byte, err error)) error
	reset() // the network changed: use no old connection for new queries
	close() // no further ask; running ones fail, goroutines are joined
}

func serverKey(s Server) string {
	return fmt.Sprintf("%d %s %s %s", s.Kind, s.Addr, s.ServerName, s.URL)
}

func (f *forwarder) newUpstream(s Server, self bool) *upstream {
	u := &upstream{server: s, text: s.Text, dests: serverKey(s), self: self, local: s.Addr.Addr().IsLoopback()}
	if u.text == "" || s.Kind == ResolvConf {
		u.text = s.Addr.String()
	}
	u.lanes = make([]upLane, len(f.lanes))
	u.health.init()
	switch s.Kind {
	case HTTPS:
		u.stream = newHTTPSAsker(s, f.roots, f.log)
	default:
		u.stream = newStreamAsker(s, f.roots, f.log)
	}
	return u
}

// plainServer is the upstream that a nameserver line of resolv.conf means.
func plainServer(ap netip.AddrPort) Server {
	return Server{Text: ap.String(), Kind: Plain, Addr: ap}
}

// UpstreamStats returns the state of every upstream, in the order of the
// configuration. Any goroutine may call it.
func (f *forwarder) UpstreamStats() []UpstreamStat {
	c := f.conf.Load()
	if c == nil {
		return nil
	}
	var out []UpstreamStat
	for _, u := range c.all {
		out = append(out, f.statOf(u))
	}
	return out
}

func (f *forwarder) statOf(u *upstream) UpstreamStat {
	s := UpstreamStat{
		Upstream: u.text, State: u.stateName(), RTT: time.Duration(u.health.srtt.Load()),
		Rcodes: make(map[string]uint64), Failures: make(map[string]uint64),
		Duration: Duration{Bounds: durationBounds[:], Counts: make([]uint64, len(durationBounds)+1)},
	}
	if at := u.health.lastReply.Load(); at > 0 {
		s.LastSeen = f.wallTime(at)
	}
	for i, l := range f.lanes {
		l.mu.Lock()
		c, in := u.lanes[i].counts, u.lanes[i].inflight
		l.mu.Unlock()
		s.Queries += c.sent
		s.Strays += c.strays
		for k, n := range c.times {
			s.Duration.Counts[k] += n
		}
		s.Duration.Sum += c.timeSum
		s.Inflight += in
		for r, n := range c.rcodes {
			if n > 0 {
				s.Rcodes[upstreamRcode(r)] += n
			}
		}
		for k, n := range c.failures {
			if n > 0 {
				s.Failures[failNames[k]] += n
			}
		}
	}
	return s
}

func (u *upstream) stateName() string {
	if u.self {
		return "self"
	}
	return stateNames[u.health.state.Load()]
}

var upstreamRcodes = [rcodeSlots]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
	"YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"}

func upstreamRcode(r int) string {
	if n := upstreamRcodes[r]; n != "" {
		return n
	}
	return "other"
}

// took notes the time that a reply took.
func (c *upCounts) took(d time.Duration) {
	c.times[durationBucket(d)]++
	c.timeSum += d
}

func (c *upCounts) reply(r wire.Rcode) { c.rcodes[min(int(r), rcodeSlots-1)]++ }

// bucket tells whether queries come at less than some rate. It is a token
// bucket that goes into debt: above the rate it says no to all, not to some,
// and yes again after up to twice burst/rate. Times are nanoseconds of the
// forwarder's clock.
type bucket struct {
	tokens float64
	at     int64
}

func (b *bucket) take(now int64, rate, burst float64) bool {
	if b.at == 0 {
		b.tokens = burst
	} else {
		b.tokens = min(burst, b.tokens+float64(now-b.at)*rate/1e9)
	}
	b.at = now
	b.tokens = max(b.tokens-1, -burst)
	return b.tokens >= 0
}

// SetUpstreams replaces the forwarder's configuration while serving; no query
// is lost. An error changes nothing.
func (r *Resolver) SetUpstreams(o UpstreamOptions) error { return r.fwd.SetUpstreams(o) }

// LookupAddrs asks the upstreams for a host's addresses; see
// forwarder.LookupAddrs.
func (r *Resolver) LookupAddrs(ctx context.Context, host string, v6 bool) (addrs []netip.Addr, ttl time.Duration, err error) {
	return r.fwd.LookupAddrs(ctx, host, v6)
}

// LastReply is when a non-loopback upstream last replied; zero = never.
func (r *Resolver) LastReply() time.Time { return r.fwd.LastReply() }

// UpstreamStats returns the state of every upstream, in the order of the
// configuration.
func (r *Resolver) UpstreamStats() []UpstreamStat { return r.fwd.UpstreamStats() }
