package answer

import (
	"net/netip"
	"strings"

	"hard/internal/wire"
)

// specialKind says how the types of a special-use name are answered. Nothing of these names is ever forwarded.
type specialKind uint8

const (
	notSpecial specialKind = iota
	hosts                  // A and AAAA from the sets, PTR if there is one; NODATA for all other types
	nothing                // NXDOMAIN: of a zone served here
	barred                 // NXDOMAIN: nobody may ask upstream for it, which an extended error tells
)

// denial is how a name without records of the type is answered.
func (k specialKind) denial() (wire.Rcode, []byte) {
	switch k {
	case nothing:
		return wire.NXDomain, nil
	case barred:
		return wire.NXDomain, edeSpecial
	}
	return wire.NoError, nil
}

// specialTTL is the TTL of special-use names in seconds: short enough for a later configuration to be seen soon.
const specialTTL = 600

type special struct {
	name  string
	entry *Entry
}

// specialNames are the special-use names that a host's resolver answers itself (R93 to R96). test., local., home.arpa.,
// internal., private reverse zones and use-application-dns.net. are forwarded: companies use them.
func specialNames() []special {
	localhost := specialEntry(hosts)
	localhost.add(&SetSpec{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, EDE: NoEDE}, wire.TypeA)
	localhost.add(&SetSpec{Addrs: []netip.Addr{netip.IPv6Loopback()}, EDE: NoEDE}, wire.TypeAAAA)

	ptr := specialEntry(hosts)
	ptr.rest = &rest{ptr: appendFixed(nil, ownerIsName, wire.TypePTR, specialTTL, len(localhostName))}
	ptr.rest.ptr = append(ptr.rest.ptr, localhostName...)

	empty := specialEntry(hosts)
	none, bar := specialEntry(nothing), specialEntry(barred)
	zeros := strings.Repeat("0.", 31) + "ip6.arpa"
	loopback6, unspecified6 := "1."+zeros, "0."+zeros
	return []special{
		{"localhost", localhost}, {"*.localhost", localhost}, // RFC 6761, section 6.3
		{"invalid", bar}, {"*.invalid", bar}, // RFC 6761, section 6.4
		{"onion", bar}, {"*.onion", bar}, // RFC 7686, section 2
		// RFC 6303, section 4.2. The two names between the zone and its PTR exist, without records.
		{"127.in-addr.arpa", empty}, {"*.127.in-addr.arpa", none}, {"1.0.0.127.in-addr.arpa", ptr},
		{"0.127.in-addr.arpa", empty}, {"0.0.127.in-addr.arpa", empty},
		{loopback6, ptr}, {"*." + loopback6, none}, // RFC 6303, section 4.3
		// Addresses that no host has: "this network", broadcast, unspecified (RFC 6303, sections 4.2 and 4.3).
		{"0.in-addr.arpa", empty}, {"*.0.in-addr.arpa", none},
		{"255.255.255.255.in-addr.arpa", empty}, {"*.255.255.255.255.in-addr.arpa", none},
		{unspecified6, empty}, {"*." + unspecified6, none},
		// RFC 9462, section 6.4: a client must not be led past us to an upstream's encrypted resolver.
		{"resolver.arpa", empty}, {"*.resolver.arpa", empty},
	}
}

// localhostName is "localhost." on the wire.
const localhostName = "\x09localhost\x00"

func specialEntry(kind specialKind) *Entry { return &Entry{TTL: specialTTL, special: kind} }
