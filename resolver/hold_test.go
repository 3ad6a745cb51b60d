package resolver

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// sendTo sends a query over UDP or TCP and returns where its reply is read from.
func sendTo(t *testing.T, r *Resolver, network string, m *dns.Msg) *dns.Conn {
	t.Helper()
	c, err := dns.DialTimeout(network, r.Addrs()[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := c.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	return c
}

func held(r *Resolver, n int) func() bool { return func() bool { return r.Stats().Held == n } }

// A query for a name without verdict waits for the table that has one.
func TestHoldUntilPublished(t *testing.T) {
	r := serve(t, Options{})
	udp := sendTo(t, r, "udp", query(tHold, dns.TypeA))
	tcp := sendTo(t, r, "tcp", query(tHold, dns.TypeA))
	eventually(t, "two held", held(r, 2))
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA))) // others do not wait
	r.Publish(buildTable(t, testSpecs()))                               // no news
	specs := testSpecs()
	specs[1].Sets = specs[0].Sets
	start := time.Now()
	r.Publish(buildTable(t, specs))
	for _, c := range []*dns.Conn{udp, tcp} {
		m, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		wantA(t, m)
	}
	t.Logf("answered %v after the table", time.Since(start))
	eventually(t, "none held", held(r, 0))
}

// Without news it is answered after a second as the table says.
func TestHoldTimesOut(t *testing.T) {
	t.Parallel()
	r := serve(t, Options{})
	start := time.Now()
	m := exchange(t, "udp", r.Addrs()[0], query(tHold, dns.TypeA))
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.9" {
		t.Errorf("%v", m)
	}
	if d := time.Since(start); d < holdFor*9/10 {
		t.Errorf("after %v already", d)
	}
}

// Before the first table everything waits; then it is SERVFAIL, not ready.
func TestHoldWithoutTable(t *testing.T) {
	t.Parallel()
	r := newServer(t, Options{})
	r.table.Store(nil)
	r.Start()
	q := query(tName, dns.TypeA)
	q.SetEdns0(1232, false)
	m := exchange(t, "tcp", r.Addrs()[0], q)
	if m.Rcode != dns.RcodeServerFailure || ede(m) != 14 {
		t.Errorf("%v", m)
	}
	c := sendTo(t, r, "udp", q)
	eventually(t, "held", held(r, 1))
	r.Publish(buildTable(t, testSpecs()))
	if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

// A name that the new table no longer has is forwarded.
func TestHoldThenForward(t *testing.T) {
	r := serve(t, Options{}, newFarEnd(t, answerA))
	c := sendTo(t, r, "udp", query(tHold, dns.TypeA))
	eventually(t, "held", held(r, 1))
	r.Publish(buildTable(t, testSpecs()[:1]))
	if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

// Beyond the bound queries are answered at once.
func TestHoldIsBounded(t *testing.T) {
	r := serve(t, Options{})
	r.held.mu.Lock()
	far := heldQuery{msg: pack(t, query(tHold, dns.TypeA)), from: testAsker(false, func([]byte) {}), until: time.Now().Add(time.Hour)}
	for range maxHeld {
		r.held.list = append(r.held.list, far)
	}
	r.held.mu.Unlock()
	start := time.Now()
	const rounds = 4
	for range rounds {
		for _, network := range []string{"udp", "tcp"} {
			if m := exchange(t, network, r.Addrs()[0], query(tHold, dns.TypeA)); len(m.Answer) != 1 {
				t.Errorf("%v", m)
			}
		}
	}
	if d := time.Since(start); d > 2*rounds*holdFor*9/10 { // what it would take if each were held
		t.Errorf("after %v", d)
	}
}

// Stop answers what is held.
func TestHoldStop(t *testing.T) {
	r := serve(t, Options{})
	c := sendTo(t, r, "udp", query(tHold, dns.TypeA))
	eventually(t, "held", held(r, 1))
	stopServer(r)
	if m, err := c.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("%v, %v", m, err)
	}
}

func TestAsk(t *testing.T) {
	r := serve(t, Options{}, newFarEnd(t, answerA))
	for _, name := range []string{tName, "other.example."} {
		b, err := r.Ask(t.Context(), pack(t, query(name, dns.TypeA)))
		var m dns.Msg
		if err != nil || m.Unpack(b) != nil || len(m.Answer) != 1 {
			t.Errorf("%s: %v, %v", name, &m, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Ask(ctx, []byte("short")); err != context.DeadlineExceeded {
		t.Errorf("garbage: %v", err)
	}
	stopServer(r)
	if _, err := r.Ask(t.Context(), pack(t, query(tName, dns.TypeA))); err != errStopped {
		t.Errorf("stopped: %v", err)
	}
}

// R100: a change of the listen addresses loses no query, and a failed one
// changes nothing.
func TestR100ListenChange(t *testing.T) {
	release := make(chan struct{})
	r := serve(t, Options{}, newFarEnd(t, func(q []byte, tcp bool) [][]byte {
		if q[12] == 4 {
			<-release
		}
		return answerA(q, tcp)
	}))
	old := r.Addrs()[0]
	slow := sendTo(t, r, "udp", query("slow.example.", dns.TypeA))
	eventually(t, "forwarded", func() bool { return r.UpstreamStats()[0].Inflight > 0 })

	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := taken.LocalAddr().(*net.UDPAddr).AddrPort()
	if _, err := r.PrepareListen([]netip.AddrPort{anyPort, bad}); err == nil {
		t.Fatal("took an address that is in use")
	}
	next := netip.MustParseAddrPort("127.0.0.2:0")
	c, err := r.PrepareListen([]netip.AddrPort{anyPort, next}) // anyPort is how the first is configured
	if err != nil {
		t.Fatal(err)
	}
	c.Abort()
	if c, err = r.PrepareListen([]netip.AddrPort{next}); err != nil {
		t.Fatal(err)
	}
	c.Commit()
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	wantA(t, exchange(t, "tcp", r.Addrs()[0], query(tName, dns.TypeA)))
	if len(r.Addrs()) != 1 || r.Addrs()[0] == old {
		t.Errorf("addresses: %v", r.Addrs())
	}
	close(release)
	if m, err := slow.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("the query in flight: %v, %v", m, err)
	}
	if conn, err := net.Dial("tcp", old.String()); err == nil {
		conn.Close()
		t.Error("the old address still accepts")
	}
}
