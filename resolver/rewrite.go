package resolver

import (
	"slices"

	"github.com/miekg/dns"

	"hard/internal/answer"
	"hard/internal/wire"
)

// rewriteOwn changes an upstream's reply to a question about a configured name
// (contract section 4): NXDOMAIN becomes NODATA, for the name exists (RFC 8020),
// SVCB and HTTPS lose what leads past our addresses, and addresses that are
// forwarded because all candidates are down live no longer than ours. It
// returns the new message, with fitRoom behind it, and keeps l.rep true to it;
// length 0: it cannot be done.
func (l *lane) rewriteOwn(fl *flight, buf []byte, n int) ([]byte, int) {
	qtype := fl.client.asked.Type
	rep := &l.rep
	address := qtype == wire.TypeA || qtype == wire.TypeAAAA
	if address {
		wire.CapTTLs(buf[:n], rep.QEnd, fl.entry.TTL)
		if !rep.Parse(buf[:n]) { // a name points into a TTL
			return nil, 0
		}
	}
	about := qtype == dns.TypeSVCB || qtype == dns.TypeHTTPS
	strip := (about || rep.Types&wire.HasSVCB != 0) && fl.entry.SVCB != answer.SVCBForward && rep.Rcode == wire.NoError
	if rep.Rcode != wire.NXDomain && !strip {
		return buf, n
	}
	var m dns.Msg
	if m.Unpack(buf[:n]) != nil {
		return nil, 0
	}
	if rep.Rcode == wire.NXDomain {
		denyTypeOnly(&m)
		explain(&m, "the upstream denies the name, which is configured here")
	} else if m.Truncated {
		m.Answer, m.Ns = nil, nil // the client asks over TCP
		keepOPT(&m)
	} else if about {
		stripHints(&m, fl.entry)
	} else {
		withoutSVCB(&m)
	}
	m.Compress = true
	b, err := m.PackBuffer(make([]byte, max(n, wire.MinUDP)+fitRoom))
	if err != nil {
		return nil, 0
	}
	n = len(b)
	b = append(b, make([]byte, fitRoom)...)
	if !rep.Parse(b[:n]) {
		return nil, 0
	}
	return b, n
}

// denyTypeOnly makes NODATA of NXDOMAIN. The proofs that the name does not
// exist go; the SOA stays, for its TTL.
func denyTypeOnly(m *dns.Msg) {
	m.Rcode = dns.RcodeSuccess
	m.AuthenticatedData = false
	m.Answer = nil
	m.Ns = slices.DeleteFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeSOA })
	keepOPT(m)
}

// keepOPT drops all additional records but the OPT.
func keepOPT(m *dns.Msg) {
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
}

// stripHints takes out of an SVCB or HTTPS answer all that leads a client to
// addresses other than our own: hints, aliases, foreign targets, records of
// other owners, additional records; and the signatures that no longer fit.
func stripHints(m *dns.Msg, e *answer.Entry) {
	owner := dns.CanonicalName(m.Question[0].Name)
	changed := false
	kept := m.Answer[:0]
	for _, rr := range m.Answer {
		s := svcbOf(rr)
		if s == nil || dns.CanonicalName(s.Hdr.Name) != owner || s.Priority == 0 || e.SVCB == answer.SVCBNoData {
			changed = true
			continue
		}
		if t := dns.CanonicalName(s.Target); t != "." && t != owner {
			changed = true
			continue
		}
		changed = withoutHints(s) || changed
		kept = append(kept, rr)
	}
	m.Answer = kept
	if changed {
		m.AuthenticatedData = false
	}
	keepOPT(m)
	if len(kept) > 0 {
		return
	}
	if changed {
		explain(m, "nothing is left without hints and aliases (svcb)")
	}
	m.Ns = slices.DeleteFunc(m.Ns, func(rr dns.RR) bool {
		return rr.Header().Rrtype != dns.TypeSOA || !dns.IsSubDomain(rr.Header().Name, owner)
	})
	if len(m.Ns) == 0 {
		m.Ns = []dns.RR{ownSOA(m.Question[0].Name, e.TTL)}
	}
}

// withoutSVCB takes SVCB and HTTPS records out of an answer to a question for another type, where nobody has asked for
// them.
func withoutSVCB(m *dns.Msg) {
	m.AuthenticatedData = false
	for _, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		*section = slices.DeleteFunc(*section, func(rr dns.RR) bool { return svcbOf(rr) != nil })
	}
}

// explain adds an extended error, for who wonders why the upstream says something else. Without an OPT it has no place.
func explain(m *dns.Msg, text string) {
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: text})
	}
}

func svcbOf(rr dns.RR) *dns.SVCB {
	switch x := rr.(type) {
	case *dns.SVCB:
		return x
	case *dns.HTTPS:
		return &x.SVCB
	}
	return nil
}

// withoutHints removes the address hints of s, also from its list of mandatory
// keys, and reports whether there were any.
func withoutHints(s *dns.SVCB) bool {
	isHint := func(k dns.SVCBKey) bool { return k == dns.SVCB_IPV4HINT || k == dns.SVCB_IPV6HINT }
	before := len(s.Value)
	s.Value = slices.DeleteFunc(s.Value, func(kv dns.SVCBKeyValue) bool { return isHint(kv.Key()) })
	for _, kv := range s.Value {
		if m, ok := kv.(*dns.SVCBMandatory); ok {
			m.Code = slices.DeleteFunc(m.Code, isHint)
		}
	}
	s.Value = slices.DeleteFunc(s.Value, func(kv dns.SVCBKeyValue) bool {
		m, ok := kv.(*dns.SVCBMandatory)
		return ok && len(m.Code) == 0
	})
	return len(s.Value) != before
}

// ownSOA is the SOA of a NODATA answer that no upstream gave one for.
func ownSOA(owner string, ttl uint32) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  ".", Mbox: ".", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

// repackOPT gives a reply, whose OPT stands before records that point over it,
// the OPT that its client is owed. No common server writes such.
func repackOPT(b []byte, a *wire.Asked, tr wire.Transport) ([]byte, int) {
	var m dns.Msg
	if m.Unpack(b) != nil {
		return b, 0
	}
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	rcode := m.Rcode
	if m.Rcode &= 0x0f; rcode != m.Rcode && !a.EDNS {
		m.Rcode = dns.RcodeServerFailure // as wire.Reply.FitOPT has it
	}
	m.Compress = true
	out, err := m.Pack()
	if err != nil {
		return b, 0
	}
	n := len(out)
	out = append(out, make([]byte, fitRoom)...)
	return out, a.AppendOPT(out, n, wire.Rcode(rcode), nil, tr)
}
