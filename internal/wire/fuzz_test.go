package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuery has miekg/dns as oracle: what we call OK it can read, and we agree on every field; and what it
// can write anew we call OK.
func FuzzQuery(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var q Query
		before := bytes.Clone(b)
		v := q.Parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the packet was changed")
		}
		checkErrorReply(t, &q, v, b)
		if v == VerdictOK {
			agree(t, &q, b)
			forwardable(t, &q, b)
		}
		m := new(dns.Msg)
		if m.Unpack(b) != nil || len(m.Question) != 1 || m.Opcode != 0 || m.Response || oddForMiekg(m) {
			return
		}
		if packed, err := m.Pack(); err == nil && len(packed) <= MaxTCP {
			if v := q.Parse(packed); v != VerdictOK {
				t.Fatalf("verdict %d for %x, which is\n%v", v, packed, m)
			}
			agree(t, &q, packed)
		}
	})
}

// oddForMiekg reports what miekg/dns takes and we rightly do not: OPTs that are too many, misplaced, owned by another
// name, of another version, or with a cookie of a wrong length.
func oddForMiekg(m *dns.Msg) bool {
	opts := 0
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			o, ok := rr.(*dns.OPT)
			if !ok {
				continue
			}
			opts++
			if i != 2 || o.Hdr.Name != "." || o.Version() != 0 {
				return true
			}
			for _, option := range o.Option {
				if c, ok := option.(*dns.EDNS0_COOKIE); ok {
					if n := len(c.Cookie) / 2; n != 8 && (n < 16 || n > 40) {
						return true
					}
				}
			}
		}
	}
	return opts > 1
}

// agree compares q with what miekg/dns reads in the question and the OPT. Records it may not be able to read (RDATA of a
// form that nobody here looks at) are cut off first.
func agree(t *testing.T, q *Query, b []byte) {
	t.Helper()
	question := append(append(bytes.Clone(b[:4]), 0, 1, 0, 0, 0, 0, 0, 0), b[HeaderLen:q.QEnd]...)
	m := new(dns.Msg)
	if err := m.Unpack(question); err != nil {
		t.Fatalf("miekg/dns does not take the question of %x: %v", b, err)
	}
	mq := m.Question[0]
	key, err := AppendName(nil, mq.Name)
	if err != nil || !bytes.Equal(key, q.Name()) || mq.Qtype != q.Type || mq.Qclass != q.Class {
		t.Fatalf("%q %d %d, miekg/dns has %v (%v)", q.Name(), q.Type, q.Class, mq, err)
	}
	if q.Hash != Hash(key) {
		t.Fatal("hashes differ")
	}
	if text := string(AppendText(nil, q.Name())); dns.CanonicalName(text) != dns.CanonicalName(mq.Name) {
		again, err := AppendName(nil, text)
		if err != nil || !bytes.Equal(again, key) {
			t.Fatalf("%q in text is %s", key, text)
		}
	}
	if q.EDNS != (q.OPT != 0) {
		t.Fatal("EDNS without an OPT, or the reverse")
	}
	if q.EDNS {
		agreeOPT(t, q, b)
	}
}

func agreeOPT(t *testing.T, q *Query, b []byte) {
	t.Helper()
	rr, end, err := dns.UnpackRR(b, int(q.OPT))
	if err != nil || end != int(q.OPT+q.OPTLen) {
		// miekg/dns reads the data of options; some lengths that nobody here cares about are errors there.
		if options := b[q.OPT+optFixed : q.OPT+q.OPTLen]; err != nil && wholeOptions(options) && len(options) > 0 {
			return
		}
		t.Fatalf("miekg/dns does not take the OPT of %x: %v", b, err)
	}
	o, ok := rr.(*dns.OPT)
	if !ok || o.Hdr.Name != "." || max(o.UDPSize(), 512) != q.Size || o.Do() != q.DO || o.Version() != 0 {
		t.Fatalf("%+v, miekg/dns has %v", q.Asked, rr)
	}
	var options Options
	for _, option := range o.Option {
		switch option.Option() {
		case dns.EDNS0SUBNET:
			options |= HasECS
		case dns.EDNS0COOKIE:
			options |= HasCookie
		case dns.EDNS0TCPKEEPALIVE:
			options |= HasKeepalive
		case dns.EDNS0PADDING:
			options |= HasPadding
		}
	}
	if options != q.Options {
		t.Fatalf("options %b, miekg/dns has %b", q.Options, options)
	}
}

// forwardable checks what goes upstream.
func forwardable(t *testing.T, q *Query, b []byte) {
	t.Helper()
	buf := bytes.Clone(b)
	n := q.ForwardOPT(buf)
	if n == 0 {
		return
	}
	var again Query
	if v := again.Parse(buf[:n]); v != VerdictOK || int(again.End) != n || !bytes.Equal(again.Name(), q.Name()) ||
		again.EDNS != q.EDNS || again.DO != q.DO || again.Options&(HasCookie|HasKeepalive|HasPadding) != 0 || again.EDNS && again.Size != MaxUDP {
		t.Fatalf("verdict %d for %x, made of %x", v, buf[:n], b)
	}
}

// checkErrorReply checks the reply to whatever came.
func checkErrorReply(t *testing.T, q *Query, v Verdict, b []byte) {
	t.Helper()
	if v == VerdictDrop {
		if len(b) >= HeaderLen && len(b) <= MaxTCP && b[2]&0x80 == 0 {
			t.Fatal("a query was dropped")
		}
		return
	}
	buf := make([]byte, max(len(b), MinUDP))
	copy(buf, b)
	raw := buf[:q.Error(buf, ServFail, EDEOption(22, "x"), Transport{})]
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("miekg/dns does not take %x: %v", raw, err)
	}
	if !m.Response || m.Id != be16(b) || len(raw) > MinUDP || (m.IsEdns0() != nil) != q.EDNS ||
		len(m.Question) == 1 != (q.QEnd != 0) || !bytes.HasPrefix(raw[HeaderLen:], b[HeaderLen:max(q.QEnd, HeaderLen)]) {
		t.Fatalf("%x answered with %x", b, raw)
	}
}

// FuzzReply: what miekg/dns can read and write anew we call whole, and agree on it; what we call whole can be walked, fitted
// and aged without harm.
func FuzzReply(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Reply
		if r.Parse(b) {
			walkable(t, &r, b)
			for _, a := range []Asked{{Size: 512}, {Size: 1232, EDNS: true, DO: true, Options: HasKeepalive}} {
				a.QEnd = uint16(r.QEnd)
				fitted(t, r, b, &a)
			}
		}
		m := new(dns.Msg)
		if m.Unpack(b) != nil || len(m.Question) > 1 || oddForMiekg(m) || noData(m) {
			return
		}
		for _, m.Compress = range []bool{false, true} {
			packed, err := m.Pack()
			if err != nil || len(packed) > MaxTCP || cutData(m) {
				return
			}
			if !r.Parse(packed) {
				t.Fatalf("not whole: %x, which is\n%v", packed, m)
			}
			if int(r.Counts[0]) != len(m.Answer) || int(r.Counts[1]) != len(m.Ns) || int(r.Counts[2]) != len(m.Extra) ||
				r.End != len(packed) || (m.IsEdns0() != nil) != (r.OPT != 0) || int(r.Rcode) != m.Rcode {
				t.Fatalf("%+v, miekg/dns has\n%v", r, m)
			}
		}
	})
}

// noData reports whether a record has no RDATA at all: miekg/dns takes that for any type, for the sake of updates, and
// writes something else.
func noData(m *dns.Msg) bool {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT && rr.Header().Rdlength == 0 {
				return true
			}
		}
	}
	return false
}

// cutData reports whether a record's RDATA lacks fields: miekg/dns takes that, for the sake of updates, but not in text.
func cutData(m *dns.Msg) bool {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			if again, err := dns.NewRR(rr.String()); err != nil || again == nil {
				return true
			}
		}
	}
	return false
}

// walkable checks that the iterator sees what Parse has seen.
func walkable(t *testing.T, r *Reply, b []byte) {
	t.Helper()
	var rec Record
	var seen [3]uint16
	end, least := r.QEnd, uint32(NoTTL)
	for w := WalkRecords(b, r.QEnd); w.Next(&rec); {
		if rec.Owner != end {
			t.Fatalf("a gap before %d", rec.Owner)
		}
		if _, behind, ok := expand(nil, b, rec.Owner); !ok || behind != rec.Fixed {
			t.Fatalf("owner at %d", rec.Owner)
		}
		seen[rec.Section]++
		end = rec.Data + rec.Len
		if rec.Type != TypeOPT {
			least = min(least, ttl(rec.TTL))
		}
	}
	if seen != r.Counts || end != r.End || least != r.MinTTL {
		t.Fatalf("walked %v to %d, least TTL %d: %+v", seen, end, least, r)
	}
	capped := bytes.Clone(b)
	CapTTLs(capped, r.QEnd, 5)
	AgeTTLs(capped, r.QEnd, 2, 1)
	var again Reply
	if !again.Parse(capped) {
		return // a name pointed into a TTL, which no server writes: the forwarder parses again
	}
	if again.Counts[0]+again.Counts[1] > 0 && again.MinTTL > 5 {
		t.Fatalf("%+v after capping", again)
	}
}

// fitted checks what goes to the client.
func fitted(t *testing.T, r Reply, b []byte, a *Asked) {
	t.Helper()
	tr := Transport{TCP: true, Keepalive: 100}
	ede := EDEOption(3, "x")
	buf := make([]byte, len(b)+64)
	copy(buf, b)
	n := r.FitOPT(buf, a, ede, tr)
	if n == 0 || n > MaxTCP {
		return
	}
	var again Reply
	records := func(r *Reply) int {
		sum := int(r.Counts[0]) + int(r.Counts[1]) + int(r.Counts[2])
		if r.OPT != 0 {
			sum--
		}
		return sum
	}
	if !again.Parse(buf[:n]) || again.End != n || (again.OPT != 0) != a.EDNS || records(&again) != records(&r) {
		t.Fatalf("%+v: %x made of %x", again, buf[:n], b)
	}
}

// FuzzName: presentation form and wire form agree with miekg/dns, and with each other.
func FuzzName(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		name, err := AppendName(nil, text)
		buf := make([]byte, 300)
		n, theirs := dns.PackDomainName(dns.Fqdn(text), buf, 0, nil, false)
		if err != nil {
			return // we are stricter: see TestAppendName
		}
		// Behind an octet above 127 its Fqdn counts a final dot's backslashes wrongly, so it is no oracle there.
		ascii := !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
		if ascii && theirs != nil {
			t.Fatalf("%q: miekg/dns says %v", text, theirs)
		}
		if ascii && !EqualFold(name, buf[:n]) {
			t.Fatalf("%q: %x, miekg/dns has %x", text, name, buf[:n])
		}
		shown := string(AppendText(nil, name))
		again, err := AppendName(nil, shown)
		if err != nil || !bytes.Equal(again, name) {
			t.Fatalf("%q is shown as %s, which is %x (%v)", text, shown, again, err)
		}
		for i := range len(shown) {
			if shown[i] <= ' ' || shown[i] >= 0x7f {
				t.Fatalf("%q is shown as %q", text, shown)
			}
		}
		msg := append(make([]byte, HeaderLen), name...)
		if end, ok := SkipName(msg, HeaderLen); !ok || end != len(msg) {
			t.Fatalf("%q: SkipName %d, %v", text, end, ok)
		}
	})
}
