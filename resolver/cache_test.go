package resolver

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func cachingForwarder(t *testing.T, u *farEnd, entries int, stale time.Duration) *forwarder {
	t.Helper()
	o := patient(optionsTo(u))
	o.Cache = CacheOptions{Enabled: true, MaxEntries: entries, ServeStale: stale}
	return testForwarder(t, o)
}

// age lets every cached reply be older by d.
func age(f *forwarder, d time.Duration) {
	c := f.conf.Load().cache
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.byUse.Front(); e != nil; e = e.Next() {
		e.Value.(*cacheEntry).stored -= int64(d)
	}
}

// R55: TTLs count down; DO, CD and class are part of the key; case is not.
func TestR55Cache(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := cachingForwarder(t, u, 100, 0)
	ask(t, f, question("c.example.", dns.TypeA), false)
	age(f, 20*time.Second)
	r := ask(t, f, question("C.example.", dns.TypeA), true)
	if r.Answer[0].Header().Ttl != 40 || r.Question[0].Name != "C.example." || u.queries.Load() != 1 {
		t.Errorf("%d queries, %v", u.queries.Load(), r)
	}
	cd := question("c.example.", dns.TypeA)
	cd.CheckingDisabled = true
	ask(t, f, cd, false)
	ask(t, f, withOPT(question("c.example.", dns.TypeA)), false)
	ch := question("c.example.", dns.TypeA)
	ch.Question[0].Qclass = dns.ClassCHAOS
	ask(t, f, ch, false)
	if n := u.queries.Load(); n != 4 {
		t.Errorf("%d queries, want 4: CD, DO and class are kept apart", n)
	}
	age(f, 41*time.Second)
	ask(t, f, question("c.example.", dns.TypeA), false)
	if n := u.queries.Load(); n != 5 {
		t.Errorf("%d queries, want 5: it has expired", n)
	}
}

// R55, RFC 2308: what is not kept, and for how long denials are.
func TestR55NotCached(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		wait   time.Duration
		asked  int64
	}{
		"TTL 0":    {func(m *dns.Msg) { m.Answer[0].Header().Ttl = 0 }, 0, 2},
		"TC":       {func(m *dns.Msg) { m.Truncated = true }, 0, 2},
		"SERVFAIL": {func(m *dns.Msg) { m.Rcode, m.Answer = 2, nil }, 0, 2},
		"no SOA":   {func(m *dns.Msg) { m.Rcode, m.Answer = 3, nil }, 0, 2},
		"SOA": {func(m *dns.Msg) {
			m.Rcode, m.Answer, m.Ns = 3, nil, []dns.RR{mustRR("example. 300 IN SOA a. b. 1 2 3 4 10")}
		}, 9 * time.Second, 1},
		"SOA, later": {func(m *dns.Msg) {
			m.Rcode, m.Answer, m.Ns = 3, nil, []dns.RR{mustRR("example. 300 IN SOA a. b. 1 2 3 4 10")}
		}, 11 * time.Second, 2},
	} {
		u := newFarEnd(t, func(q []byte, _ bool) [][]byte { return [][]byte{replyTo(q, c.change)} })
		f := cachingForwarder(t, u, 100, 0)
		ask(t, f, question("n.example.", dns.TypeA), false)
		age(f, c.wait)
		ask(t, f, question("n.example.", dns.TypeA), false)
		if n := u.queries.Load(); n != c.asked {
			t.Errorf("%s: %d queries, want %d", name, n, c.asked)
		}
	}
}

// RFC 8767: stale answers with EDE 3, only while upstreams fail, and not for ever. Silence for one attempt_timeout is a
// failure, long before total_timeout, and so is an error.
func TestServeStale(t *testing.T) {
	for name, failing := range map[string]func([]byte, bool) [][]byte{
		"silent": silent, "SERVFAIL": withRcode(dns.RcodeServerFailure), "REFUSED": withRcode(dns.RcodeRefused),
	} {
		t.Run(name, func(t *testing.T) {
			u := newFarEnd(t, answerA)
			o := patient(optionsTo(u)) // total_timeout is more than this test waits for
			o.AttemptTimeout = 100 * time.Millisecond
			o.Cache = CacheOptions{Enabled: true, MaxEntries: 100, ServeStale: time.Hour}
			f := testForwarder(t, o)
			s := withOPT(question("s.example.", dns.TypeA))
			ask(t, f, s, false)
			age(f, 2*time.Minute)
			u.set(failing)
			for range 2 {
				r := ask(t, f, s, false)
				if r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || r.Answer[0].Header().Ttl != staleTTL || ede(r) != 3 {
					t.Errorf("stale: %v", r)
				}
			}
			other := withOPT(question("other.example.", dns.TypeA))
			u.set(withRcode(dns.RcodeServerFailure))
			if r := ask(t, f, other, false); r.Rcode != dns.RcodeServerFailure || ede(r) != -1 {
				t.Errorf("never known: %v", r)
			}
			age(f, 2*time.Hour)
			if r := ask(t, f, s, false); r.Rcode != dns.RcodeServerFailure {
				t.Errorf("too stale: %v", r)
			}
			u.set(answerA)
			if r := ask(t, f, s, false); len(r.Answer) != 1 || r.Answer[0].Header().Ttl <= staleTTL || ede(r) != -1 {
				t.Errorf("upstream is back: %v", r)
			}
		})
	}
}

// R38: a stale answer that has no room for its extended error goes without, and whole.
func TestR38StaleWithoutError(t *testing.T) {
	for size, want := range map[int]struct {
		ede   int
		whole bool
	}{1232 - 35: {3, true}, 1232 - 34: {-1, true}, 1232: {-1, true}, 1233: {-1, false}} { // 35: the option
		u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
			return [][]byte{replyTo(q, func(m *dns.Msg) {
				m.Answer = []dns.RR{&dns.RFC3597{Hdr: dns.RR_Header{Name: "s.example.", Rrtype: 65280, Class: dns.ClassINET, Ttl: 60}}}
				m.Compress = true
				rest := (size - m.Len()) * 2
				m.Answer[0].(*dns.RFC3597).Rdata = strings.Repeat("0", rest)
			})}
		})
		f := cachingForwarder(t, u, 100, time.Hour)
		s := withOPT(question("s.example.", 65280))
		ask(t, f, s, true)
		age(f, 2*time.Minute)
		u.set(withRcode(dns.RcodeServerFailure))
		r := ask(t, f, s, false)
		if r.Rcode != dns.RcodeSuccess || r.Truncated == want.whole || ede(r) != want.ede {
			t.Errorf("%d bytes: TC %v, extended error %d, %d records", size, r.Truncated, ede(r), len(r.Answer))
		}
	}
}

// An upstream's denial is an answer: what it denies is not served stale.
func TestDenialIsNotStale(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := cachingForwarder(t, u, 100, time.Hour)
	ask(t, f, question("gone.example.", dns.TypeA), false)
	age(f, 2*time.Minute)
	u.set(withRcode(dns.RcodeNameError))
	if r := ask(t, f, question("gone.example.", dns.TypeA), false); r.Rcode != dns.RcodeNameError {
		t.Errorf("%v", r)
	}
	u.set(withRcode(dns.RcodeServerFailure))
	if r := ask(t, f, question("gone.example.", dns.TypeA), false); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("denied, without an SOA to keep that by, and now alive again: %v", r)
	}
}

// Hot entries are refreshed before they expire; others are not.
func TestPrefetch(t *testing.T) {
	var n atomic.Int64
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte { n.Add(1); return answerA(q, false) })
	f := cachingForwarder(t, u, 100, 0)
	for range 5 {
		ask(t, f, question("hot.example.", dns.TypeA), false)
	}
	age(f, 57*time.Second)
	ask(t, f, question("hot.example.", dns.TypeA), false)
	eventually(t, "the entry is fresh again", func() bool {
		r := ask(t, f, question("hot.example.", dns.TypeA), false)
		return r.Answer[0].Header().Ttl > 50
	})
	if q := u.queries.Load(); q != 2 {
		t.Errorf("%d queries, want 2", q)
	}
}

// The cache is bounded, by entries and by bytes; the least used go.
func TestCacheBounds(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := cachingForwarder(t, u, 50, 0)
	for i := range 200 {
		ask(t, f, question(fmt.Sprintf("b%d.example.", i), dns.TypeA), false)
	}
	c := f.conf.Load().cache
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for e := c.byUse.Front(); e != nil; e = e.Next() {
		total += e.Value.(*cacheEntry).size()
	}
	if len(c.entries) != c.byUse.Len() || len(c.entries) > 50 || c.bytes != total || total > c.maxBytes || len(c.entries) < 20 {
		t.Errorf("%d entries, %d bytes counted, %d are", len(c.entries), c.bytes, total)
	}
}

// Look-ups of our own get nothing stale, and go on for as long as there is hope: what they ask is where to probe.
func TestLookupIsNotStale(t *testing.T) {
	u := newFarEnd(t, answerA)
	o := patient(optionsTo(u))
	o.AttemptTimeout = 100 * time.Millisecond
	o.Cache = CacheOptions{Enabled: true, MaxEntries: 100, ServeStale: time.Hour}
	f := testForwarder(t, o)
	if _, _, err := f.LookupAddrs(t.Context(), "l.example", false); err != nil {
		t.Fatal(err)
	}
	age(f, 2*time.Minute)
	var lost atomic.Bool
	u.set(func(q []byte, tcp bool) [][]byte {
		if lost.CompareAndSwap(false, true) {
			return nil
		}
		return answerA(q, tcp)
	})
	if addrs, _, err := f.LookupAddrs(t.Context(), "l.example", false); err != nil || len(addrs) != 1 {
		t.Errorf("the first packet was lost: %v %v", addrs, err)
	}
	age(f, 2*time.Minute)
	u.set(withRcode(dns.RcodeServerFailure))
	if addrs, _, err := f.LookupAddrs(t.Context(), "l.example", false); err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("SERVFAIL: %v %v", addrs, err)
	}
}
