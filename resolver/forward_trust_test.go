package resolver

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/answer"
	"hard/internal/wire"
)

// R58, R59: IDs are not the client's and do not repeat; at a low rate nearly
// every query has a port of its own, at a high rate many ports are used.
func TestR59IDsAndPorts(t *testing.T) {
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	for i := range 60 {
		q := question(fmt.Sprintf("n%d.example.", i), dns.TypeA)
		q.Id = 4711
		ask(t, f, q, false)
	}
	u.mu.Lock()
	ids := make(map[uint16]int)
	for _, b := range u.seen {
		ids[binary.BigEndian.Uint16(b)]++
	}
	if len(u.ports) < 57 || len(ids) < 58 || ids[4711] > 1 {
		t.Errorf("60 queries came from %d ports with %d IDs", len(u.ports), len(ids))
	}
	clear(u.ports)
	u.mu.Unlock()
	for i := range 2000 {
		ask(t, f, question(fmt.Sprintf("m%d.example.", i), dns.TypeA), false)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.ports) < 200 { // 100 fresh ones before the pool
		t.Errorf("2000 queries came from %d ports", len(u.ports))
	}
	for p, n := range u.ports {
		if n > 2*sockMaxUse {
			t.Errorf("port %d was used %d times", p, n)
		}
	}
}

// R60, R61, R62: what does not match is ignored and the true reply awaited.
func TestR60MismatchesAreIgnored(t *testing.T) {
	wrong := map[string]func([]byte) []byte{
		"ID":          func(m []byte) []byte { m[0] ^= 1; return m },
		"QR":          func(m []byte) []byte { m[2] &^= 0x80; return m },
		"name":        func(m []byte) []byte { m[13] = 'z'; return m },
		"type":        func(m []byte) []byte { m[len("\x05right\x07example\x00")+12+1] = 28; return m },
		"class":       func(m []byte) []byte { m[len("\x05right\x07example\x00")+12+3] = 3; return m },
		"short":       func(m []byte) []byte { return m[:7] },
		"empty":       func(m []byte) []byte { return nil },
		"no question": func(m []byte) []byte { clear(m[4:12]); m[3] |= 1; return m[:12] },
		"two":         func(m []byte) []byte { m[5] = 2; return m },
		"opcode":      func(m []byte) []byte { m[2] |= 0x20; return m },
	}
	for name, spoil := range wrong {
		u := newFarEnd(t, nil)
		u.set(func(q []byte, _ bool) [][]byte {
			out := make([][]byte, 0, 201)
			for range 200 {
				bad := replyTo(q, func(m *dns.Msg) { m.Answer = []dns.RR{mustRR(m.Question[0].Name + " 1 IN A 6.6.6.6")} })
				out = append(out, spoil(bad))
			}
			return append(out, replyTo(q, nil))
		})
		r := ask(t, forwardTo(t, u), question("right.example.", dns.TypeA), false)
		if len(r.Answer) != 1 || !strings.HasSuffix(r.Answer[0].String(), "192.0.2.1") {
			t.Errorf("wrong %s: %v", name, r)
		}
	}
}

// R60: a reply from another socket than the one asked is not taken.
func TestR60ForeignSource(t *testing.T) {
	spoofer := newFarEnd(t, silent)
	u := newFarEnd(t, nil)
	u.set(func(q []byte, _ bool) [][]byte {
		bad := replyTo(q, func(m *dns.Msg) { m.Answer = []dns.RR{mustRR(m.Question[0].Name + " 1 IN A 6.6.6.6")} })
		u.mu.Lock()
		for port := range u.ports {
			_, _ = spoofer.udp.WriteToUDPAddrPort(bad, addrPort("127.0.0.1", port))
		}
		u.mu.Unlock()
		return answerA(q, false)
	})
	r := ask(t, forwardTo(t, u), question("right.example.", dns.TypeA), false)
	if len(r.Answer) != 1 || !strings.HasSuffix(r.Answer[0].String(), "192.0.2.1") {
		t.Errorf("reply: %v", r)
	}
}

// R61, R64: a matching reply that is broken goes to nobody; the next upstream
// is asked, or the client gets SERVFAIL with EDE 24.
func TestR64BrokenReplies(t *testing.T) {
	broken := map[string]func([]byte) []byte{
		"counts":   func(m []byte) []byte { m[7] = 9; return m },
		"rdlength": func(m []byte) []byte { m[len(m)-5] = 200; return m },
		"pointer loop": func(m []byte) []byte {
			at := len(m) - 16
			binary.BigEndian.PutUint16(m[at:], 0xc000|uint16(at))
			return m
		},
		"forward": func(m []byte) []byte {
			at := len(m) - 16
			binary.BigEndian.PutUint16(m[at:], 0xc000|uint16(at+4))
			return m
		},
		"two OPTs":      func(m []byte) []byte { return addOPTs(m, 2, 11) },
		"OPT in answer": func(m []byte) []byte { return addOPTs(m, 1, 7) },
	}
	for name, spoil := range broken {
		bad := newFarEnd(t, func(q []byte, _ bool) [][]byte { return [][]byte{spoil(replyTo(q, nil))} })
		good := newFarEnd(t, answerA)
		r := ask(t, testForwarder(t, patient(optionsTo(bad, good))), question("b.example.", dns.TypeA), false)
		if len(r.Answer) != 1 || r.Rcode != 0 {
			t.Errorf("%s, with another upstream: %v", name, r)
		}
		q := question("b.example.", dns.TypeA)
		q.SetEdns0(1232, false)
		badOPT := newFarEnd(t, func(b []byte, _ bool) [][]byte {
			return [][]byte{spoil(replyTo(b, func(m *dns.Msg) { m.Extra = nil }))}
		})
		if r = ask(t, forwardTo(t, badOPT), q, false); r.Rcode != dns.RcodeServerFailure || ede(r) != 24 {
			t.Errorf("%s, alone: %v", name, r)
		}
	}
}

func addOPTs(m []byte, n int, count int) []byte {
	for range n {
		m = append(m, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
	}
	m[count] += byte(n)
	return m
}

// R71: one query causes at most 20 upstream packets.
func TestR71PacketsAreBounded(t *testing.T) {
	t.Parallel()
	var ups []*farEnd
	for range 25 {
		ups = append(ups, newFarEnd(t, silent))
	}
	o := optionsTo(ups...)
	o.AttemptTimeout, o.TotalTimeout = 60*time.Millisecond, 2*time.Second
	f := testForwarder(t, o)
	if r := ask(t, f, question("m.example.", dns.TypeA), false); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("reply: %v", r)
	}
	n := int64(0)
	for _, u := range ups {
		n += u.queries.Load()
	}
	if n > maxPackets || n < 2 {
		t.Errorf("%d upstream packets", n)
	}
}

// R64: whatever a matching reply contains, there is no panic, and the client
// gets a message whose records add up, for its question.
func FuzzReply(f *testing.F) {
	q := withOPT(question("fuzz.example.", dns.TypeA))
	asked, _ := q.Pack()
	f.Add(replyTo(asked, nil)[12:])
	f.Add(replyTo(asked, func(m *dns.Msg) { addCookie(m); m.Truncated = true })[12:])
	f.Add(addOPTs(replyTo(asked, nil), 2, 11)[12:])
	f.Add([]byte{})
	fw := makeForwarder(slog.New(slog.DiscardHandler), 1)
	o := UpstreamOptions{Servers: []Server{{Addr: addrPort("127.0.0.1", 9)}}}
	if err := fw.SetUpstreams(o); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, entry := range []*answer.Entry{nil, {TTL: 3}} {
			var got []byte
			msg := append([]byte(nil), asked...)
			var pq wire.Query
			pq.Parse(msg)
			l := fw.lanes[0]
			l.add(fw.conf.Load(), &request{msg: msg, q: &pq, entry: entry, from: testAsker(false, func(m []byte) { got = append([]byte(nil), m...) })}, false, nil)
			at := l.stage[0]
			l.stage = l.stage[:0]
			at.staged = false
			l.schedule(at, 1)
			buf := make([]byte, rxSize+fitRoom)
			n := copy(buf[:rxSize], asked[:12])
			n += copy(buf[n:rxSize], body)
			buf[2] |= 0x80
			l.reply(at, buf, n, false, 2, false)
			if got == nil { // ignored: end it
				l.fail(l.oldest, wire.EDENoReachable)
			}
			// miekg/dns would be too strict a judge: what is inside of RDATA is
			// passed as it is.
			var r wire.Reply
			if !r.Parse(got) || r.End != len(got) || len(got) > 1232 || r.OPT == 0 || r.QEnd != int(pq.QEnd) {
				t.Fatalf("client got %x (%d bytes)", got, len(got))
			}
			if string(got[:2]) != string(asked[:2]) || string(got[12:r.QEnd]) != string(asked[12:r.QEnd]) {
				t.Fatalf("client got %x", got)
			}
			for l.oldest != nil {
				l.fail(l.oldest, wire.EDENoReachable)
			}
			clear(l.stage)
			l.stage = l.stage[:0]
		}
	})
}
