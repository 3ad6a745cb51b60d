package faults

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// lie is what an upstream says in place of the truth, or before it, and what clients may get of it where
// there is no other upstream.
type lie struct {
	name  string
	spoil func(query, forged []byte) []byte // of a forged reply, whose address is 6.6.6.6; nil: nothing is said
	truth bool                              // the truth follows it
	alone []string                          // what a client may see: "truth", "SERVFAIL", "TC", "FORMERR" or "NXDOMAIN"
}

// offQType is where the type of a question stands whose name has so many octets on the wire.
func offQType(query []byte) int { return 12 + bytes.IndexByte(query[12:], 0) + 1 }

// lies is row 23, and what of REQUIREMENTS 60 to 65 is about an upstream that lies.
func lies() []lie {
	only := func(s ...string) []string { return s }
	spoof := func(name string, spoil func(query, forged []byte) []byte) []lie {
		return []lie{{name, spoil, false, only("SERVFAIL")}, {name + ", then the truth", spoil, true, only("truth")}}
	}
	list := slices.Concat(
		spoof("other ID", func(_, m []byte) []byte { m[0] ^= 0x55; return m }),
		spoof("other name", func(_, m []byte) []byte { m[13] ^= 1; return m }),
		spoof("other type", func(q, m []byte) []byte { m[offQType(q)+1] = 28; return m }),
		spoof("other class", func(q, m []byte) []byte { m[offQType(q)+3] = 3; return m }),
		spoof("no response", func(_, m []byte) []byte { m[2] &^= 0x80; return m }),
		spoof("two questions", func(_, m []byte) []byte { m[5] = 2; return m }),
		spoof("no question", func(_, m []byte) []byte { m[5] = 0; return m }),
	)
	broken := func(name string, spoil func(query, forged []byte) []byte) {
		list = append(list, lie{name, spoil, false, only("SERVFAIL")})
	}
	broken("silence", nil)
	broken("counts that lie", func(_, m []byte) []byte { m[7] = 9; return m })
	broken("a length that lies", func(_, m []byte) []byte {
		if i := bytes.LastIndex(m, []byte{6, 6, 6, 6}); i > 0 {
			m[i-1] = 200
		}
		return m
	})
	broken("a pointer to itself", func(q, m []byte) []byte {
		at := offQType(q) + 4
		binary.BigEndian.PutUint16(m[at:], 0xc000|uint16(at))
		return m
	})
	broken("a pointer ahead", func(q, m []byte) []byte {
		at := offQType(q) + 4
		binary.BigEndian.PutUint16(m[at:], 0xc000|uint16(at+2))
		return m
	})
	broken("cut in a record", func(_, m []byte) []byte { return m[:len(m)-14] })
	broken("garbage", func(q, m []byte) []byte {
		for i := 12; i < len(m); i++ {
			m[i] = byte(i*i + 7)
		}
		return m
	})
	broken("its header alone", func(_, m []byte) []byte { return m[:12] })
	return append(list,
		lie{"NXDOMAIN for another name, then the truth", func(_, m []byte) []byte { m[3] |= 3; m[13] ^= 1; return m }, true, only("truth")},
		lie{"FORMERR without a question", func(_, m []byte) []byte { clear(m[4:12]); m[3] |= 1; return m[:12] }, false, only("SERVFAIL", "FORMERR")},
		lie{"SERVFAIL", func(q, m []byte) []byte { m[3] |= 2; return bare(q, m) }, false, only("SERVFAIL")},
		lie{"TC for ever", func(q, m []byte) []byte { m[2] |= 2; return bare(q, m) }, false, only("TC", "SERVFAIL")},
	)
}

// bare leaves header and question of a reply.
func bare(query, m []byte) []byte {
	clear(m[6:12])
	return m[:offQType(query)+4]
}

const forgedAddress = "6.6.6.6"

// forge is the truth with another address.
func forge(truth []byte) []byte {
	m := bytes.Clone(truth)
	if i := bytes.LastIndex(m, []byte{192, 0, 2, 53}); i >= 0 {
		copy(m[i:], []byte{6, 6, 6, 6})
	}
	return m
}

// told makes a lie one of a faulty.Liar.
func (l lie) told() faulty.Lie {
	say := func(query, truth []byte) (out [][]byte) {
		if l.spoil != nil {
			out = append(out, l.spoil(query, forge(truth)))
		}
		if l.truth {
			out = append(out, truth)
		}
		return out
	}
	return faulty.Lie{Datagrams: say, Stream: func(query, truth []byte) ([]byte, bool) {
		return faulty.Framed(say(query, truth)...), false
	}}
}

// streamLies are of those that only a stream can tell.
func streamLies() map[string]faulty.Lie {
	stream := func(f func(query, truth []byte) ([]byte, bool)) faulty.Lie {
		return faulty.Lie{Stream: f, Datagrams: func(_, truth []byte) [][]byte { truth[2] |= 2; return [][]byte{truth} }}
	}
	return map[string]faulty.Lie{
		"length 0": stream(func(_, _ []byte) ([]byte, bool) { return []byte{0, 0}, false }),
		"length 5": stream(func(_, truth []byte) ([]byte, bool) { return faulty.Framed(truth[:5]), false }),
		"a length that never comes": stream(func(_, truth []byte) ([]byte, bool) {
			return append([]byte{255, 255}, truth...), false
		}),
		"closes at once": stream(func(_, _ []byte) ([]byte, bool) { return nil, true }),
		"half, then the end": stream(func(_, truth []byte) ([]byte, bool) {
			return faulty.Framed(truth)[:20], true
		}),
		"garbage": stream(func(_, truth []byte) ([]byte, bool) {
			return bytes.Repeat([]byte{0xff, 0x03, 0x80}, 40000), false
		}),
	}
}

// seenAs says in a word what a client has got; everything that is none of the expected words is its text.
func seenAs(r *dns.Msg, name string) string {
	got := faulty.Addresses(r)
	switch {
	case len(r.Question) != 1 || r.Question[0].Name != name || r.Question[0].Qtype != dns.TypeA || strings.Contains(r.String(), forgedAddress):
		return fmt.Sprintf("fooled: %v", r)
	case r.Rcode == dns.RcodeServerFailure && len(got) == 0:
		return "SERVFAIL"
	case r.Rcode == dns.RcodeFormatError && len(got) == 0:
		return "FORMERR"
	case r.Truncated && len(got) == 0:
		return "TC"
	case r.Rcode == dns.RcodeSuccess && slices.Equal(got, []string{faulty.UpstreamAnswer}):
		return "truth"
	}
	return r.String()
}

// Fault 23: upstreams that lie, each in its own way, beside one that tells the truth and alone. Nobody gets
// anything of a lie: beside the other the truth, alone SERVFAIL, in time; all others are unharmed,
// and each is believed again when it tells the truth.
func TestFault23UpstreamLies(t *testing.T) {
	t.Parallel()
	needLong(t)
	honest := faulty.NewUpstream(t, nil, netip.AddrPort{})
	type teller struct {
		*faulty.Liar
		suffix string
		alone  []string // what is seen of it over UDP and TCP; nil: another upstream is beside it
		tcp    bool     // over TCP alone
	}
	text := headWith(honest.Addr.String()) + static
	var tellers []teller
	add := func(say faulty.Lie, alone []string, tcp bool) {
		for _, beside := range []bool{true, false} {
			u := teller{faulty.NewLiar(t, nil), fmt.Sprintf("l%d.lies.example", len(tellers)), alone, tcp}
			u.Tells(say)
			servers := fmt.Sprintf("%q", u.Addr)
			if beside {
				u.alone = nil
				servers += fmt.Sprintf(", %q", honest.Addr)
			}
			text += fmt.Sprintf("[route.%q]\nservers = [%s]\n", u.suffix, servers)
			tellers = append(tellers, u)
		}
	}
	what := make(map[string]string) // by suffix
	note := func(name string) {
		for _, u := range tellers[len(tellers)-2:] {
			what[u.suffix] = name
		}
	}
	for _, l := range lies() {
		add(l.told(), l.alone, false)
		note(l.name)
	}
	for name, say := range streamLies() {
		add(say, []string{"SERVFAIL"}, true)
		note("stream: " + name)
	}
	h := faulty.Start(t, nil, text)
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded(), ours().TCP(), faulty.Forwarded().TCP())

	ask := func(u teller, network string, n int) (string, error) {
		name := fmt.Sprintf("q%d%s.%s.", n, network, u.suffix)
		r, _, err := faulty.Question{Name: name, Type: dns.TypeA, Network: network}.Exchange(nil, h.DNS, n)
		if err != nil {
			return "", err
		}
		return seenAs(r, name), nil
	}
	var wg sync.WaitGroup
	for _, u := range tellers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			before := u.Seen.Load()
			networks := []string{"udp", "tcp"}
			if u.tcp {
				networks = networks[1:]
			}
			for n := range 3 {
				for _, network := range networks {
					want := u.alone
					if want == nil {
						// What an upstream says of itself is passed on where it is an answer; a client asks over TCP then.
						want = []string{"truth"}
						if what[u.suffix] == "TC for ever" && network == "udp" {
							want = append(want, "TC")
						}
					}
					got, err := ask(u, network, n)
					// On a machine without time to spare the truth may come too late, and is asked for again.
					for again := 1; again < 5 && (err != nil || got == "SERVFAIL") && !slices.Contains(want, got); again++ {
						got, err = ask(u, network, n+10*again)
					}
					if err != nil || !slices.Contains(want, got) {
						t.Errorf("%s, alone %t, %s: %q %v, want %v", what[u.suffix], u.alone != nil, network, got, err, want)
					}
				}
			}
			if u.Seen.Load() == before {
				t.Errorf("%s: it was never asked", what[u.suffix])
			}
		}()
	}
	wg.Wait()
	for i := range 4 {
		a.More(i, 20)
	}
	for _, u := range tellers {
		u.Tells(faulty.Lie{})
	}
	for _, u := range tellers {
		for _, network := range []string{"udp", "tcp"} {
			faulty.Eventually(t, what[u.suffix]+": it tells the truth, and is believed", func() bool {
				got, err := ask(u, network, 1000)
				return err == nil && got == "truth"
			})
		}
	}
	a.Clean()
	if n := h.Metric("hard_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
	t.Logf("%d lies, each beside a truthful upstream and alone", len(tellers)/2)
}

// Fault 23: replies of 64 kB. Over UDP such a datagram is no reply that can be passed on: its client is told to ask over
// TCP, where it gets all of it.
func TestFault23LargestReply(t *testing.T) {
	t.Parallel()
	u := faulty.NewLiar(t, nil)
	large := func(query []byte, size int) []byte {
		q := new(dns.Msg)
		if q.Unpack(query) != nil || len(q.Question) != 1 || q.Question[0].Qtype != dns.TypeA {
			return nil
		}
		m := new(dns.Msg).SetReply(q)
		m.Compress = true
		base := m.Len()
		for i := range (size - base) / 16 {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
				A: []byte{10, byte(i >> 16), byte(i >> 8), byte(i)}})
		}
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	orTruth := func(b, truth []byte) []byte {
		if b == nil {
			return truth
		}
		return b
	}
	u.Tells(faulty.Lie{
		Datagrams: func(query, truth []byte) [][]byte { return [][]byte{orTruth(large(query, 65000), truth)} },
		Stream: func(query, truth []byte) ([]byte, bool) {
			return faulty.Framed(orTruth(large(query, 65400), truth)), false
		},
	})
	h := faulty.Start(t, nil, headWith(u.Addr.String())+static)
	faulty.LeakCheck(t, h)
	for n := range 3 {
		q := faulty.Forwarded()
		r, _, err := q.Exchange(nil, h.DNS, n)
		if err != nil || !r.Truncated || len(r.Answer) != 0 || r.Rcode != dns.RcodeSuccess {
			t.Errorf("over UDP: %v %v, want TC", r, err)
		}
		r, _, err = q.TCP().Exchange(nil, h.DNS, n)
		if err != nil || r.Truncated || len(r.Answer) < 4000 {
			t.Fatalf("over TCP: %v, want all of it", err)
		}
		for i, rr := range r.Answer {
			if a, ok := rr.(*dns.A); !ok || int(a.A[1])<<16|int(a.A[2])<<8|int(a.A[3]) != i {
				t.Fatalf("record %d: %v", i, rr)
			}
		}
	}
	h.Wants("the rest goes on", ours())
}
