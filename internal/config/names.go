package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Limits of RFC 1035 section 2.3.4, in octets of text without the final dot.
const (
	maxName  = 253
	maxLabel = 63
)

// profile maps and checks names as a look-up does (UTS #46, RFC 5891 section 5). The letters that
// ASCII labels are made of are checked here, since underscores are in use.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// specialNames are answered by every resolver alike and never belong to anybody (RFC 6761 section 6.3 and 6.4,
// RFC 7686).
var specialNames = []string{"localhost", "invalid", "onion"}

// canonicalName returns a name that we answer in canonical text: lower case, A-labels, no final
// dot. A leading "*." stays.
func canonicalName(s string) (string, *issue) {
	rest, wildcard := strings.CutPrefix(s, "*.")
	name, i := hostName(rest)
	if i != nil {
		if rest == "*" || s == "*" {
			i = issuef(`"*" alone would be every name there is; a wildcard is "*." and a name`)
		}
		return "", i
	}
	if i := special(name); i != nil {
		return "", i
	}
	if wildcard {
		if len(name)+2 > maxName {
			return "", issuef("the name is longer than %d characters", maxName)
		}
		return "*." + name, nil
	}
	return name, nil
}

// special refuses the names that no configuration can define.
func special(name string) *issue {
	tail := name[strings.LastIndexByte(name, '.')+1:]
	for _, s := range specialNames {
		if tail == s {
			return issuef("names in .%s have a fixed meaning and are never looked up (RFC 6761, RFC 7686)", s)
		}
	}
	return nil
}

// hostName returns the canonical text of a host name. It may be s itself.
func hostName(s string) (string, *issue) {
	if s == "" || s == "." {
		return "", issuef("the name is empty")
	}
	if !isPlain(s) {
		var i *issue
		if s, i = convert(s); i != nil {
			return "", i
		}
	}
	s = strings.TrimSuffix(s, ".")
	if len(s) > maxName {
		return "", issuef("the name is longer than %d characters", maxName)
	}
	last := s
	for at := 0; at <= len(s); at += len(last) + 1 {
		last = s[at:]
		if dot := strings.IndexByte(last, '.'); dot >= 0 {
			last = last[:dot]
		}
		if i := checkLabel(last); i != nil {
			return "", i
		}
	}
	if allDigits(last) {
		return "", issuef("%s is not a host name: it ends in a number", strconv.Quote(s))
	}
	return s, nil
}

// isPlain reports whether s needs no conversion: lower-case ASCII without A-labels.
func isPlain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x80 || c >= 'A' && c <= 'Z' || c == '-' && strings.HasPrefix(s[i:], "--") {
			return false
		}
	}
	return true
}

// convert folds case, turns U-labels into A-labels and checks the A-labels it finds. Labels of
// ASCII without "xn--" are only folded: names that IDNA would not allow are in use.
func convert(s string) (string, *issue) {
	s = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".").Replace(s) // dots of other scripts, UTS #46
	labels := strings.Split(s, ".")
	for n, l := range labels {
		lower := strings.ToLower(l)
		if isASCII(l) && !strings.HasPrefix(lower, "xn--") {
			labels[n] = lower
			continue
		}
		a, err := profile.ToASCII(lower)
		if err != nil || a == "" {
			return "", issuef("%s is not a valid internationalised label (RFC 5891)", strconv.Quote(shorten(l)))
		}
		labels[n] = a
	}
	return strings.Join(labels, "."), nil
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// checkLabel checks one label of lower-case ASCII: letters, digits, hyphens, and underscores as
// service names have them.
func checkLabel(l string) *issue {
	switch {
	case l == "":
		return issuef("the name has an empty label (two dots in a row, or one in front)")
	case len(l) > maxLabel:
		return issuef("the label %s is longer than %d characters", strconv.Quote(shorten(l)), maxLabel)
	case l[0] == '-' || l[len(l)-1] == '-':
		return issuef("the label %s begins or ends with a hyphen", strconv.Quote(l))
	}
	for i := 0; i < len(l); i++ {
		switch c := l[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_':
		case c == '*':
			return issuef(`"*" may only be the whole first label, and only of a configured name`)
		case c == ' ' || c == '\t':
			return issuef("a name has no spaces")
		default:
			return issuef("%s cannot stand in a name", quoteByte(c))
		}
	}
	return nil
}

func quoteByte(c byte) string { return strconv.QuoteToASCII(string(rune(c))) }

func allDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// parseAddr reads an address that a client can be sent to.
func parseAddr(s string) (netip.Addr, *issue) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, issuef("%s is not an IP address", strconv.Quote(shorten(s)))
	}
	a = a.Unmap()
	switch {
	case a.Zone() != "":
		return a, issuef("an address with a zone cannot be told in DNS")
	case a.IsUnspecified():
		return a, issuef("%s is no address of a host", a)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return a, issuef("%s is a multicast or broadcast address", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return a, issuef("the link-local address %s means nothing without a zone, and DNS has none", a)
	}
	return a, nil
}

// looksLikeAddr reports whether s was meant as an address: for the better message.
func looksLikeAddr(s string) bool {
	numeric := s != ""
	for i := 0; i < len(s); i++ {
		if s[i] == ':' {
			return true
		}
		numeric = numeric && (s[i] >= '0' && s[i] <= '9' || s[i] == '.')
	}
	return numeric
}

// candidateAddress reads the address of a candidate: an IP address or a host name.
func candidateAddress(s string) (addr netip.Addr, host string, i *issue) {
	switch {
	case strings.IndexByte(s, '/') >= 0 && strings.Contains(s, "://"):
		return addr, "", issuef("%s is a URL; a candidate is an address or a host name, the URL belongs in check", strconv.Quote(shorten(s)))
	case strings.HasPrefix(s, "["):
		i = issuef("an address stands without brackets and without a port; the port belongs in check")
		if inner, _, ok := strings.Cut(s[1:], "]"); ok {
			i.suggest(`"` + inner + `"`)
		}
		return addr, "", i
	case looksLikeAddr(s):
		if addr, i = parseAddr(s); i == nil {
			return addr, "", nil
		}
		if h, port, ok := strings.Cut(s, ":"); ok && !strings.Contains(port, ":") {
			return addr, "", issuef("%s has a port; the port belongs in check", strconv.Quote(shorten(s))).suggest(`"` + h + `"`)
		}
		return addr, "", i
	}
	host, i = hostName(s)
	if i == nil && special(host) != nil {
		i = issuef("%s cannot be looked up at an upstream; write the address", strconv.Quote(host))
	}
	return addr, host, i
}

// parseAddrPort reads "IP:port" with a hint for what is often written instead. It neither looks at
// the port nor at the kind of the address.
func parseAddrPort(s, port string) (netip.AddrPort, *issue) {
	ap, err := netip.ParseAddrPort(s)
	if err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	i := issuef("%s is not IP:port", strconv.Quote(shorten(s)))
	host, p, ok := strings.Cut(s, ":")
	switch a, err := netip.ParseAddr(strings.Trim(s, "[]")); {
	case err == nil && a.Is4():
		i.suggest(fmt.Sprintf(`"%s:%s"`, a, port))
	case err == nil:
		i.suggest(fmt.Sprintf(`"[%s]:%s"`, a, port))
	case ok && strings.EqualFold(host, "localhost") && allDigits(p):
		i.suggest(fmt.Sprintf(`"127.0.0.1:%s"`, p))
	case strings.HasPrefix(s, ":") && allDigits(p):
		i.suggest(fmt.Sprintf(`"127.0.0.1:%s"`, p))
	}
	return ap, i
}
