package config

import (
	"log/slog"
	"net/netip"
	"time"

	"hard/internal/rank"
)

// Config is one whole, valid configuration (contract, section 2). It is immutable after Load;
// everything in it may be shared.
type Config struct {
	File     string
	Hash     string `json:"-"` // of the text, tells versions apart
	Text     string `json:"-"` // the file as read; whoever has stored it may set it to ""
	Listen   Listen
	Upstream Upstream
	Routes   []Route // longest suffix first
	Cache    Cache
	Store    Store
	Log      Log
	Hooks    Hooks
	Names    []Name // in file order
}

// Listen says where we serve.
type Listen struct {
	DNS     []netip.AddrPort
	HTTP    string // "" = off
	Control string // "" = off
}

// Upstream is the [upstream] table.
type Upstream struct {
	Servers        []Server
	AttemptTimeout time.Duration
	TotalTimeout   time.Duration
	Fastest        bool // policy = "fastest"
	MaxInflight    int
}

// ServerKind is how an upstream is spoken to.
type ServerKind uint8

// The kinds of upstreams.
const (
	ServerPlain      ServerKind = iota // UDP, and TCP for TCP queries
	ServerTCP                          // tcp://IP[:port]
	ServerTLS                          // tls://IP[:port]#server.name
	ServerHTTPS                        // https://host/path#IP
	ServerResolvConf                   // resolv.conf[:/path]
)

// Server is one entry of a list of upstreams. Text is the entry as written.
type Server struct {
	Text       string
	Kind       ServerKind
	Addr       netip.AddrPort // where to connect; invalid for ServerResolvConf
	ServerName string         // verified name for TLS and HTTPS
	URL        string         // for HTTPS, without the fragment
	Path       string         // for resolv.conf; "" = find it as contract section 4 says
}

// Route sends the queries at and below Suffix to its own upstreams.
type Route struct {
	Suffix  string // canonical text, no final dot; "" is never used
	Servers []Server
}

// Cache is the [cache] table.
type Cache struct {
	Enabled    bool
	MaxEntries int
	ServeStale time.Duration
}

// Store is the [store] table. Sizes are bytes.
type Store struct {
	Path      string
	RawFor    time.Duration
	RollupFor time.Duration
	MaxSize   int64
}

// Log is the [log] table.
type Log struct {
	Level   slog.Level // trace is LevelTrace
	Format  string     // auto | text | json
	Queries bool
}

// LevelTrace is one step below debug.
const LevelTrace = slog.LevelDebug - 4

// Hooks is the [hooks] table.
type Hooks struct {
	OnChange []string
	Webhook  string
}

// Name is one name that is answered here, with everything inherited filled in.
type Name struct {
	Name       string       // canonical: lower case, A-labels, no final dot; "*.x" for a wildcard
	Policy     *rank.Policy // shared where equal
	Pace       *rank.Pace   // shared where equal
	IdleAfter  time.Duration
	Idle       time.Duration // idle_interval
	TTL        time.Duration // whole seconds on the wire
	Watch      bool
	SVCB       SVCB
	Warm       time.Duration
	Candidates []Candidate // in file order
}

// SVCB says what happens to SVCB and HTTPS queries for a name.
type SVCB uint8

// The SVCB policies.
const (
	SVCBStrip SVCB = iota
	SVCBForward
	SVCBNoData
)

// Candidate is one candidate of a name.
type Candidate struct {
	Label  string
	Addrs  []netip.Addr // literal addresses, unmapped, in file order
	Hosts  []string     // host names to be looked up at the upstreams, canonical text
	Tier   int
	Weight int
	State  rank.Override
	Check  *Check // shared where equal
}

// CheckKind is how an endpoint is probed.
type CheckKind uint8

// The kinds of checks.
const (
	CheckHTTP CheckKind = iota
	CheckHTTPS
	CheckTCP
	CheckTLS
	CheckDNS
	CheckExec
	CheckStatic
)

// Check is one fully inherited check. Equal checks are shared within one
// Config; Fingerprint tells equal checks of two Configs apart from changed ones.
type Check struct {
	Kind        CheckKind
	URL         string // as written
	Host        string // http(s): Host header, with a port where the URL has one; tls: the name; tcp: as written; else ""
	Port        uint16 // the port dialled
	Path        string // HTTP request target
	Method      string
	Headers     []Header // in key order
	Status      []StatusRange
	Body        string
	Send        string
	Expect      string
	Insecure    bool   // verify = false
	ServerName  string // https and tls: always filled, with the host where the file has none
	CAFile      string
	Source      netip.Addr
	Retries     int
	Redirects   int
	Command     string   // exec
	Args        []string // exec
	DNSName     string   // dns: canonical text
	DNSType     uint16   // dns
	Fingerprint uint64   // of everything above that changes what a probe would find
}

// Header is one request header.
type Header struct{ Name, Value string }

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ Low, High int }
