package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"hard/internal/rank"
)

// This file is the one source of truth for keys: their names, defaults, types and bounds, and
// with them what is suggested for an unknown one.

const day = 24 * time.Hour

// The tables that are not keys of anything else, and the two of tables.
var topNames = []string{"listen", "upstream", "route", "cache", "store", "log", "hooks", "defaults", "name"}

var listenKeys = newTable("[listen]", nil,
	texts("dns", []any{"127.0.0.1:53", "[::1]:53"}, setListenDNS),
	text("http", "127.0.0.1:8053", setListenHTTP),
	text("control", "/run/hard/control.sock", setListenControl),
)

var upstreamKeys = newTable("[upstream]", nil,
	texts("servers", []any{resolvConf}, func(list []string, u *Upstream) (i *issue) {
		u.Servers, i = parseServers(list)
		return i
	}),
	duration("attempt_timeout", "1500ms", 10*time.Millisecond, 30*time.Second,
		func(u *Upstream) *time.Duration { return &u.AttemptTimeout }),
	duration("total_timeout", "4s", 10*time.Millisecond, time.Minute,
		func(u *Upstream) *time.Duration { return &u.TotalTimeout }),
	enum("policy", "ordered", []string{"ordered", "fastest"}, func(u *Upstream, n int) { u.Fastest = n == 1 }),
	integer("max_inflight", int64(4096), 1, 1<<20, func(u *Upstream, n int64) { u.MaxInflight = int(n) }),
)

var routeKeys = newTable(`[route."..."]`, nil,
	texts("servers", nil, func(list []string, r *Route) (i *issue) {
		r.Servers, i = parseServers(list)
		return i
	}),
)

var cacheKeys = newTable("[cache]", nil,
	boolean("enabled", false, func(c *Cache) *bool { return &c.Enabled }),
	integer("max_entries", int64(10000), 1, 10_000_000, func(c *Cache, n int64) { c.MaxEntries = int(n) }),
	duration("serve_stale", "1h", 0, 7*day, func(c *Cache) *time.Duration { return &c.ServeStale }),
)

var storeKeys = newTable("[store]", nil,
	text("path", "/var/lib/hard/hard.db", func(s string, st *Store) *issue {
		if s == "" || strings.HasSuffix(s, "/") {
			return issuef("want the path of a file, not %s", strconv.Quote(s))
		}
		st.Path = strings.Clone(s)
		return nil
	}),
	duration("raw_for", "48h", time.Minute, 3650*day, func(s *Store) *time.Duration { return &s.RawFor }),
	duration("rollup_for", "400d", time.Hour, 36500*day, func(s *Store) *time.Duration { return &s.RollupFor }),
	size("max_size", "512MiB", 1<<20, func(s *Store) *int64 { return &s.MaxSize }),
)

var logKeys = newTable("[log]", nil,
	text("level", "info", func(s string, l *Log) *issue {
		level, err := ParseLevel(s)
		if err != nil {
			return issuef("%s", err).suggest(nearest(s, levelNames))
		}
		l.Level = level
		return nil
	}),
	enum("format", "auto", logFormats, func(l *Log, n int) { l.Format = logFormats[n] }),
	boolean("queries", false, func(l *Log) *bool { return &l.Queries }),
)

var logFormats = []string{"auto", "text", "json"}

var hooksKeys = newTable("[hooks]", nil,
	secret(texts("on_change", []any{}, setOnChange), isStrings, "a list of strings: a program and its arguments"),
	secret(text("webhook", "", setWebhook), isString, "a URL in quotes"),
)

// options are the keys of a name, but its candidates and its check.
type options struct {
	policy    rank.Policy
	pace      rank.Pace
	idleAfter time.Duration
	ttl       time.Duration
	warm      time.Duration
	watch     bool
	svcb      SVCB
}

// minInterval is the shortest pace: below it the jitter of an ordinary host is the measurement.
const minInterval = 10 * time.Millisecond

var nameKeys = newTable(`[defaults] and [name."..."]`, []string{"check", "candidates", "candidate"},
	duration("interval", "2s", minInterval, day, func(o *options) *time.Duration { return &o.pace.Interval }),
	duration("fast_interval", "250ms", minInterval, day, func(o *options) *time.Duration { return &o.pace.FastInterval }),
	duration("idle_after", "0s", 0, 365*day, func(o *options) *time.Duration { return &o.idleAfter }),
	duration("idle_interval", "30s", minInterval, day, func(o *options) *time.Duration { return &o.pace.IdleInterval }),
	duration("backoff_max", "30s", minInterval, day, func(o *options) *time.Duration { return &o.pace.BackoffMax }),
	duration("timeout", "1s", time.Millisecond, 10*time.Minute, func(o *options) *time.Duration { return &o.pace.Timeout }),
	integer("rise", int64(2), 1, 100, func(o *options, n int64) { o.pace.Rise = int(n) }),
	integer("fall", int64(2), 1, 100, func(o *options, n int64) { o.pace.Fall = int(n) }),
	enum("select", "best", []string{"best", "group"}, func(o *options, n int) {
		o.policy.Select = [...]rank.SelectMode{rank.Best, rank.Group}[n]
	}),
	enum("latency", "total", []string{"connect", "first_byte", "total"}, func(o *options, n int) {
		o.policy.Latency = [...]rank.LatencyMode{rank.LatencyConnect, rank.LatencyFirstByte, rank.LatencyTotal}[n]
	}),
	duration("group_within", "10ms", 0, time.Hour, func(o *options) *time.Duration { return &o.policy.GroupWithin }),
	duration("max_latency", "0s", 0, time.Hour, func(o *options) *time.Duration { return &o.policy.MaxLatency }),
	fraction("switch_ratio", 0.2, 0, 10, func(o *options) *float64 { return &o.policy.SwitchRatio }),
	duration("switch_min", "2ms", 0, time.Hour, func(o *options) *time.Duration { return &o.policy.SwitchMin }),
	duration("hold", "10s", 0, day, func(o *options) *time.Duration { return &o.policy.Hold }),
	enum("families", "together", []string{"together", "apart"}, func(o *options, n int) { o.policy.Apart = n == 1 }),
	integer("max_answers", int64(1), 1, 25, func(o *options, n int64) { o.policy.MaxAnswers = int(n) }),
	enum("on_all_down", "last_good", []string{"last_good", "all", "forward", "nodata", "servfail"}, func(o *options, n int) {
		o.policy.OnAllDown = [...]rank.AllDown{rank.LastGood, rank.All, rank.Forward, rank.NoData, rank.ServFail}[n]
	}),
	integer("min_healthy", int64(0), 0, 10000, func(o *options, n int64) { o.policy.MinHealthy = int(n) }),
	key[options]{"ttl", "1s", setTTL},
	boolean("watch", false, func(o *options) *bool { return &o.watch }),
	enum("svcb", "strip", []string{"strip", "forward", "nodata"}, func(o *options, n int) {
		o.svcb = [...]SVCB{SVCBStrip, SVCBForward, SVCBNoData}[n]
	}),
	duration("warm", "5m", 0, 30*day, func(o *options) *time.Duration { return &o.warm }),
)

// candidateOptions are the keys of a candidate, but its check.
type candidateOptions struct {
	address []string
	tier    int
	weight  int
	state   rank.Override
}

var candidateKeys = newTable(`[name."...".candidate.LABEL]`, []string{"check"},
	key[candidateOptions]{"address", nil, func(v any, o *candidateOptions) *issue {
		if s, ok := v.(string); ok {
			v = []any{s}
		}
		list, i := parseStrings(v)
		switch {
		case i != nil:
			return i
		case len(list) == 0:
			return issuef("the list is empty")
		}
		o.address = list
		return nil
	}},
	integer("tier", int64(0), 0, 1000, func(o *candidateOptions, n int64) { o.tier = int(n) }),
	integer("weight", int64(100), 0, 1000, func(o *candidateOptions, n int64) { o.weight = int(n) }),
	enum("state", "auto", []string{"auto", "up", "down", "drain"}, func(o *candidateOptions, n int) {
		o.state = [...]rank.Override{rank.Auto, rank.Up, rank.Down, rank.Drain}[n]
	}),
)

// size is a key that holds a number of bytes of at least lo.
func size[T any](name, def string, lo int64, field func(*T) *int64) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		n, i := parseSize(v)
		switch {
		case i != nil:
			return i
		case n < lo:
			return issuef("%d bytes are too few: at least %d MiB", n, lo>>20)
		case n > math.MaxInt64/2:
			return issuef("%d bytes are too many", n)
		}
		*field(into) = n
		return nil
	}}
}

// levelNames are the log levels, most talkative first.
var levelNames = []string{"trace", "debug", "info", "warn", "error"}

// ParseLevel reads the name of a log level: trace, debug, info, warn or error, in any case.
func ParseLevel(s string) (slog.Level, error) {
	levels := []slog.Level{LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	if n := slices.Index(levelNames, strings.ToLower(s)); n >= 0 {
		return levels[n], nil
	}
	return 0, fmt.Errorf("%s is none of %s", strconv.Quote(shorten(s)), strings.Join(levelNames, ", "))
}

// LevelText is the name of a log level, as ParseLevel reads it.
func LevelText(l slog.Level) string {
	if l == LevelTrace {
		return "trace"
	}
	return strings.ToLower(l.String())
}

func setListenDNS(list []string, l *Listen) (issues *issue) {
	if len(list) == 0 {
		return issuef("the list is empty: nobody could ask us")
	}
	l.DNS = make([]netip.AddrPort, 0, len(list))
	for n, s := range list {
		ap, i := parseAddrPort(s, "53")
		switch {
		case i != nil:
		case ap.Addr().IsMulticast():
			i = issuef("%s is a multicast address", ap.Addr())
		case slices.Contains(l.DNS, ap) && ap.Port() != 0:
			i = issuef("%s is in the list twice", ap)
		}
		issues = issues.and(i.entry(n, len(list)))
		l.DNS = append(l.DNS, ap)
	}
	return issues
}

func setListenHTTP(s string, l *Listen) *issue {
	if s == "" {
		l.HTTP = ""
		return nil
	}
	ap, i := parseAddrPort(s, "8053")
	if i != nil {
		return i
	}
	l.HTTP = ap.String()
	return nil
}

// MaxSocketPath is what fits into sockaddr_un with its final NUL, in bytes.
const MaxSocketPath = 107

func setListenControl(s string, l *Listen) *issue {
	if len(s) > MaxSocketPath {
		return issuef("the path of a socket has at most %d bytes, this one has %d", MaxSocketPath, len(s))
	}
	if strings.HasSuffix(s, "/") {
		return issuef("%s is a directory; want the path of the socket", strconv.Quote(s))
	}
	l.Control = strings.Clone(s)
	return nil
}

func setTTL(v any, o *options) *issue {
	d, i := parseDuration(v)
	switch {
	case i != nil:
		return i
	case d < time.Second && d > 0 || d%time.Second != 0:
		return issuef("%s is not in whole seconds, and a TTL is", durationText(d)).
			suggest(`"` + durationText(max(d.Round(time.Second), time.Second)) + `"`)
	case d == 0:
		return issuef("a TTL of 0 makes every program ask for every connection, and some clients misread it; at least 1s").suggest(`"1s"`)
	case d > day:
		return issuef("%s is out of range: from 1s to 1d", durationText(d))
	}
	o.ttl = d
	return nil
}

func setOnChange(list []string, h *Hooks) *issue {
	h.OnChange = nil
	if len(list) == 0 {
		return nil
	}
	if !strings.HasPrefix(list[0], "/") {
		return issuef("the program %s is not an absolute path (there is no shell and no PATH)", strconv.Quote(shorten(firstWord(list[0]))))
	}
	for _, s := range list {
		h.OnChange = append(h.OnChange, strings.Clone(s))
	}
	return nil
}

// firstWord leaves out what may be arguments.
func firstWord(s string) string {
	word, rest, _ := strings.Cut(s, " ")
	if rest != "" {
		word += " ..."
	}
	return word
}

func setWebhook(s string, h *Hooks) *issue {
	if s == "" {
		h.Webhook = ""
		return nil
	}
	u, i := webURL(s)
	if i != nil {
		return i
	}
	h.Webhook = u.String()
	return nil
}
