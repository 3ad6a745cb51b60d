package faults

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"hard/test/faulty"
)

// TestWorld sees that the world of these tests works where nothing is broken.
func TestWorld(t *testing.T) {
	for _, in := range []struct {
		name string
		make func(*testing.T) *faulty.Namespace
	}{
		{"here", func(*testing.T) *faulty.Namespace { return nil }},
		{"namespace", func(t *testing.T) *faulty.Namespace { return faulty.NewNamespace(t) }},
	} {
		t.Run(in.name, func(t *testing.T) {
			ns := in.make(t)
			up := faulty.NewUpstream(t, ns, netip.AddrPort{})
			near := faulty.NewCandidate(t, ns, netip.AddrPort{}, 0)
			h := faulty.Start(t, ns, faulty.Head(up.Addr)+static+probed("api.example", near))
			h.Wants("the candidate", faulty.Ours("api.example", near.Addr.Addr().String()))
			faulty.LeakCheck(t, h)
			a := h.Ask(ours(), faulty.Forwarded(), ours().TCP(), faulty.Forwarded().TCP(),
				faulty.Ours("api.example", near.Addr.Addr().String()))
			for i := range 5 {
				a.More(i, 20)
			}
			a.Clean()
			if n := h.Metric("hard_dns_requests_total", `source="local"`); n < 60 {
				t.Errorf("%v local answers counted", n)
			}
			faulty.Eventually(t, "the history is open", func() bool { return h.Status().Store.State == "ok" })
			if s := h.Status(); len(s.Names) != 2 {
				t.Errorf("%+v", s)
			}
			t.Log(h.Usage())
		})
	}
}

// probed is a name with probed candidates, which all listen on one port.
func probed(name string, list ...*faulty.Candidate) string {
	var addrs []string
	for _, c := range list {
		addrs = append(addrs, strconv.Quote(c.Addr.Addr().String()))
	}
	return fmt.Sprintf("[name.%q]\ncandidates = [%s]\ncheck = \"http://:%d/\"\ninterval = \"100ms\"\nfast_interval = \"20ms\"\nhold = \"200ms\"\n",
		name, strings.Join(addrs, ", "), list[0].Addr.Port())
}
