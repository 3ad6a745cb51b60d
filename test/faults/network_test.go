package faults

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// Rows 21 to 36: the network and what is at its other end. What one package can show by itself is
// shown there; here is what clients of the whole program see.

// headWith is faulty.Head with several upstreams and less patience.
func headWith(servers ...string) string {
	return strings.Replace(faulty.Head(netip.AddrPort{}), `servers = ["invalid AddrPort"]`,
		"servers = [\""+strings.Join(servers, `", "`)+"\"]\nattempt_timeout = \"300ms\"\ntotal_timeout = \"1500ms\"", 1)
}

// failing asks for what is forwarded and wants SERVFAIL with one of these Extended DNS Errors.
func failing(codes ...uint16) faulty.Question {
	q := faulty.Forwarded()
	q.Check = func(r *dns.Msg) string {
		if opt := r.IsEdns0(); r.Rcode == dns.RcodeServerFailure && opt != nil {
			for _, o := range opt.Option {
				if e, ok := o.(*dns.EDNS0_EDE); ok && slices.Contains(codes, e.InfoCode) {
					return ""
				}
			}
		}
		return fmt.Sprintf("no SERVFAIL with EDE %v: %v", codes, r)
	}
	return q
}

// steady waits until a client has had a row of answers without any SERVFAIL.
func steady(t *testing.T, a *faulty.Asker, question int) {
	t.Helper()
	faulty.Eventually(t, "a row of answers without SERVFAIL", func() bool {
		before := a.SoFar(question).Rcodes["SERVFAIL"]
		a.More(question, 30)
		return a.SoFar(question).Rcodes["SERVFAIL"] == before
	})
}

// firewall is a chain of nftables in a namespace.
type firewall struct{ in *faulty.Namespace }

func newFirewall(t *testing.T, in *faulty.Namespace) *firewall {
	t.Helper()
	faulty.Need(t, "nft", "nftables")
	out, err := in.Command("nft", "add table inet f; add chain inet f out { type filter hook input priority 0; }").CombinedOutput()
	if err != nil {
		t.Skipf("skipped: no nftables here: %v: %s", err, out)
	}
	return &firewall{in}
}

func (f *firewall) rule(format string, args ...any) {
	f.in.Run("nft", "add rule inet f out "+fmt.Sprintf(format, args...))
}

func (f *firewall) open() { f.in.Run("nft", "flush chain inet f out") }

// TestFault21UpstreamSilent: packets to one of two upstreams vanish, then to both, then to none.
func TestFault21UpstreamSilent(t *testing.T) {
	in := faulty.NewNamespace(t)
	fw := newFirewall(t, in)
	first, second := faulty.NewUpstream(t, in, netip.AddrPort{}), faulty.NewUpstream(t, in, netip.AddrPort{})
	h := faulty.Start(t, in, headWith(first.Addr.String(), second.Addr.String())+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)

	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded())
	fw.rule("udp dport %d drop", first.Addr.Port())
	a.More(1, 50)
	a.Clean() // nobody had to ask again

	a = h.Ask(ours(), faulty.Forwarded().OrServfail())
	fw.rule("udp dport %d drop", second.Addr.Port())
	h.Wants("all are silent", failing(dns.ExtendedErrorCodeNoReachableAuthority))
	fw.open()
	h.Wants("it heals by itself", faulty.Forwarded())
	steady(t, a, 1)
	a.Clean()
}

// TestFault22UpstreamRefuses: ICMP for UDP, RST for TCP.
func TestFault22UpstreamRefuses(t *testing.T) {
	needLong(t)
	in := faulty.NewNamespace(t)
	fw := newFirewall(t, in)
	first, second := faulty.NewUpstream(t, in, netip.AddrPort{}), faulty.NewUpstream(t, in, netip.AddrPort{})
	h := faulty.Start(t, in, headWith(first.Addr.String(), second.Addr.String())+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)

	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded().TCP())
	fw.rule("udp dport %d reject", first.Addr.Port())
	fw.rule("tcp dport %d reject with tcp reset", first.Addr.Port())
	a.More(1, 50)
	a.More(2, 50)
	a.Clean()

	a = h.Ask(ours(), faulty.Forwarded().OrServfail(), faulty.Forwarded().TCP().OrServfail())
	fw.rule("udp dport %d reject", second.Addr.Port())
	fw.rule("tcp dport %d reject with tcp reset", second.Addr.Port())
	h.Wants("all refuse", failing(dns.ExtendedErrorCodeNetworkError, dns.ExtendedErrorCodeNoReachableAuthority))
	fw.open()
	h.Wants("it heals by itself", faulty.Forwarded())
	steady(t, a, 1)
	steady(t, a, 2)
	a.Clean()
}

// TestFault24UpstreamHalfOpen: connections to an upstream are established, and then nothing passes.
func TestFault24UpstreamHalfOpen(t *testing.T) {
	needLong(t)
	in := faulty.NewNamespace(t)
	fw := newFirewall(t, in)
	first, second := faulty.NewUpstream(t, in, netip.AddrPort{}), faulty.NewUpstream(t, in, netip.AddrPort{})
	h := faulty.Start(t, in, headWith("tcp://"+first.Addr.String(), "tcp://"+second.Addr.String())+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded().TCP())
	fw.rule("tcp dport %d ct state established drop", first.Addr.Port())
	a.More(1, 40)
	fw.open()
	a.More(1, 40)
	a.More(2, 40)
	a.Clean()
}

// TestFault24UpstreamSlow: an upstream that takes its time is waited for, and holds up nobody else.
func TestFault24UpstreamSlow(t *testing.T) {
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	slow := make(chan struct{})
	up.Answers(func(q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "slow") {
			<-slow
		}
		return faulty.Everything(q)
	})
	h := faulty.Start(t, nil, strings.Replace(headWith(up.Addr.String()), `"1500ms"`, `"30s"`, 1)+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded())
	replies := make(chan error, 20)
	for i := range cap(replies) {
		q := faulty.Forwarded()
		q.Each = func(int) string { return fmt.Sprintf("slow%d.example.", i) }
		go func() {
			r, _, err := q.Exchange(nil, h.DNS, 0)
			if err == nil && q.Check(r) != "" {
				err = fmt.Errorf("%s", q.Check(r))
			}
			replies <- err
		}()
	}
	a.More(1, 50)
	if n := len(replies); n > 0 {
		t.Fatalf("%d slow questions were answered before the upstream did: %v", n, <-replies)
	}
	close(slow)
	for range cap(replies) {
		if err := <-replies; err != nil {
			t.Error(err)
		}
	}
	a.Clean()
}

// TestFault25UpstreamFlaps: one of two upstreams comes and goes: no query is lost, and the log tells of it
// now and then only.
func TestFault25UpstreamFlaps(t *testing.T) {
	needLong(t)
	first, second := faulty.NewUpstream(t, nil, netip.AddrPort{}), faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.Start(t, nil, headWith(first.Addr.String(), second.Addr.String())+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded(), faulty.Forwarded())
	flaps, began, mark := 12, time.Now(), len(h.Log())
	if faulty.Long() {
		flaps = 40
	}
	for i := range flaps {
		first.Mute.Store(i%2 == 0)
		a.More(1, 15)
	}
	first.Mute.Store(false)
	a.More(2, 10)
	a.Clean()
	lines := strings.Count(h.Log()[mark:], "upstream")
	if most := 4 + 4*int(time.Since(began)/(10*time.Second)); lines > most {
		t.Errorf("%d lines about upstreams, want at most %d:\n%s", lines, most, h.Log()[mark:])
	}
}

// newCable makes two namespaces, this host and the rest of the world (10.231.0.2 and on), and the
// cable between them, up0 at this end.
func newCable(t *testing.T) (host, out *faulty.Namespace) {
	t.Helper()
	host, out = faulty.NewNamespace(t), faulty.NewNamespace(t)
	if b, err := exec.Command("ip", "link", "add", "up0", "netns", host.Name, "type", "veth", "peer", "name", "far0", "netns", out.Name).CombinedOutput(); err != nil {
		t.Skipf("skipped: no veth here: %v: %s", err, b)
	}
	host.Run("ip", "addr", "add", "10.231.0.1/24", "dev", "up0")
	host.Run("ip", "link", "set", "up0", "up")
	for i := 2; i < 6; i++ {
		out.Run("ip", "addr", "add", fmt.Sprintf("10.231.0.%d/24", i), "dev", "far0")
	}
	out.Run("ip", "link", "set", "far0", "up")
	return host, out
}

func outside(i int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 231, 0, byte(i)}), port)
}

// TestFault30LinkDownAndUp: forwards fail at once while there is no link, local names are answered all the
// time, probed ones from the last ranking, and all is well again by itself after it.
func TestFault30LinkDownAndUp(t *testing.T) {
	host, out := newCable(t)
	up := faulty.NewUpstream(t, out, outside(2, 53))
	var list []*faulty.Candidate
	var addrs []string
	for i := range 3 {
		c := faulty.NewCandidate(t, out, outside(3+i, 80), time.Duration(i)*20*time.Millisecond)
		list, addrs = append(list, c), append(addrs, c.Addr.Addr().String())
	}
	h := faulty.Start(t, host, headWith(up.Addr.String())+static+probed("api.example", list...))
	h.Wants("the first candidate", faulty.Ours("api.example", addrs[0]))
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Ours("api.example", addrs...), faulty.Forwarded().OrServfail())
	for range 2 {
		host.Run("ip", "link", "set", "up0", "down")
		h.Wants("the kernel says that there is no network", failing(dns.ExtendedErrorCodeNetworkError))
		a.More(1, 50)
		host.Run("ip", "link", "set", "up0", "up")
		h.Wants("forwarding again", faulty.Forwarded())
		steady(t, a, 2)
		faulty.Eventually(t, "all candidates are healthy", func() bool { return healthy(h, "api.example") == len(list) })
	}
	a.Clean()
}

// healthy is how many candidates of a name are.
func healthy(h *faulty.Hard, name string) int {
	for _, n := range h.Status().Names {
		if n.Name == name {
			return n.Healthy
		}
	}
	return -1
}

// TestFault31OwnAddressChanges: this host gets another address, and loses the one that upstream sockets
// and connections are bound to. Local names are answered all the time; forwarding comes back by itself.
func TestFault31OwnAddressChanges(t *testing.T) {
	needLong(t)
	host, out := newCable(t)
	up, viaTCP := faulty.NewUpstream(t, out, outside(2, 53)), faulty.NewUpstream(t, out, outside(3, 53))
	near := faulty.NewCandidate(t, out, outside(4, 80), 0)
	h := faulty.Start(t, host, headWith(up.Addr.String())+"[route.\"tcp.example\"]\nservers = [\"tcp://"+viaTCP.Addr.String()+"\"]\n"+
		static+probed("api.example", near))
	overTCP := faulty.Forwarded()
	overTCP.Each = func(n int) string { return fmt.Sprintf("n%d.tcp.example.", n) }
	h.Wants("the candidate", faulty.Ours("api.example", near.Addr.Addr().String()))
	h.Wants("forwarding", faulty.Forwarded())
	h.Wants("forwarding over TCP", overTCP)
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Ours("api.example", near.Addr.Addr().String()), faulty.Forwarded().OrServfail(), overTCP.OrServfail())
	host.Sysctl("net.ipv4.conf.all.promote_secondaries", "1") // or the first address takes the others with it
	last := "10.231.0.1/24"
	for _, next := range []string{"10.231.0.77/24", "10.231.0.78/24"} {
		host.Run("ip", "addr", "add", next, "dev", "up0")
		host.Run("ip", "addr", "del", last, "dev", "up0")
		last = next
		h.Wants("forwarding from "+next, faulty.Forwarded())
		h.Wants("forwarding over TCP from "+next, overTCP)
		steady(t, a, 2)
		steady(t, a, 3)
	}
	a.Clean()
}

// TestFault32IPv6Gone: a host whose IPv6 goes away while it runs: AAAA has no dead address as long as
// there is none alive, A is served all the time, and IPv6 candidates come back with IPv6.
func TestFault32IPv6Gone(t *testing.T) {
	needLong(t)
	in := faulty.NewNamespace(t)
	in.Sysctl("net.ipv6.conf.all.disable_ipv6", "0")
	port := faulty.Addr().Port()
	in.Run("ip", "-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	v4 := faulty.NewCandidate(t, in, netip.AddrPortFrom(netip.MustParseAddr("127.0.5.1"), port), 0)
	v6 := faulty.NewCandidate(t, in, netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), port), 0)
	h := faulty.Start(t, in, headWith("127.0.5.9:9")+static+probed("api.example", v4, v6))
	aaaa := func(want ...string) faulty.Question {
		return faulty.Question{Name: "api.example", Type: dns.TypeAAAA, Check: func(r *dns.Msg) string {
			if got := faulty.Addresses(r); r.Rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
				return fmt.Sprintf("%s %v, want %v", dns.RcodeToString[r.Rcode], got, want)
			}
			return ""
		}}
	}
	h.Wants("IPv6", aaaa("2001:db8::1"))
	h.Wants("IPv4", faulty.Ours("api.example", "127.0.5.1"))
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Ours("api.example", "127.0.5.1"))
	in.Sysctl("net.ipv6.conf.all.disable_ipv6", "1")
	h.Wants("no IPv6", aaaa())
	a.More(1, 20)
	in.Sysctl("net.ipv6.conf.all.disable_ipv6", "0")
	if out, err := in.Command("ip", "-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad").CombinedOutput(); err != nil && !strings.Contains(string(out), "exists") {
		t.Fatalf("%v: %s", err, out)
	}
	h.Wants("IPv6 again", aaaa("2001:db8::1"))
	a.Clean()
}

// TestFault33StartBeforeNetwork and fault 34: a start without any network waits for nobody. What was known before
// is answered from the store; a candidate that was never resolved is SERVFAIL with EDE 14; both
// heal by themselves when the network comes.
func TestFault33StartBeforeNetwork(t *testing.T) {
	host, out := newCable(t)
	up := faulty.NewUpstream(t, out, outside(2, 53))
	near := faulty.NewCandidate(t, out, outside(3, 80), 0)
	up.Answers(func(q *dns.Msg) *dns.Msg {
		m := faulty.Everything(q)
		if strings.HasSuffix(q.Question[0].Name, "backend.example.") {
			m.Answer = nil
			if q.Question[0].Qtype == dns.TypeA {
				rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A " + near.Addr.Addr().String())
				if err != nil {
					panic(err)
				}
				m.Answer = []dns.RR{rr}
			}
		}
		return m
	})
	name := func(name, host string) string {
		return fmt.Sprintf("[name.%q]\ncandidates = [%q]\ncheck = \"http://:80/\"\ninterval = \"100ms\"\nfast_interval = \"20ms\"\n", name, host)
	}
	h := faulty.New(t, host, headWith(up.Addr.String())+static+name("known.example", "old.backend.example"))
	h.Run()
	known := faulty.Ours("known.example", near.Addr.Addr().String())
	h.Wants("the candidate by its name", known)
	faulty.Eventually(t, "it is healthy", func() bool { return healthy(h, "known.example") == 1 })
	h.Stop()

	host.Run("ip", "link", "set", "up0", "down")
	h.Config(headWith(up.Addr.String()) + static + name("known.example", "old.backend.example") + name("new.example", "new.backend.example"))
	h.Run()
	a := h.Ask(ours(), known, faulty.Forwarded().OrServfail())
	notReady := failing(dns.ExtendedErrorCodeNotReady)
	notReady.Name, notReady.Each = "new.example", nil
	h.Wants("a name whose candidates were never resolved", notReady)
	a.More(1, 50)
	host.Run("ip", "link", "set", "up0", "up")
	h.Wants("the new name", faulty.Ours("new.example", near.Addr.Addr().String()))
	h.Wants("forwarding", faulty.Forwarded())
	steady(t, a, 2)
	a.Clean()
	faulty.LeakCheck(t, h)
}

// TestFault35Loop: two programs that have each other as upstream, beside a good one. What one
// forwards to the other comes back, from when the second of them has started; one notices, and all is
// answered through the good one.
func TestFault35Loop(t *testing.T) {
	needLong(t)
	good := faulty.NewUpstream(t, nil, netip.AddrPort{})
	one, two := faulty.New(t, nil, ""), faulty.New(t, nil, "")
	one.Config(headWith(two.DNS.String(), good.Addr.String()) + static)
	two.Config(headWith(one.DNS.String(), good.Addr.String()) + static)
	one.Run()
	one.Wants("an answer of the good one", faulty.Forwarded())
	one.Says("refuses or cannot be reached", 0)
	two.Run()
	a, b := one.Ask(ours(), faulty.Forwarded().OrServfail()), two.Ask(ours(), faulty.Forwarded().OrServfail())
	faulty.Eventually(t, "one of them notices", func() bool { return strings.Contains(one.Log()+two.Log(), "leads back to us") })
	one.Wants("an answer", faulty.Forwarded())
	two.Wants("an answer", faulty.Forwarded())
	steady(t, a, 1)
	steady(t, b, 1)
	if n := one.Metric("hard_loops_detected_total") + two.Metric("hard_loops_detected_total"); n < 1 {
		t.Errorf("%v loops counted", n)
	}
	before := good.Seen.Load()
	a.More(1, 100)
	if n := good.Seen.Load() - before; n > 20*1000 {
		t.Errorf("100 questions made %d", n)
	}
	a.Clean()
	b.Clean()
}

// TestFault36ResolvConfRewritten: the file that names the upstreams is rewritten, as by DHCP: in place, by
// rename, in two halves, emptied, removed. There is always an upstream that answers.
func TestFault36ResolvConfRewritten(t *testing.T) {
	needLong(t)
	in := faulty.NewNamespace(t)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.6."+strconv.Itoa(i)), 53)
	}
	ups := []*faulty.Upstream{faulty.NewUpstream(t, in, at(1)), faulty.NewUpstream(t, in, at(2))}
	h := faulty.New(t, in, "")
	file := filepath.Join(h.Dir, "resolv.conf")
	line := func(i int) string { return "nameserver 127.0.6." + strconv.Itoa(i) + "\n" }
	mustWrite(t, file, line(1))
	h.Config(headWith("resolv.conf:"+file) + static)
	h.Run()
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded(), faulty.Forwarded().TCP())
	used := func(i int) {
		t.Helper()
		faulty.Eventually(t, fmt.Sprintf("upstream %d is asked, and the other is not", i+1), func() bool {
			mine, other := ups[i].Seen.Load(), ups[1-i].Seen.Load()
			a.More(1, 10)
			return ups[i].Seen.Load() > mine && ups[1-i].Seen.Load() == other
		})
	}
	mustWrite(t, file, line(2))
	used(1)
	mustWrite(t, file+".new", line(1)+line(2))
	mustRename(t, file+".new", file)
	used(0)
	mustWrite(t, file, "") // the first half of a rewrite, with a while until the second
	a.More(1, 100)
	mustWrite(t, file, "# by DHCP\n"+line(2))
	used(1)
	mustRemove(t, file)
	a.More(1, 100)
	if out, code := h.Verb("reload"); code != 0 { // of all moments
		t.Errorf("reload: %d: %s", code, out)
	}
	a.More(1, 100)
	mustWrite(t, file, line(1))
	used(0)
	a.Clean()
}
