package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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

// checkKeyNames is the order of checkKeys, for checkOptions.from.
var checkKeyNames = [...]string{
	"url", "port", "method", "headers", "status", "body", "send", "expect", "verify", "server_name",
	"ca_file", "source", "retries", "redirects", "args",
}

const urlKey = 0 // in checkKeyNames

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
	key[checkOptions]{"headers", nil, setHeaders}, // a secret, see headerIssue
	key[checkOptions]{"status", []any{"2xx"}, setStatus},
	text("body", "", payload(func(o *checkOptions) *string { return &o.body })),
	secret(text("send", "", payload(func(o *checkOptions) *string { return &o.send })), isString, "a string in quotes"),
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
	secret(texts("args", []any{}, func(list []string, o *checkOptions) *issue {
		o.args = nil
		for _, s := range list {
			o.args = append(o.args, strings.Clone(s))
		}
		return nil
	}), isStrings, "a list of strings"),
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
		return issuef("want a table such as { X-Probe = \"hard\" }")
	}
	o.headers = make([]Header, 0, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		value, ok := table[name].(string)
		i := issuef("want a string in quotes")
		if ok {
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
		return issuef("%s", hiddenText)
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
