package engine

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/rank"
)

// TestR37LocalAnswers: every answer of ours that is not the normal kind says what is the matter, and no other one does.
func TestR37LocalAnswers(t *testing.T) {
	name := func(name, policy string) string {
		return fmt.Sprintf("[name.%q]\ncandidates = [\"192.0.2.1\", \"2001:db8::1\"]\ncheck = \"tcp://:80\"\n%s\n", name, policy)
	}
	tiers := func(more string) string {
		return "[name.\"tiers.example\"]\ncheck = \"tcp://:80\"\n" + more +
			"\n[name.\"tiers.example\".candidate.near]\naddress = \"192.0.2.1\"" +
			"\n[name.\"tiers.example\".candidate.far]\naddress = \"2001:db8::1\"\ntier = 1\n"
	}
	const (
		v4, v6 = "192.0.2.1", "2001:db8::1"
		down   = "all candidates are down"
	)
	type want struct {
		rcode, records int
		code           int // -1: none
		text           string
	}
	normal, noData := want{0, 1, -1, ""}, want{0, 0, -1, ""}
	for _, c := range []struct {
		story string
		text  string
		up    []string // addresses whose probes succeed, before ...
		down  []string // ... those whose probes fail
		a     want
		aaaa  want
	}{
		{"both up", name("n.example", ""), []string{v4, v6}, nil, normal, normal},
		{"one family down", name("n.example", ""), []string{v4}, []string{v6}, normal, want{0, 0, 22, "no eligible candidate of this family"}},
		{"a family without candidates", "[name.\"n.example\"]\ncandidates = [\"192.0.2.1\"]\ncheck = \"tcp://:80\"\n", []string{v4}, nil, normal, noData},
		{"last_good", name("n.example", ""), []string{v4, v6}, []string{v4, v6}, want{0, 1, 3, down + ": the last good ones"}, want{0, 1, 3, down + ": the last good ones"}},
		{"last_good, and never was any", name("n.example", ""), nil, []string{v4, v6}, want{0, 1, 3, down + ": all of them"}, want{0, 1, 3, down + ": all of them"}},
		{"all", name("n.example", "on_all_down = \"all\""), []string{v4, v6}, []string{v4, v6}, want{0, 1, 3, down + ": all of them"}, want{0, 1, 3, down + ": all of them"}},
		{"nodata", name("n.example", "on_all_down = \"nodata\""), nil, []string{v4, v6}, want{0, 0, 22, down}, want{0, 0, 22, down}},
		// Of both families, or glibc takes SERVFAIL for one beside NODATA for the other for "no address", not "try again".
		{"servfail", "[name.\"n.example\"]\ncandidates = [\"192.0.2.1\"]\ncheck = \"tcp://:80\"\non_all_down = \"servfail\"\n",
			nil, []string{v4}, want{2, 0, 22, down}, want{2, 0, 22, down}},
		{"another tier", tiers(""), []string{v4, v6}, nil, normal, want{0, 0, 0, "the tier that answers has no address of this family"}},
		{"another tier, apart", tiers("families = \"apart\""), []string{v4, v6}, nil, normal, normal},
	} {
		t.Run(c.story, func(t *testing.T) {
			play(t, c.text, nil, func(s *stage) {
				names := map[bool]string{true: "tiers.example", false: "n.example"}[c.text[:20] == tiers("")[:20]]
				labels := map[string]string{v4: v4, v6: v6}
				if names == "tiers.example" {
					labels = map[string]string{v4: "near", v6: "far"}
				}
				probe := func(addr string, o rank.Outcome) {
					s.Sample(rank.Sample{Key: rank.Key{Name: names, Candidate: labels[addr], Addr: netip.MustParseAddr(addr)},
						At: time.Now(), Outcome: o, Final: true, Phases: rank.Phases{Total: time.Millisecond}})
					s.pass(time.Second)
				}
				for _, a := range c.up {
					probe(a, rank.OK)
				}
				for range 2 { // fall
					for _, a := range c.down {
						probe(a, rank.Refused)
					}
				}
				for qtype, w := range map[uint16]want{dns.TypeA: c.a, dns.TypeAAAA: c.aaaa} {
					m := s.responseTo(t, names, qtype)
					if m == nil || m.Rcode != w.rcode || len(m.Answer) != w.records {
						t.Errorf("%s: %v", dns.TypeToString[qtype], m)
						continue
					}
					code, text := -1, ""
					for _, o := range m.IsEdns0().Option {
						if e, ok := o.(*dns.EDNS0_EDE); ok {
							code, text = int(e.InfoCode), e.ExtraText
						}
					}
					if code != w.code || text != w.text {
						t.Errorf("%s: extended error %d %q, want %d %q", dns.TypeToString[qtype], code, text, w.code, w.text)
					}
				}
			})
		})
	}
}

// A name's answer is published again where only the extended error's words have changed.
func TestEDETextIsPublished(t *testing.T) {
	play(t, "[name.\"n.example\"]\ncandidates = [\"192.0.2.1\"]\ncheck = \"tcp://:80\"\n", nil, func(s *stage) {
		text := func() string {
			t.Helper()
			m := s.response(t, "n.example")
			if m == nil || len(m.IsEdns0().Option) != 1 {
				t.Fatal(m)
			}
			return m.IsEdns0().Option[0].(*dns.EDNS0_EDE).ExtraText
		}
		for range 2 {
			s.probe("n.example", "192.0.2.1", rank.Refused, time.Millisecond)
			s.pass(time.Second)
		}
		all := text()
		s.probe("n.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.probe("n.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.pass(time.Second)
		for range 2 {
			s.probe("n.example", "192.0.2.1", rank.Refused, time.Millisecond)
			s.pass(time.Second)
		}
		if last := text(); last == all {
			t.Errorf("still %q", last)
		}
		if err := s.Apply(context.Background(), parse(t, "[name.\"n.example\"]\ncandidates = [\"192.0.2.1\"]\ncheck = \"tcp://:80\"\non_all_down = \"nodata\"\n")); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		if m := s.response(t, "n.example"); m == nil || len(m.Answer) != 0 || text() != "all candidates are down" {
			t.Error(m)
		}
	})
}
