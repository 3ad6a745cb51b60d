package answer

import (
	"bytes"
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

// FuzzServe: whatever comes, a reply can be read by miekg/dns, has the ID and the question of the packet, and keeps to its
// limit; responses get none.
func FuzzServe(f *testing.F) {
	wild := spec("*.wild.example")
	wild.Sets[1] = SetSpec{Addrs: many(90, true), Weights: make([]int, 90), Max: 90, EDE: 3, EDEText: "stale"}
	failing := spec("down.example")
	failing.Sets[0].Kind, failing.Sets[1].Kind = ServFail, Hold
	tb := table(f, spec("www.example"), wild, failing)
	f.Fuzz(func(t *testing.T, packet []byte, tcp, now bool) {
		if len(packet) > wire.MaxTCP {
			return
		}
		tr := wire.Transport{TCP: tcp, Keepalive: 10}
		size := wire.MaxUDP
		if tcp {
			size = wire.MaxTCP
		}
		buf := make([]byte, max(size, len(packet)))
		n := copy(buf, packet)
		serve := tb.Serve
		if now {
			serve = tb.ServeNow
		}
		var q wire.Query
		res := serve(&q, buf, n, tr, new(Counters).NewRotor())
		if res.Action != Answer {
			if !bytes.Equal(buf[:n], packet) {
				t.Fatal("not answered, but changed")
			}
			if res.Action == Wait && now {
				t.Fatal("asked to wait again")
			}
			return
		}
		if packet[2]&0x80 != 0 {
			t.Fatal("R9: a response was answered")
		}
		reply := buf[:res.N]
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("%x answered with %x: %v", packet, reply, err)
		}
		if !m.Response || !bytes.Equal(reply[:2], packet[:2]) || !m.RecursionAvailable || m.Zero || m.AuthenticatedData ||
			len(reply) > q.Limit(tr) || (m.IsEdns0() != nil) != q.EDNS || reply[2]&0x79 != packet[2]&0x79 {
			t.Fatalf("%x answered with %x", packet, reply)
		}
		if len(m.Question) == 1 && !bytes.Equal(reply[12:q.QEnd], packet[12:q.QEnd]) {
			t.Fatalf("question of %x echoed as %x", packet, reply)
		}
		if m.Rcode == dns.RcodeSuccess && len(m.Question) != 1 {
			t.Fatal("R11: a good answer to a bad question")
		}
	})
}
