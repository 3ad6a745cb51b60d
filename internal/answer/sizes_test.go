package answer

import (
	"strings"
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

func TestSizes(t *testing.T) {
	set := func(v6 bool, n, limit int) SetSpec { return SetSpec{Addrs: many(n, v6), Max: limit, EDE: NoEDE} }
	name := "n.example" // 11 octets: 27 bytes with header and question
	for _, c := range []struct {
		name    string
		n, max  int
		v6      bool
		size    uint16 // of the OPT; 0 = no OPT
		tcp     bool
		records int
	}{
		{"R39 25 A fit into 512", 25, 25, false, 0, false, 25},
		{"R39 as many A as fit", 100, 100, false, 0, false, (512 - 27) / 16},
		{"R39 as many AAAA as fit", 100, 100, true, 0, false, (512 - 27) / 28},
		{"R33 with OPT below 512", 100, 100, false, 100, false, (512 - 27 - 11) / 16},
		{"R33 with OPT of 800", 100, 100, false, 800, false, (800 - 27 - 11) / 16},
		{"R33 with OPT of 4096", 100, 100, false, 4096, false, (1232 - 27 - 11) / 16},
		{"R42 over TCP", 100, 100, false, 0, true, 100},
		{"max 1", 100, 1, false, 4096, false, 1},
		{"max 3", 100, 3, true, 4096, false, 3},
		{"max above what there is", 2, 9, true, 0, false, 2},
		{"max 0: 512 bytes in any case", 100, 0, false, 4096, false, (512 - 27) / 16},
		{"max 0 with OPT of 512", 100, 0, false, 512, false, (512 - 27 - 11) / 16},
		{"max 0 over TCP", 100, 0, true, 0, true, (512 - 27) / 28},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{set(false, c.n, c.max), set(true, c.n, c.max)}}
			cl := newClient(t, s)
			cl.tr.TCP = c.tcp
			qtype, options := uint16(dns.TypeA), []func(*dns.Msg){}
			if c.v6 {
				qtype = dns.TypeAAAA
			}
			if c.size > 0 {
				options = append(options, edns(c.size, false))
			}
			m, _ := cl.ask(name, qtype, options...)
			want := many(c.records, c.v6)
			if len(m.Answer) != c.records || m.Truncated {
				t.Fatalf("%d records, TC %v; want %d", len(m.Answer), m.Truncated, c.records)
			}
			for i, a := range addresses(m) {
				if a != want[i].String() {
					t.Fatalf("record %d is %s", i, a)
				}
			}
		})
	}
	t.Run("R37 R39 addresses before explanations", func(t *testing.T) {
		long := SetSpec{Addrs: many(40, false), Max: 28, EDE: 3, EDEText: strings.Repeat("x", 200)}
		cl := newClient(t, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{long, plain()}})
		if m, _ := cl.ask(name, dns.TypeA, edns(512, false)); len(m.Answer) != 28 || ede(m) != nil {
			t.Error(m)
		}
		if m, _ := cl.ask(name, dns.TypeA, edns(1232, false)); len(m.Answer) != 28 || ede(m) == nil {
			t.Error(m)
		}
	})
	t.Run("R37 R39 what fits exactly", func(t *testing.T) {
		// 27 bytes, 28 records, an OPT of 11 and an option of 6 and its text.
		const room = 512 - 27 - 28*16 - 11 - 6
		for _, c := range []struct{ text, kept int }{{room, 1}, {room + 1, 0}} {
			s := SetSpec{Addrs: many(40, false), Max: 28, EDE: 3, EDEText: strings.Repeat("x", c.text)}
			cl := newClient(t, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{s, plain()}})
			m, _ := cl.ask(name, dns.TypeA, edns(512, false))
			if len(m.Answer) != 28 || len(m.IsEdns0().Option) != c.kept {
				t.Errorf("text of %d: %v", c.text, m)
			}
			// NODATA: 12 and 4 bytes, an SOA of 50, an OPT of 11, an option of 6 + 255; 174 are left for the name.
			s = SetSpec{EDE: 22, EDEText: strings.Repeat("x", 255)}
			long := strings.Repeat(strings.Repeat("a", 60)+".", 2) + strings.Repeat("b", 174-2*61-2+1-c.kept)
			cl = newClient(t, &Spec{Name: long, TTL: 1, Sets: [2]SetSpec{s, plain()}})
			if m, _ := cl.ask(long, dns.TypeA, edns(512, false)); len(m.Ns) != 1 || len(m.IsEdns0().Option) != c.kept {
				t.Errorf("name of %d: %v", len(long), m)
			}
		}
	})
	t.Run("R42 never more than the buffer", func(t *testing.T) {
		tb := table(t, &Spec{Name: name, TTL: 1, Sets: [2]SetSpec{set(false, 100, 100), plain()}})
		var q wire.Query
		buf := make([]byte, 600)
		res := tb.Serve(&q, buf, copy(buf, packet(t, name, dns.TypeA, true)), wire.Transport{TCP: true}, new(Counters).NewRotor())
		if want := 27 + 16*((600-27-11)/16) + 11; res.N != want {
			t.Errorf("%d bytes, want %d", res.N, want)
		}
	})
	t.Run("R21 the longest name", func(t *testing.T) {
		l := strings.Repeat("a", 63)
		longest := l + "." + l + "." + l + "." + strings.Repeat("b", 61)
		s := spec(longest)
		s.Sets[1].EDE, s.Sets[1].EDEText = 3, strings.Repeat("x", 255)
		cl := newClient(t, s)
		if m, _ := cl.ask(longest, dns.TypeA); len(m.Answer) != 1 {
			t.Error(m)
		}
		if m, _ := cl.ask(longest, dns.TypeAAAA, edns(512, false)); len(m.Ns) != 1 || ede(m) != nil {
			t.Error(m)
		}
	})
}
