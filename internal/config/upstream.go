package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Default ports of upstreams: DNS, DNS over TLS (RFC 7858), HTTPS.
const (
	portDNS   = 53
	portTLS   = 853
	portHTTPS = 443
)

// resolvConf is the word for the host's own list of upstreams.
const resolvConf = "resolv.conf"

// parseServers reads a list of upstreams.
func parseServers(list []string) ([]Server, *issue) {
	if len(list) == 0 {
		return nil, issuef("the list is empty: nothing could be forwarded").suggest(`["resolv.conf"]`)
	}
	servers := make([]Server, 0, len(list))
	var issues *issue
	for n, text := range list {
		s, i := parseServer(strings.Clone(text))
		if i == nil && slices.ContainsFunc(servers, s.same) {
			i = issuef("%s is in the list twice", strconv.Quote(s.Text))
		}
		issues = issues.and(i.entry(n, len(list)))
		servers = append(servers, s)
	}
	return servers, issues
}

// same reports whether two entries mean the same upstream.
func (s Server) same(o Server) bool {
	s.Text, o.Text = "", ""
	return s == o
}

// parseServer reads one entry of a list of upstreams.
func parseServer(text string) (Server, *issue) {
	if rest, ok := strings.CutPrefix(text, resolvConf); ok && (rest == "" || rest[0] == ':') {
		return resolvConfServer(text, rest)
	}
	if hasUser(text) { // before anything that quotes it
		return Server{}, issuef("a user name in the URL of an upstream has no meaning")
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return addressServer(text, ServerPlain, text)
	}
	switch strings.ToLower(scheme) {
	case "tcp":
		return addressServer(text, ServerTCP, rest)
	case "tls":
		return tlsServer(text, rest)
	case "https":
		return httpsServer(text)
	case "udp":
		return Server{}, issuef("plain DNS has no scheme").suggest(`"` + rest + `"`)
	}
	i := issuef("the scheme %s is none of tcp, tls, https", strconv.Quote(shorten(scheme)))
	if s := nearest(scheme, []string{"tcp", "tls", "https"}); s != "" {
		i.suggest(`"` + s + "://" + rest + `"`)
	}
	return Server{}, i
}

func resolvConfServer(text, rest string) (Server, *issue) {
	if rest == "" {
		return Server{Text: text, Kind: ServerResolvConf}, nil
	}
	path := rest[1:]
	if !strings.HasPrefix(path, "/") {
		return Server{}, issuef("the path behind %q must begin with /", resolvConf+":")
	}
	return Server{Text: text, Kind: ServerResolvConf, Path: path}, nil
}

func addressServer(text string, kind ServerKind, address string) (Server, *issue) {
	ap, i := upstreamAddr(address, portDNS)
	return Server{Text: text, Kind: kind, Addr: ap}, i
}

func tlsServer(text, rest string) (Server, *issue) {
	address, name, _ := strings.Cut(rest, "#")
	ap, i := upstreamAddr(address, portTLS)
	if i != nil {
		return Server{}, i
	}
	if name == "" {
		return Server{}, issuef("%s lacks the name that the certificate must be for, behind a #", strconv.Quote(text)).
			suggest(`"` + text[:len(text)-len(rest)] + address + `#dns.example.net"`)
	}
	name, i = serverName(name)
	return Server{Text: text, Kind: ServerTLS, Addr: ap, ServerName: name}, i
}

// serverName reads the name a certificate is checked against: a host name or an address.
func serverName(s string) (string, *issue) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().String(), nil
	}
	name, i := hostName(s)
	if i != nil {
		i.message = fmt.Sprintf("server name %s: %s", strconv.Quote(shorten(s)), i.message)
	}
	return name, i
}

func httpsServer(text string) (Server, *issue) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || hasBlank(text) {
		return Server{}, issuef("%s is not a URL", strconv.Quote(shorten(text)))
	}
	name, i := serverName(u.Hostname())
	if i != nil {
		return Server{}, i
	}
	port, i := urlPort(u, portHTTPS)
	if i != nil {
		return Server{}, i
	}
	address := u.Fragment
	if address == "" {
		if net, err := netip.ParseAddr(name); err == nil {
			address = net.String()
		} else {
			return Server{}, issuef("%s lacks the address to connect to, behind a #: we cannot look names up before we have an upstream",
				strconv.Quote(text)).suggest(`"` + strings.TrimSuffix(text, "#") + `#192.0.2.53"`)
		}
	}
	ap, i := upstreamAddr(address, port)
	if i != nil {
		return Server{}, i
	}
	if u.Path == "" {
		return Server{}, issuef("%s has no path; RFC 8484 servers mostly have /dns-query", strconv.Quote(text))
	}
	u.Fragment, u.RawFragment, u.Scheme = "", "", "https"
	u.Host = strings.TrimSuffix(u.Host, ".")
	return Server{Text: text, Kind: ServerHTTPS, Addr: ap, ServerName: name, URL: u.String()}, nil
}

// urlPort returns the port of a URL, or the one given where it has none.
func urlPort(u *url.URL, port uint16) (uint16, *issue) {
	p := u.Port()
	if p == "" {
		return port, nil
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return 0, issuef("%s is not a port: from 1 to 65535", strconv.Quote(shorten(p)))
	}
	return uint16(n), nil
}

// hasBlank reports white space and control characters, which net/url lets through in places.
func hasBlank(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// upstreamAddr reads "IP", "IP:port", "[v6]" and "[v6]:port". A zone is allowed on a link-local
// address, as resolv.conf has it.
func upstreamAddr(s string, port uint16) (netip.AddrPort, *issue) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		bare := s
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			bare = s[1 : len(s)-1]
		}
		a, err := netip.ParseAddr(bare)
		if err != nil {
			return ap, notAddress(s)
		}
		ap = netip.AddrPortFrom(a, port)
	}
	a := ap.Addr().Unmap()
	switch {
	case ap.Port() == 0:
		return ap, issuef("%s: port 0 cannot be connected to", strconv.Quote(s))
	case a.IsUnspecified() || a.IsMulticast():
		return ap, issuef("%s is not the address of a server", a)
	case a.Zone() != "" && !a.IsLinkLocalUnicast():
		return ap, issuef("%s: only link-local addresses have a zone", a)
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		return ap, issuef("%s is a link-local address, which needs its interface behind a %%: %s%%eth0", a, a)
	}
	return netip.AddrPortFrom(a, ap.Port()), nil
}

// notAddress says what is wrong with the address of an upstream.
func notAddress(s string) *issue {
	host, _, _ := strings.Cut(s, ":")
	if h, i := hostName(host); i == nil && !looksLikeAddr(host) {
		if n := nearest(h, []string{resolvConf}); n != "" {
			return issuef("%s is neither an address nor %s", strconv.Quote(s), resolvConf).suggest(`"` + n + `"`)
		}
		return issuef("%s is a host name; an upstream is an IP address, since names cannot be looked up before there is one", strconv.Quote(s))
	}
	return issuef("%s is not an IP address with or without a port", strconv.Quote(shorten(s)))
}

// reaches reports whether a query sent to server would come back to a listener of ours.
func reaches(listen []netip.AddrPort, server netip.AddrPort) bool {
	return slices.ContainsFunc(listen, func(l netip.AddrPort) bool {
		if l.Port() != server.Port() || !server.IsValid() {
			return false
		}
		return l.Addr() == server.Addr().WithZone("") || l.Addr().IsUnspecified() && server.Addr().IsLoopback()
	})
}

// routeSuffix returns the canonical text of a route's suffix.
func routeSuffix(s string) (string, *issue) {
	if s == "." || s == "" {
		return "", issuef("the empty suffix is every name; its servers are those of [upstream]")
	}
	if rest, ok := strings.CutPrefix(s, "*."); ok {
		return "", issuef("a route covers its suffix and everything below it, without a wildcard").suggest(strconv.Quote(rest))
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return "", issuef("%s is an address; a reverse zone is written as in-addr.arpa or ip6.arpa", a)
	}
	lower := strings.ToLower(strings.TrimSuffix(s, "."))
	if strings.HasSuffix(lower, ".in-addr.arpa") || strings.HasSuffix(lower, ".ip6.arpa") {
		// Zones of less than an octet have a slash in their name (RFC 2317).
		if _, i := hostName(strings.ReplaceAll(lower, "/", "-")); i != nil {
			return "", i
		}
		return lower, nil
	}
	return hostName(s)
}
