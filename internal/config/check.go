package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/net/http/httpguts"
)

// checkOptions are the keys of a check as they stand at one level, the inherited ones included.
type checkOptions struct {
	target     target
	port       uint16
	method     string
	headers    []Header
	status     []StatusRange
	body       string
	send       string
	expect     string
	verify     bool
	serverName string
	caFile     string
	source     netip.Addr
	retries    int
	redirects  int
	args       []string

	from   [len(checkKeyNames)]level // who set it, by the key's place in checkKeyNames
	broken bool                      // an error was reported: no check can be made of it
}

// level is a place from which keys are inherited; a higher one wins.
type level uint8

const (
	builtIn level = iota
	inDefaults
	inName
	inCandidate
)

// target is a parsed check URL. Its host is "" where the URL leaves it to the name.
type target struct {
	text    string
	kind    CheckKind
	host    string // A-labels, or an address without brackets
	hasPort bool
	port    uint16
	path    string // http: request target; exec: program
	dnsName string
	dnsType uint16
}

// checkKeyNames is the order of checkKeys, for checkOptions.from.
var checkKeyNames = [...]string{
	"url", "port", "method", "headers", "status", "body", "send", "expect", "verify", "server_name",
	"ca_file", "source", "retries", "redirects", "args",
}

const urlKey = 0 // in checkKeyNames

// schemes are the kinds of checks as a URL begins, by CheckKind.
var schemes = [...]string{
	CheckHTTP: "http", CheckHTTPS: "https", CheckTCP: "tcp", CheckTLS: "tls", CheckDNS: "dns", CheckExec: "exec", CheckStatic: "static",
}

// String returns the scheme of the check's URL.
func (k CheckKind) String() string { return schemes[k] }

// goesWith tells which kinds of checks a key means something to; keys not named go with all.
var goesWith = map[string][]CheckKind{
	"port":        {CheckHTTP, CheckHTTPS, CheckTCP, CheckTLS, CheckDNS, CheckExec},
	"method":      {CheckHTTP, CheckHTTPS},
	"headers":     {CheckHTTP, CheckHTTPS},
	"status":      {CheckHTTP, CheckHTTPS},
	"body":        {CheckHTTP, CheckHTTPS},
	"send":        {CheckTCP, CheckTLS},
	"expect":      {CheckTCP, CheckTLS},
	"verify":      {CheckHTTPS, CheckTLS},
	"server_name": {CheckHTTPS, CheckTLS},
	"ca_file":     {CheckHTTPS, CheckTLS},
	"source":      {CheckHTTP, CheckHTTPS, CheckTCP, CheckTLS, CheckDNS},
	"retries":     {CheckHTTP, CheckHTTPS, CheckTCP, CheckTLS, CheckDNS, CheckExec},
	"redirects":   {CheckHTTP, CheckHTTPS},
	"args":        {CheckExec},
}

// maxBody is how much of a reply a probe reads, and so the longest text to look for.
const maxBody = 64 << 10

var checkKeys = newTable("check", nil,
	text("url", nil, func(s string, o *checkOptions) (i *issue) {
		o.target, i = parseTarget(strings.Clone(s))
		return i
	}),
	integer("port", nil, 1, 65535, func(o *checkOptions, n int64) { o.port = uint16(n) }),
	text("method", "GET", setMethod),
	key[checkOptions]{"headers", nil, setHeaders},
	key[checkOptions]{"status", []any{"2xx"}, setStatus},
	text("body", "", payload(func(o *checkOptions) *string { return &o.body })),
	text("send", "", payload(func(o *checkOptions) *string { return &o.send })),
	text("expect", "", payload(func(o *checkOptions) *string { return &o.expect })),
	boolean("verify", true, func(o *checkOptions) *bool { return &o.verify }),
	text("server_name", "", func(s string, o *checkOptions) (i *issue) {
		o.serverName = ""
		if s != "" {
			o.serverName, i = serverName(strings.Clone(s))
		}
		return i
	}),
	text("ca_file", "", func(s string, o *checkOptions) *issue {
		if s != "" && !strings.HasPrefix(s, "/") {
			return issuef("want an absolute path, not %s", strconv.Quote(shorten(s)))
		}
		o.caFile = strings.Clone(s)
		return nil
	}),
	text("source", "", func(s string, o *checkOptions) (i *issue) {
		o.source = netip.Addr{}
		if s != "" {
			o.source, i = parseAddr(s)
		}
		return i
	}),
	integer("retries", int64(0), 0, 10, func(o *checkOptions, n int64) { o.retries = int(n) }),
	integer("redirects", int64(0), 0, 10, func(o *checkOptions, n int64) { o.redirects = int(n) }),
	texts("args", []any{}, func(list []string, o *checkOptions) *issue {
		o.args = nil
		for _, s := range list {
			o.args = append(o.args, strings.Clone(s))
		}
		return nil
	}),
)

func payload(field func(*checkOptions) *string) func(string, *checkOptions) *issue {
	return func(s string, o *checkOptions) *issue {
		if len(s) > maxBody {
			return issuef("the text is longer than %d KiB, which is all that a probe handles", maxBody>>10)
		}
		*field(o) = strings.Clone(s)
		return nil
	}
}

func setMethod(s string, o *checkOptions) *issue {
	switch {
	case !httpguts.ValidHeaderFieldName(s): // both are tokens (RFC 9110 section 5.6.2)
		return issuef("%s is not an HTTP method", strconv.Quote(shorten(s)))
	case s != strings.ToUpper(s):
		return issuef("methods are in capitals").suggest(strings.ToUpper(s))
	case s == "CONNECT":
		return issuef("CONNECT asks for a tunnel, not for an answer")
	}
	o.method = strings.Clone(s)
	return nil
}

// ownHeaders are set by the probe itself.
var ownHeaders = []string{"Content-Length", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade"}

func setHeaders(v any, o *checkOptions) (issues *issue) {
	table, ok := v.(map[string]any)
	if !ok {
		return issuef("want a table such as { X-Probe = \"hard\" }, not %s", describe(v))
	}
	o.headers = make([]Header, 0, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		value, i := parseString(table[name])
		if i == nil {
			i = headerIssue(name, value)
		}
		if i != nil {
			i.message = fmt.Sprintf("header %s: %s", strconv.Quote(shorten(name)), i.message)
			issues = issues.and(i)
		}
		o.headers = append(o.headers, Header{strings.Clone(name), strings.Clone(value)})
	}
	for n, h := range o.headers {
		if slices.ContainsFunc(o.headers[:n], func(o Header) bool { return strings.EqualFold(o.Name, h.Name) }) {
			issues = issues.and(issuef("header %s is there twice", strconv.Quote(shorten(h.Name))))
		}
	}
	return issues
}

func headerIssue(name, value string) *issue {
	switch {
	case strings.EqualFold(name, "Host"):
		return issuef("it comes from the check's URL")
	case slices.ContainsFunc(ownHeaders, func(h string) bool { return strings.EqualFold(h, name) }):
		return issuef("it is set by the probe itself")
	case !httpguts.ValidHeaderFieldName(name):
		return issuef("not a valid name")
	case !httpguts.ValidHeaderFieldValue(value):
		return issuef("%s is not a valid value", strconv.Quote(shorten(value)))
	}
	return nil
}

func setStatus(v any, o *checkOptions) (issues *issue) {
	list, ok := v.([]any)
	if !ok {
		i := issuef("want a list of codes, classes or ranges, not %s", describe(v))
		if s, ok := v.(string); ok {
			return i.suggest("[" + strconv.Quote(s) + "]")
		}
		if n, ok := v.(int64); ok {
			return i.suggest(fmt.Sprintf("[%d]", n))
		}
		return i
	}
	if len(list) == 0 {
		return issuef("the list is empty: no reply would do")
	}
	o.status = make([]StatusRange, 0, len(list))
	for n, e := range list {
		r, i := parseStatus(e)
		issues = issues.and(i.entry(n, len(list)))
		o.status = append(o.status, r)
	}
	return issues
}

// parseStatus reads 200, "2xx" or "200-204".
func parseStatus(v any) (StatusRange, *issue) {
	var r StatusRange
	bad := issuef(`want a code such as 200, a class such as "2xx" or a range such as "200-204", not %s`, describe(v))
	switch v := v.(type) {
	case int64:
		r = StatusRange{int(v), int(v)}
		if v < 100 || v > 599 {
			return r, issuef("%d is not an HTTP status: from 100 to 599", v)
		}
		return r, nil
	case string:
		low, high, isRange := strings.Cut(v, "-")
		if class, ok := strings.CutSuffix(strings.ToLower(v), "xx"); ok && len(class) == 1 {
			low, high = class+"00", class+"99"
		} else if !isRange {
			high = low
		}
		l, err1 := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
		h, err2 := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
		if err1 != nil || err2 != nil {
			return r, bad
		}
		if l < 100 || h > 599 || l > h {
			return r, issuef("%s is not a range of HTTP statuses: from 100 to 599, the lower one first", strconv.Quote(v))
		}
		return StatusRange{int(l), int(h)}, nil
	}
	return r, bad
}

// parseTarget reads a check's URL.
func parseTarget(s string) (target, *issue) {
	scheme, rest, ok := strings.Cut(s, ":")
	kind := CheckKind(slices.Index(schemes[:], strings.ToLower(scheme)))
	switch {
	case s == "":
		return target{}, issuef("the URL is empty")
	case !ok && kind == CheckStatic:
		return target{}, issuef("want a URL").suggest(`"static:"`)
	case slices.Index(schemes[:], strings.ToLower(scheme)) < 0:
		return target{}, unknownScheme(s, scheme, rest, ok)
	}
	t := target{text: s, kind: kind}
	switch kind {
	case CheckStatic:
		if rest != "" {
			return t, issuef("nothing can follow static:").suggest(`"static:"`)
		}
		return t, nil
	case CheckExec:
		return execTarget(t, rest)
	case CheckDNS:
		return dnsTarget(t, rest)
	}
	return urlTarget(t, rest)
}

func unknownScheme(s, scheme, rest string, hasScheme bool) *issue {
	kinds := strings.Join(schemes[:], ":, ") + ":"
	if !hasScheme || strings.ContainsAny(scheme, "./[") || looksLikePort(rest) {
		i := issuef("%s does not say how to check: want a URL with one of %s", strconv.Quote(shorten(s)), kinds)
		switch {
		case strings.HasPrefix(s, "/"):
			i.suggest(`"exec:` + s + `"`)
		case looksLikePort(rest):
			i.suggest(`"tcp://` + s + `"`)
		case !hasScheme && !hasBlank(s):
			i.suggest(`"https://` + s + `"`)
		}
		return i
	}
	i := issuef("the scheme %s is none of %s", strconv.Quote(shorten(scheme)), kinds)
	if n := nearest(scheme, schemes[:]); n != "" {
		i.suggest(`"` + n + ":" + rest + `"`)
	}
	return i
}

func looksLikePort(s string) bool { return s != "" && allDigits(s) }

func execTarget(t target, rest string) (target, *issue) {
	if strings.HasPrefix(rest, "///") {
		return t, issuef("a program's path follows exec: at once").suggest(`"exec:` + rest[2:] + `"`)
	}
	if !strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "//") {
		return t, issuef("want the absolute path of a program behind exec:, not %s", strconv.Quote(shorten(rest)))
	}
	if prog, args, ok := strings.Cut(rest, " "); ok {
		return t, issuef("there is no shell: arguments go into args").
			suggest(fmt.Sprintf(`{ url = "exec:%s", args = [%s] }`, prog, quoteList(strings.Fields(args))))
	}
	t.path = rest
	return t, nil
}

func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for n, s := range list {
		quoted[n] = strconv.Quote(s)
	}
	return strings.Join(quoted, ", ")
}

func dnsTarget(t target, rest string) (target, *issue) {
	name, typ, ok := strings.Cut(rest, "/")
	if !ok || strings.HasPrefix(rest, "/") {
		return t, issuef("want dns:NAME/TYPE, asked of the endpoint itself").suggest(`"dns:` + strings.Trim(rest, "/") + `/SOA"`)
	}
	t.dnsName = "."
	if name != "." {
		var i *issue
		if t.dnsName, i = hostName(name); i != nil {
			return t, i
		}
	}
	t.dnsType, ok = dns.StringToType[strings.ToUpper(typ)]
	if !ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToUpper(typ), "TYPE"), 10, 16) // RFC 3597
		if err != nil || !strings.HasPrefix(strings.ToUpper(typ), "TYPE") {
			return t, issuef("%s is not a DNS record type", strconv.Quote(shorten(typ)))
		}
		t.dnsType = uint16(n)
	}
	if t.dnsType == 0 || t.dnsType == dns.TypeOPT || t.dnsType >= 249 && t.dnsType <= 254 {
		return t, issuef("%s is not a type that can be asked for", strconv.Quote(typ))
	}
	return t, nil
}

// urlTarget reads the URLs that have a host.
func urlTarget(t target, rest string) (target, *issue) {
	bad := issuef("%s is not a URL", strconv.Quote(shorten(t.text)))
	if !strings.HasPrefix(rest, "//") {
		return t, bad.suggest(`"` + schemes[t.kind] + "://" + strings.TrimLeft(rest, "/") + `"`)
	}
	u, err := url.Parse(t.text)
	if err != nil || hasBlank(t.text) {
		return t, bad
	}
	var i *issue
	if t.port, i = urlPort(u, 0); i != nil {
		return t, i
	}
	t.hasPort = t.port != 0
	if h := u.Hostname(); h != "" {
		if t.host, i = serverName(h); i != nil {
			return t, i
		}
	}
	switch web := t.kind <= CheckHTTPS; {
	case u.User != nil:
		return t, issuef("a URL with a user or a password would show it everywhere; put an Authorization header into headers")
	case u.Fragment != "" || strings.HasSuffix(t.text, "#"):
		return t, issuef("the part behind # is never sent")
	case web:
		t.path = u.RequestURI()
	case u.Path != "" || u.RawQuery != "":
		return t, issuef("a %s check has no path", schemes[t.kind])
	}
	return t, nil
}

// webURL reads an http or https URL with a host.
func webURL(s string) (*url.URL, *issue) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || hasBlank(s) || u.Scheme != "http" && u.Scheme != "https" {
		i := issuef("%s is not an http or https URL", strconv.Quote(shorten(s)))
		if !strings.Contains(s, "://") && !hasBlank(s) {
			i.suggest(`"https://` + s + `"`)
		}
		return nil, i
	}
	_, i := urlPort(u, 0)
	return u, i
}

// hostPort is the Host header: host with a port where the URL has one.
func (t *target) hostPort(host string) string {
	if t.hasPort {
		return net.JoinHostPort(host, itoa(int(t.port)))
	}
	if strings.ContainsRune(host, ':') {
		return "[" + host + "]"
	}
	return host
}
