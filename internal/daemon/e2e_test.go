package daemon_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/config"
	"hard/internal/daemon"
)

// TestMainJob is the whole of it: real candidates over HTTP and TCP, a real upstream, a real
// client over UDP and TCP, IPv4 and IPv6, a death, and the history read by the sqlite3 program.
func TestMainJob(t *testing.T) {
	needIPv6(t)
	near := newCandidate(t, "127.0.1.1", 0, time.Millisecond)
	port := near.addr.Port()
	middle := newCandidate(t, "127.0.1.2", port, 15*time.Millisecond)
	newCandidate(t, "127.0.1.3", port, 40*time.Millisecond)
	up := newUpstream(t, "127.0.1.53")
	up.set("other.example", "A", "other.example. 60 IN A 192.0.2.77")
	up.set("api.example.com", "MX", "api.example.com. 60 IN MX 10 mail.example.com.")

	h := start(t, fmt.Sprintf(`
[listen]
dns = ["127.0.0.1:0", "[::1]:0"]
http = ""
control = ""
[upstream]
servers = ["%[1]s"]
[store]
path = "DB"
[defaults]
interval = "100ms"
fast_interval = "20ms"
timeout = "1s"
[name."api.example.com"]
candidates = ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
check = "http://:%[2]d/healthz"
[name."db.example.com"]
candidates = ["127.0.1.1", "::1"]
check = "tcp://:%[2]d"
[name."*.wild.example.com"]
candidates = ["127.0.1.2"]
check = "http://wild.example.com:%[2]d/"
`, up.addr, port))

	h.answers("api.example.com", dns.TypeA, "127.0.1.1")
	for listener := range 2 {
		for _, network := range []string{"udp", "tcp"} {
			r := h.ask(network, listener, "API.example.com", dns.TypeA)
			if got := addresses(r); !slices.Equal(got, []string{"127.0.1.1"}) {
				t.Errorf("%s, listener %d: %v", network, listener, got)
			}
			if !r.Authoritative || !r.RecursionAvailable || r.Question[0].Name != "API.example.com." || r.Answer[0].Header().Ttl != 1 {
				t.Errorf("%s, listener %d: %v", network, listener, r)
			}
			r = h.ask(network, listener, "api.example.com", dns.TypeAAAA)
			if r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA {
				t.Errorf("%s, listener %d: not NODATA with SOA: %v", network, listener, r)
			}
			r = h.ask(network, listener, "other.example", dns.TypeA)
			if got := addresses(r); !slices.Equal(got, []string{"192.0.2.77"}) {
				t.Errorf("%s, listener %d: forwarded: %v", network, listener, r)
			}
			r = h.ask(network, listener, "api.example.com", dns.TypeMX)
			if len(r.Answer) != 1 || r.Answer[0].Header().Rrtype != dns.TypeMX {
				t.Errorf("%s, listener %d: other type not forwarded: %v", network, listener, r)
			}
		}
	}
	h.answers("a.b.wild.example.com", dns.TypeA, "127.0.1.2")
	if n := up.asked("api.example.com", "A"); n != 0 {
		t.Errorf("the upstream was asked %d times for a name of ours", n)
	}
	if got := near.agent.Load(); got != "hard/test" {
		t.Errorf("User-Agent %q", got)
	}
	if got, want := near.host.Load(), fmt.Sprintf("api.example.com:%d", port); got != want {
		t.Errorf("Host %q, want %q", got, want)
	}

	near.kill()
	h.answers("api.example.com", dns.TypeA, "127.0.1.2")
	middle.kill()
	h.answers("api.example.com", dns.TypeA, "127.0.1.3")
	near.start()
	middle.start()

	t.Run("history", func(t *testing.T) {
		h := *h
		h.t = t
		eventually(t, "the state change is in events", func() bool {
			return len(h.sqlite("SELECT * FROM events WHERE name='api.example.com' AND address='127.0.1.1' AND kind='state' AND new='unhealthy'")) > 0
		})
		eventually(t, "probes tell of the refusal", func() bool {
			return len(h.sqlite("SELECT * FROM probes WHERE candidate='127.0.1.1' AND outcome='refused'")) > 0
		})
		eventually(t, "each answer is in answers, in order", func() bool {
			want := []string{"127.0.1.1", "127.0.1.2", "127.0.1.3"} // others may be between them: where we were starved, latencies mislead
			for _, got := range h.sqlite("SELECT addresses FROM answers WHERE name='api.example.com' AND type='A' ORDER BY at_ms") {
				if len(want) > 0 && got == want[0] {
					want = want[1:]
				}
			}
			return len(want) == 0
		})
		eventually(t, "current has every endpoint once", func() bool {
			return len(h.sqlite("SELECT name, address, state, selected, latency_ms FROM current")) == 6
		})
		for _, view := range []string{"uptime", "rollups"} {
			if out := h.sqlite("SELECT count(*) FROM " + view); len(out) != 1 {
				t.Errorf("view %s: %v", view, out)
			}
		}
	})
}

// TestTwoFamilies: A and AAAA of a name with endpoints of both.
func TestTwoFamilies(t *testing.T) {
	needIPv6(t)
	v4 := newCandidate(t, "127.0.1.4", 0, 0)
	v6 := newCandidate(t, "::1", v4.addr.Port(), 0)
	h := start(t, fmt.Sprintf(`
UPSTREAM "127.0.1.54:9"
[name."both.example"]
candidates = ["127.0.1.4", "::1"]
check = "http://:%d/"
interval = "100ms"
fast_interval = "20ms"
`, v4.addr.Port()))
	h.answers("both.example", dns.TypeA, "127.0.1.4")
	h.answers("both.example", dns.TypeAAAA, "::1")
	v6.kill()
	eventually(t, "AAAA is NODATA when only the IPv6 endpoint is dead", func() bool {
		r := h.ask("udp", 0, "both.example", dns.TypeAAAA)
		return r.Rcode == dns.RcodeSuccess && len(r.Answer) == 0 && len(r.Ns) == 1
	})
	h.answers("both.example", dns.TypeA, "127.0.1.4")
}

// TestHostNames: candidates given as names are looked up at the upstream, both families, every
// address, and followed as they change.
func TestHostNames(t *testing.T) {
	c := newCandidate(t, "127.0.1.5", 0, 0)
	newCandidate(t, "127.0.1.6", c.addr.Port(), 0)
	up := newUpstream(t, "127.0.1.55")
	up.set("backend.example", "A", "backend.example. 1 IN A 127.0.1.5", "backend.example. 1 IN A 127.0.1.6")
	up.set("backend.example", "AAAA")
	h := start(t, fmt.Sprintf(`
UPSTREAM "%s"
[name."svc.example"]
candidates = ["backend.example"]
check = "http://:%d/"
interval = "100ms"
fast_interval = "20ms"
select = "group"
group_within = "1s"
max_answers = 2
`, up.addr, c.addr.Port()))
	h.answers("svc.example", dns.TypeA, "127.0.1.5", "127.0.1.6")
	c.kill()
	h.answers("svc.example", dns.TypeA, "127.0.1.6")

	// The next run knows the addresses although no upstream answers.
	h.stop()
	up.set("backend.example", "A", "broken")
	h.write(strings.ReplaceAll(read(t, h.file), up.addr.String(), "127.0.1.55:9"))
	h.run()
	h.answers("svc.example", dns.TypeA, "127.0.1.6")
}

// TestReload: a bad file changes nothing, a good one keeps what is known of the names that stay.
func TestReload(t *testing.T) {
	c := newCandidate(t, "127.0.1.7", 0, 0)
	base := fmt.Sprintf(`
UPSTREAM "127.0.1.56:9"
[defaults]
check = "http://:%d/"
interval = "30s"
[name."stays.example"]
candidates = ["127.0.1.7"]
`, c.addr.Port())
	h := start(t, base+"[name.\"goes.example\"]\ncandidates = [\"127.0.1.7\"]\n")
	h.answers("stays.example", dns.TypeA, "127.0.1.7")
	h.answers("goes.example", dns.TypeA, "127.0.1.7")
	before := h.Addrs()

	h.write(base + "[name.\"new.example\"]\ncandidate = 7\n")
	if err := h.Reload(); err == nil {
		t.Fatal("a broken file was taken")
	}
	h.answers("goes.example", dns.TypeA, "127.0.1.7")
	if log := h.logs.String(); !strings.Contains(log, "har.toml:") || !strings.Contains(log, "candidate") {
		t.Errorf("the log doesn't name the place:\n%s", log)
	}

	// interval is 30 s and the candidate is dead now: stays.example can only answer from what was kept.
	c.kill()
	h.write(base + "[name.\"new.example\"]\ncandidates = [\"127.0.1.7\"]\non_all_down = \"nodata\"\n")
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := addresses(h.ask("udp", 0, "stays.example", dns.TypeA)); !slices.Equal(got, []string{"127.0.1.7"}) {
		t.Errorf("a name that stays lost its state: %v", got)
	}
	if r := h.ask("udp", 0, "goes.example", dns.TypeA); len(r.Answer) != 0 || r.Rcode != dns.RcodeServerFailure {
		t.Errorf("a name that went is still answered: %v", r)
	}
	eventually(t, "the new name is served", func() bool {
		r := h.ask("udp", 0, "new.example", dns.TypeA)
		return r.Rcode == dns.RcodeSuccess && len(r.Ns) == 1
	})
	if !slices.Equal(before, h.Addrs()) {
		t.Errorf("the listeners moved from %v to %v", before, h.Addrs())
	}
}

// TestReloadListener: another address is served, the old one is given back.
func TestReloadListener(t *testing.T) {
	text := `
UPSTREAM "127.0.1.57:9"
[name."static.example"]
candidates = ["192.0.2.1"]
check = "static:"
`
	h := start(t, text)
	h.answers("static.example", dns.TypeA, "192.0.2.1")
	old := h.Addrs()[0]
	h.write(strings.ReplaceAll(whole(text), "127.0.0.1:0", "127.0.1.8:0"))
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := h.Addrs()[0].Addr(); got != netip.MustParseAddr("127.0.1.8") {
		t.Fatalf("serving on %v", got)
	}
	h.answers("static.example", dns.TypeA, "192.0.2.1")
	m := new(dns.Msg).SetQuestion("static.example.", dns.TypeA)
	if _, _, err := (&dns.Client{Timeout: time.Second}).Exchange(m, old.String()); err == nil {
		t.Error("the old listener still answers")
	}
}

// TestWarmStart (R90): a restart answers from what was known before any probe of its own has ended.
func TestWarmStart(t *testing.T) {
	dead := newCandidate(t, "127.0.1.9", 0, 0)
	c := newCandidate(t, "127.0.1.10", dead.addr.Port(), 5*time.Millisecond)
	h := start(t, fmt.Sprintf(`
UPSTREAM "127.0.1.58:9"
[name."warm.example"]
candidates = ["127.0.1.9", "127.0.1.10"]
check = "http://:%d/"
interval = "100ms"
fast_interval = "20ms"
`, c.addr.Port()))
	h.answers("warm.example", dns.TypeA, "127.0.1.9")
	dead.kill()
	h.answers("warm.example", dns.TypeA, "127.0.1.10")
	h.stop()
	c.kill() // so that no probe can tell the new run of it
	h.run()
	if got := addresses(h.ask("udp", 0, "warm.example", dns.TypeA)); !slices.Equal(got, []string{"127.0.1.10"}) {
		t.Errorf("the first answer after a restart is %v", got)
	}
}

// TestAllDown: the default policy answers with what was good last, and says so (RFC 8914, code 3).
func TestAllDown(t *testing.T) {
	c := newCandidate(t, "127.0.1.11", 0, 0)
	h := start(t, fmt.Sprintf(`
UPSTREAM "127.0.1.59:9"
[name."down.example"]
candidates = ["127.0.1.11"]
check = "http://:%d/"
interval = "50ms"
fast_interval = "20ms"
`, c.addr.Port()))
	h.answers("down.example", dns.TypeA, "127.0.1.11")
	c.kill()
	eventually(t, "the answer is marked stale", func() bool {
		m := new(dns.Msg).SetQuestion("down.example.", dns.TypeA)
		m.SetEdns0(1232, false)
		r, _, err := new(dns.Client).Exchange(m, h.Addrs()[0].String())
		if err != nil || r.IsEdns0() == nil || !slices.Equal(addresses(r), []string{"127.0.1.11"}) {
			return false
		}
		for _, o := range r.IsEdns0().Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode == dns.ExtendedErrorCodeStaleAnswer {
				return true
			}
		}
		return false
	})
}

// TestUnwritableDatabase: history is lost, service isn't, and the log says so.
func TestUnwritableDatabase(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not-a-directory")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h := start(t, fmt.Sprintf(`
[listen]
dns = ["127.0.0.1:0"]
http = ""
control = ""
[upstream]
servers = ["127.0.1.60:9"]
[store]
path = %q
[name."static.example"]
candidates = ["192.0.2.1"]
check = "static:"
`, filepath.Join(file, "hard.db")))
	h.answers("static.example", dns.TypeA, "192.0.2.1")
	h.badStore = true
	eventually(t, "the log names the database", func() bool { return strings.Contains(h.logs.String(), "not-a-directory") })
}

// TestPortTaken: a second instance fails, names the address, and leaves the database alone.
func TestPortTaken(t *testing.T) {
	text := `
[listen]
dns = ["ADDR"]
http = ""
control = ""
[upstream]
servers = ["127.0.1.61:9"]
[store]
path = "DB"
[name."static.example"]
candidates = ["192.0.2.1"]
check = "static:"
`
	h := start(t, strings.ReplaceAll(text, "ADDR", "127.0.0.1:0"))
	h.answers("static.example", dns.TypeA, "192.0.2.1")
	addr := h.Addrs()[0].String()
	db := filepath.Join(t.TempDir(), "second.db")
	c, report := config.Parse("second.toml", []byte(strings.NewReplacer("ADDR", addr, "DB", db).Replace(text)))
	if c == nil {
		t.Fatal(report.Err())
	}
	d, err := daemon.Start(c, optionsFor(t))
	if err == nil {
		d.Stop(context.Background())
		t.Fatal("two instances share a port")
	}
	if !strings.Contains(err.Error(), addr) {
		t.Errorf("the error doesn't name %s: %v", addr, err)
	}
	if _, err := os.Stat(db); err == nil {
		t.Error("the second instance made a database")
	}
	h.answers("static.example", dns.TypeA, "192.0.2.1")
}
