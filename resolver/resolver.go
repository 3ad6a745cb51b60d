// Package resolver is the DNS front end and the forwarder.
package resolver

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"hard/internal/answer"
)

// Options are what New needs. All of it is immutable.
type Options struct {
	Listen    []netip.AddrPort // UDP and TCP on each; port 0 picks one (the same for both)
	Log       *slog.Logger
	Asked     func(slot int) // somebody asked for a name whose entry is marked Idle; must not block; may be nil
	LogQuery  bool
	Listeners int // UDP sockets (SO_REUSEPORT) per address; 0 = GOMAXPROCS
}

// UpstreamOptions is the forwarder's configuration; it can be swapped as a whole while serving.
type UpstreamOptions struct {
	Servers        []Server
	Routes         []Route
	AttemptTimeout time.Duration
	TotalTimeout   time.Duration
	Fastest        bool
	MaxInflight    int
	Cache          CacheOptions
	Self           []netip.AddrPort               // never forward to these
	SavedServers   []netip.AddrPort               // last good resolv.conf list, from the store
	SaveServers    func(servers []netip.AddrPort) // a new good resolv.conf list was read; may be nil
}

// CacheOptions is [cache].
type CacheOptions struct {
	Enabled    bool
	MaxEntries int
	ServeStale time.Duration
}

// ServerKind is how an upstream is spoken to.
type ServerKind uint8

// The kinds of upstreams.
const (
	Plain ServerKind = iota
	TCP
	TLS
	HTTPS
	ResolvConf
)

// Server is one upstream. See config.Server, which the daemon translates.
type Server struct {
	Text       string
	Kind       ServerKind
	Addr       netip.AddrPort
	ServerName string
	URL        string
	Path       string
}

// Route sends queries at and below Suffix (canonical text) to Servers; the longest match wins.
type Route struct {
	Suffix  string
	Servers []Server
}

// Sketch (the authors fill it in; the names are used by engine, prober and daemon):
//
//	func New(o Options) (*Resolver, error)            // binds every socket; error names address and port
//	func (r *Resolver) Addrs() []netip.AddrPort       // what was bound
//	func (r *Resolver) SetUpstreams(u UpstreamOptions) error
//	func (r *Resolver) Publish(t *answer.Table)       // atomic; any goroutine
//	func (r *Resolver) Start()
//	func (r *Resolver) Stop(ctx context.Context) error // listeners joined, forwards drained up to ctx
//	func (r *Resolver) LookupAddrs(ctx context.Context, host string, v6 bool) (addrs []netip.Addr, ttl time.Duration, err error)
//	func (r *Resolver) LastReply() time.Time          // last reply from a non-loopback upstream; zero = never
//	func (r *Resolver) Stats() Stats
var _ = context.Background

var _ *answer.Table
