package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
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

// schemes are the kinds of checks as a URL begins, by CheckKind.
var schemes = [...]string{
	CheckHTTP: "http", CheckHTTPS: "https", CheckTCP: "tcp", CheckTLS: "tls", CheckDNS: "dns", CheckExec: "exec", CheckStatic: "static",
}

// String returns the scheme of the check's URL.
func (k CheckKind) String() string { return schemes[k] }

// parseTarget reads a check's URL.
func parseTarget(s string) (target, *issue) {
	if hasUser(s) { // before anything that quotes it
		return target{}, issuef("a URL with a user or a password would show it everywhere; put an Authorization header into headers")
	}
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
	if prog, _, ok := strings.Cut(rest, " "); ok {
		return t, issuef("there is no shell: arguments go into args").
			suggest(fmt.Sprintf(`{ url = "exec:%s", args = ["..."] }`, prog)) // not as they are: they may be secret
	}
	t.path = rest
	return t, nil
}

func dnsTarget(t target, rest string) (target, *issue) {
	name, typ, ok := strings.Cut(rest, "/")
	if !ok || strings.HasPrefix(rest, "/") {
		i := issuef("want dns:NAME/TYPE, asked of the endpoint itself")
		if name := strings.Trim(rest, "/"); name != "" {
			i.suggest(`"dns:` + name + `/SOA"`)
		}
		return t, i
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
	case u.Fragment != "" || strings.HasSuffix(t.text, "#"):
		return t, issuef("the part behind # is never sent")
	case web:
		t.path = u.RequestURI()
	case u.Path != "" || u.RawQuery != "":
		return t, issuef("a %s check has no path", schemes[t.kind])
	}
	return t, nil
}

// webURL reads an http or https URL with a host. Its messages don't show it: see secrets.go.
func webURL(s string) (*url.URL, *issue) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || hasBlank(s) || u.Scheme != "http" && u.Scheme != "https" {
		i := issuef("this is not an http or https URL")
		if !strings.Contains(s, "://") && !hasBlank(s) {
			i.suggest(`"https://..."`)
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
