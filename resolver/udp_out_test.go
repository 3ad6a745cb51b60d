package resolver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Replies leave by outlets, which get none of the queries: clients of many ports,
// spread among several listeners, are all answered.
func TestOutlets(t *testing.T) {
	listen := []netip.AddrPort{anyPort}
	if c, err := net.Listen("tcp", "[::1]:0"); err == nil {
		c.Close()
		listen = append(listen, netip.MustParseAddrPort("[::1]:0"))
	} else {
		t.Log("no IPv6 here:", err)
	}
	for _, listeners := range []int{1, 3} {
		r := serve(t, Options{Listen: listen, Listeners: listeners}, newFarEnd(t, answerA))
		for _, e := range r.endpoints {
			for _, l := range e.udp {
				if l.out == l.fd {
					t.Fatalf("%s: no outlet", e.addr)
				}
			}
			for range 50 {
				wantA(t, exchange(t, "udp", e.addr, query(tName, dns.TypeA)))
			}
			wantA(t, exchange(t, "udp", e.addr, query("other.example.", dns.TypeA)))
		}
		stopServer(r)
	}
}

// Nobody else gets the address by the way in which outlets get it: not before,
// nor after.
func TestOutletsShareWithNobody(t *testing.T) {
	r := newServer(t, Options{Listeners: 2})
	reuse := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) { setReuse(int(fd), 1) })
	}}
	c, err := reuse.ListenPacket(context.Background(), "udp", r.Addrs()[0].String())
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Error("somebody else has it, too:", err)
	}
}

// A second set of outlets, a successor's, can join a predecessor's.
func TestOutletsOfSuccessor(t *testing.T) {
	r := newServer(t, Options{Listeners: 2})
	e := r.endpoints[0]
	old := []int{e.udp[0].out, e.udp[1].out}
	e.openOutlets()
	for i, l := range e.udp {
		if l.out == l.fd || l.out == old[i] {
			t.Error("no new outlet")
		}
		unix.Close(old[i])
	}
	r.Start()
	wantA(t, exchange(t, "udp", e.addr, query(tName, dns.TypeA)))
}

// Without an outlet replies leave by the listener's own socket.
func TestNoOutlet(t *testing.T) {
	if _, err := newOutlet(netip.MustParseAddrPort("192.0.2.1:5353")); err == nil {
		t.Error("an outlet at an address that is not ours")
	}
	r := newServer(t, Options{})
	for _, l := range r.endpoints[0].udp {
		unix.Close(l.out)
		l.out = l.fd
	}
	r.Start()
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
}
