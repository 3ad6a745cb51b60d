package resolver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// R18: both families, both transports, and the same port for both.
func TestR18AllFour(t *testing.T) {
	listen := []netip.AddrPort{anyPort}
	if c, err := net.Listen("tcp", "[::1]:0"); err == nil {
		c.Close()
		listen = append(listen, netip.MustParseAddrPort("[::1]:0"))
	} else {
		t.Log("no IPv6 here:", err)
	}
	r := serve(t, Options{Listen: listen})
	for _, a := range r.Addrs() {
		for _, network := range []string{"udp", "tcp"} {
			wantA(t, exchange(t, network, a, query(tName, dns.TypeA)))
			m := exchange(t, network, a, query(tName, dns.TypeAAAA))
			if len(m.Answer) != 1 || m.Answer[0].(*dns.AAAA).AAAA.String() != "2001:db8::1" {
				t.Errorf("%s %s: %v", network, a, m)
			}
		}
	}
}

// R18: without IPv6 it starts with IPv4 and says so; without anything it fails.
func TestR18NoIPv6(t *testing.T) {
	gone := &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	if !isMissingIPv6(netip.MustParseAddrPort("[::1]:53"), gone) {
		t.Error("::1 without IPv6 must be left out")
	}
	if isMissingIPv6(netip.MustParseAddrPort("[2001:db8::1]:53"), gone) || isMissingIPv6(anyPort, gone) {
		t.Error("only ::1 is left out")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("started without an address")
	}
	_, err := New(Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5353")}})
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "192.0.2.1:5353") {
		t.Errorf("an address that is not ours: %v", err)
	}
}

// R17: the reply comes from the address that was asked, of 127/8 too; a
// connected socket would not see another.
func TestR17ReplyFromAskedAddress(t *testing.T) {
	r := serve(t, Options{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.77:0")}}, newFarEnd(t, answerA))
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	wantA(t, exchange(t, "udp", r.Addrs()[0], query("other.example.", dns.TypeA)))
}

// R97: a second instance fails, and says why; R99: a restart does not.
func TestR97SecondInstance(t *testing.T) {
	for _, listeners := range []int{1, 3} {
		first := serve(t, Options{Listeners: listeners})
		at := first.Addrs()
		_, err := New(Options{Listen: at, Listeners: listeners})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("%d listeners: second instance: %v", listeners, err)
		}
		for _, want := range []string{at[0].String(), "udp", fmt.Sprintf("pid %d", os.Getpid())} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not tell %q", err, want)
			}
		}
		wantA(t, exchange(t, "udp", at[0], query(tName, dns.TypeA)))
		c := dial(t, at[0]) // its TIME_WAIT must not keep the restart away (R99)
		stopServer(first)
		c.Close()
		again := serve(t, Options{Listen: at, Listeners: listeners})
		wantA(t, exchange(t, "udp", at[0], query(tName, dns.TypeA)))
		wantA(t, exchange(t, "tcp", at[0], query(tName, dns.TypeA)))
		stopServer(again)
	}
}

// R97: the same if only TCP is taken.
func TestR97PortTakenByTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err = New(Options{Listen: []netip.AddrPort{at}}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "tcp "+at.String()) {
		t.Errorf("%v", err)
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatalf("the failed start keeps the UDP port: %v", err)
	}
	c.Close()
}

func TestPrivilegedPortHint(t *testing.T) {
	err := listenError("udp", netip.MustParseAddrPort("127.0.0.1:53"), &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	for _, want := range []string{"127.0.0.1:53", "cap_net_bind_service", "AmbientCapabilities", "ip_unprivileged_port_start"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell %q", err, want)
		}
	}
}

// Several sockets share the clients of one address.
func TestListenersShare(t *testing.T) {
	r := serve(t, Options{Listeners: 4})
	for range 64 {
		wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
	}
	used := 0
	for _, l := range r.endpoints[0].udp {
		var sum tally
		sum.add(l.counts)
		if sum.replies[1][sourceLocal][0] > 0 {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d of 4 sockets got all 64 clients", used)
	}
}
