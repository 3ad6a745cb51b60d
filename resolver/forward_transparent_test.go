package resolver

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/wire"
)

// R48, R49, R50, R52: records of every kind, their order and sections arrive
// as they were sent, compressed or not.
func TestR48RecordsPassUnchanged(t *testing.T) {
	records := []string{
		"w.example. 300 IN CNAME x.example.", "x.example. 300 IN CNAME y.example.", "y.example. 5 IN A 10.0.0.1",
		"y.example. 300 IN TYPE65280 \\# 5 c00c00ff01", "y.example. 7 IN TXT \"a\\000b\"", "y.example. 9 IN MX 5 mail.example.",
		"y.example. 300 IN RRSIG A 13 2 300 20300101000000 20200101000000 1 example. AAAA", "y.example. 300 CH TXT \"c\"",
	}
	for _, compress := range []bool{false, true} {
		u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
			return [][]byte{replyTo(q, func(m *dns.Msg) {
				m.Answer = nil
				for _, s := range records {
					m.Answer = append(m.Answer, mustRR(s))
				}
				m.Ns = []dns.RR{mustRR("example. 3600 IN NS ns.example.")}
				m.Extra = append([]dns.RR{mustRR("ns.example. 3600 IN A 192.168.1.1")}, m.Extra...) // R66: private addresses pass
				m.Authoritative, m.Compress = true, compress
			})}
		})
		f := forwardTo(t, u)
		for _, tcp := range []bool{false, true} {
			r := ask(t, f, withOPT(question("w.example.", dns.TypeA)), tcp)
			if len(r.Answer) != len(records) || len(r.Ns) != 1 || len(r.Extra) != 2 || !r.Authoritative {
				t.Fatalf("compress %v tcp %v: %v", compress, tcp, r)
			}
			for i, s := range records {
				if want := mustRR(s).String(); r.Answer[i].String() != want {
					t.Errorf("record %d is %s, want %s", i, r.Answer[i], want)
				}
			}
		}
	}
}

func mustRR(s string) dns.RR {
	rr, err := dns.NewRR(s)
	if err != nil {
		panic(err)
	}
	return rr
}

// R51, R53: negative answers and errors arrive as they are.
func TestR51NegativeAnswersPass(t *testing.T) {
	for _, rcode := range []int{dns.RcodeNameError, dns.RcodeSuccess, dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		for _, soa := range []bool{true, false} {
			u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
				return [][]byte{replyTo(q, func(m *dns.Msg) {
					m.Rcode, m.Answer = rcode, nil
					if soa {
						m.Ns = []dns.RR{mustRR("example. 300 IN SOA a. b. 1 2 3 4 5")}
					}
				})}
			})
			r := ask(t, forwardTo(t, u), question("n.example.", dns.TypeA), false)
			if r.Rcode != rcode || len(r.Answer) != 0 || (len(r.Ns) == 1) != soa {
				t.Errorf("rcode %d soa %v: %v", rcode, soa, r)
			}
		}
	}
}

// Contract section 4, R5, R14, R15, R20, R31, R33, R34, R54, R63: what reaches the upstream; the
// letter case is the client's, with no 0x20 of ours.
func TestWhatGoesUpstream(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	q := question("eXample.org.", 65280)
	q.CheckingDisabled, q.AuthenticatedData = true, true
	q.SetEdns0(4096, true)
	o := q.IsEdns0()
	o.Option = []dns.EDNS0{
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID},
		&dns.EDNS0_PADDING{Padding: make([]byte, 9)}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2, 3}},
	}
	b, _ := q.Pack()
	r := wait(t, send(t, f, append(b, "smuggled"...), false, nil))
	if r.Question[0] != q.Question[0] || !r.CheckingDisabled || !r.RecursionAvailable {
		t.Errorf("reply: %v", r)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var up dns.Msg
	if err := up.Unpack(u.seen[0]); err != nil || bytes.Contains(u.seen[0], []byte("smuggled")) {
		t.Fatalf("upstream got %x: %v", u.seen[0], err)
	}
	uo := up.IsEdns0()
	if !up.CheckingDisabled || !up.AuthenticatedData || !up.RecursionDesired || up.Question[0] != q.Question[0] || uo == nil {
		t.Fatalf("upstream got %v", up)
	}
	if uo.UDPSize() != 1232 || !uo.Do() || len(uo.Option) != 2 || uo.Option[0].Option() != dns.EDNS0NSID || uo.Option[1].Option() != 65001 {
		t.Errorf("upstream got OPT %v", uo)
	}
}

// R13, R64: a query that no OPT of ours fits into, as records behind its own can't be read, is FORMERR, and not asked.
func TestR13BrokenBehindOPT(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	q := withOPT(question("w.example.", dns.TypeA))
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	b[11]++
	b = append(b, "\x00\x00\x41\x00\x01\x00\x00\x00\x00\x00\x040000"...) // HTTPS; its name has a label of 48 octets
	if r := wait(t, send(t, f, b, false, nil)); r.Rcode != dns.RcodeFormatError || ede(r) != 0 || len(r.Question) != 1 {
		t.Error(r)
	}
	if r := ask(t, f, q, false); len(r.Answer) != 1 {
		t.Errorf("the next one: %v", r)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) != 1 {
		t.Errorf("%d queries reached the upstream", len(u.seen))
	}
}

// R16: an upstream that changes the letter case does no harm.
func TestR16LetterCase(t *testing.T) {
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{lowerQuestion(replyTo(q, nil))}
	})
	r := ask(t, forwardTo(t, u), question("MiXed.Example.", dns.TypeA), false)
	if r.Question[0].Name != "MiXed.Example." || r.Answer[0].Header().Name != "MiXed.Example." {
		t.Errorf("reply: %v", r)
	}
}

func lowerQuestion(m []byte) []byte {
	end, _ := wire.SkipName(m, 12)
	copy(m[12:end], bytes.ToLower(m[12:end]))
	return m
}

// R38, R40: what is too long for a UDP client comes with TC and whole records
// only, and TC from upstream is passed on; over TCP all of it arrives.
func TestR40Truncation(t *testing.T) {
	big := func(q []byte, tcp bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) {
			for i := range 100 {
				m.Answer = append(m.Answer, mustRR(fmt.Sprintf("%s 1 IN TXT \"%d %s\"", m.Question[0].Name, i, strings.Repeat("x", 80))))
			}
		})}
	}
	cut := func(q []byte, tcp bool) [][]byte {
		if tcp {
			return big(q, tcp)
		}
		return [][]byte{replyTo(q, func(m *dns.Msg) { m.Truncated = true })}
	}
	half := func(q []byte, tcp bool) [][]byte {
		if tcp {
			return big(q, tcp)
		}
		b := replyTo(q, func(m *dns.Msg) { m.Truncated = true })
		return [][]byte{b[:len(b)-5]}
	}
	for name, h := range map[string]func([]byte, bool) [][]byte{"long": big, "TC": cut, "TC in a record": half} {
		f := forwardTo(t, newFarEnd(t, h))
		if r := ask(t, f, question("t.example.", dns.TypeTXT), false); !r.Truncated || r.Rcode != 0 {
			t.Errorf("%s: %v", name, r)
		}
		if r := ask(t, f, question("t.example.", dns.TypeTXT), true); r.Truncated || len(r.Answer) != 101 {
			t.Errorf("%s over TCP: %d records", name, len(r.Answer))
		}
	}
}

// R28, R32, R33: an OPT if and only if the client sent one, whatever upstream does.
func TestR28OPT(t *testing.T) {
	for name, change := range map[string]func(*dns.Msg){
		"none":   func(m *dns.Msg) { m.Extra = nil },
		"always": func(m *dns.Msg) { m.Extra = nil; m.SetEdns0(4096, true) },
		"cookie": func(m *dns.Msg) { addCookie(m) },
		"in front": func(m *dns.Msg) {
			m.Extra = append(m.Extra, mustRR("extra.w.example. 1 IN A 1.2.3.4"), mustRR("y.extra.w.example. 1 IN A 1.2.3.4"))
		},
	} {
		f := forwardTo(t, newFarEnd(t, func(q []byte, _ bool) [][]byte { return [][]byte{replyTo(q, change)} }))
		r := ask(t, f, withOPT(question("w.example.", dns.TypeA)), false)
		o := r.IsEdns0()
		if o == nil || o.UDPSize() != 1232 || o.Version() != 0 || !o.Do() || len(o.Option) != 0 {
			t.Errorf("%s, with: %v", name, r)
		}
		if r = ask(t, f, question("w.example.", dns.TypeA), false); r.IsEdns0() != nil || len(r.Answer) != 1 {
			t.Errorf("%s, without: %v", name, r)
		}
	}
}

func addCookie(m *dns.Msg) {
	if o := m.IsEdns0(); o != nil {
		o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "01020304050607080910111213141516"})
	}
}

// R56: equal questions share one upstream query; each asker has its own ID,
// case, size and OPT. Unequal ones (DO, CD, type) do not.
func TestR56Coalescing(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		<-release
		return answerA(q, false)
	})
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	o := optionsTo(u)
	o.AttemptTimeout, o.TotalTimeout = 5*time.Second, 10*time.Second
	f := testForwarder(t, o)
	var chans []<-chan []byte
	var asked []*dns.Msg
	for i := range 50 {
		q := question("shared.example.", dns.TypeA)
		q.Id = uint16(1000 + i)
		if i%2 == 1 {
			q.Question[0].Name = "SHARED.example."
		}
		b, _ := q.Pack()
		asked = append(asked, q)
		chans = append(chans, send(t, f, b, false, nil))
	}
	other := question("shared.example.", dns.TypeA)
	other.CheckingDisabled = true
	b, _ := other.Pack()
	chans = append(chans, send(t, f, b, false, nil))
	asked = append(asked, other)
	once.Do(func() { close(release) })
	for i, ch := range chans {
		if r := wait(t, ch); r.Id != asked[i].Id || r.Question[0] != asked[i].Question[0] || len(r.Answer) != 1 {
			t.Errorf("asker %d: %v", i, r)
		}
	}
	if n := u.queries.Load(); n != 2 {
		t.Errorf("%d upstream queries, want 2", n)
	}
}

// R7: AD passes only if asked for.
func TestR7AD(t *testing.T) {
	f := forwardTo(t, newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) { m.AuthenticatedData = true })}
	}))
	if r := ask(t, f, question("a.example.", dns.TypeA), false); r.AuthenticatedData {
		t.Error("AD without AD or DO in the query")
	}
	if r := ask(t, f, withOPT(question("a.example.", dns.TypeA)), false); !r.AuthenticatedData {
		t.Error("no AD with DO in the query")
	}
}

// R65: TTLs with the top bit set count as 0.
func TestR65TopBitTTL(t *testing.T) {
	f := forwardTo(t, newFarEnd(t, func(q []byte, _ bool) [][]byte {
		return [][]byte{replyTo(q, func(m *dns.Msg) { m.Answer[0].Header().Ttl = 1<<31 + 5 })}
	}))
	if r := ask(t, f, question("a.example.", dns.TypeA), false); r.Answer[0].Header().Ttl != 0 {
		t.Errorf("TTL is %d", r.Answer[0].Header().Ttl)
	}
}

// The plain path allocates nothing for a forward.
func TestPlainForwardAllocatesNothing(t *testing.T) {
	// Nobody reads at the far end: what that allocates would be counted too.
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := testForwarder(t, UpstreamOptions{Servers: []Server{{Addr: c.LocalAddr().(*net.UDPAddr).AddrPort()}}})
	msg, _ := question("alloc.example.", dns.TypeA).Pack()
	var q wire.Query
	q.Parse(msg)
	l := f.laneOf(q.Hash)
	reply := make([]byte, 1500)
	r := &request{msg: msg, q: &q, from: testAsker(false, func([]byte) {})}
	one := func() {
		f.query(r)
		f.flush()
		l.mu.Lock()
		at := l.newest.attempts
		m := at.message()
		n := copy(reply, m)
		reply[2] |= 0x80
		l.reply(at, reply, n, false, f.now(), false)
		l.mu.Unlock()
	}
	for range 600 { // sockets and tables grow to their size
		one()
	}
	if n := testing.AllocsPerRun(300, one); n >= 1 { // retired sockets are replaced now and then
		t.Errorf("%v allocations per forward", n)
	}
}
