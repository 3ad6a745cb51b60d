package answer

import (
	"net/netip"
	"testing"

	"hard/internal/wire"

	"github.com/miekg/dns"
)

// addrs parses addresses.
func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// many are n different addresses of one family.
func many(n int, v6 bool) (out []netip.Addr) {
	for i := range n {
		if v6 {
			out = append(out, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}))
		} else {
			out = append(out, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
		}
	}
	return out
}

// plain is a set that is nothing special.
func plain(a ...netip.Addr) SetSpec { return SetSpec{Addrs: a, Max: 1, EDE: NoEDE} }

// spec is a name with one A and no AAAA.
func spec(name string) *Spec {
	return &Spec{Name: name, TTL: 5, Sets: [2]SetSpec{plain(addrs("192.0.2.1")...), plain()}}
}

func table(t testing.TB, specs ...*Spec) *Table {
	t.Helper()
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	return buildAll(t, names, specs)
}

// client asks a table and reads the replies with miekg/dns.
type client struct {
	t     *testing.T
	table *Table
	tr    wire.Transport
	rotor *Rotor
	now   bool
}

func newClient(t *testing.T, specs ...*Spec) *client {
	t.Helper()
	return &client{t: t, table: table(t, specs...), rotor: new(Counters).NewRotor()}
}

// raw serves one packet; reply is nil unless there was one. It holds what every reply must have.
func (c *client) raw(packet []byte) (reply *dns.Msg, res Result, size int) {
	c.t.Helper()
	buf := make([]byte, wire.MaxUDP)
	if c.tr.TCP {
		buf = make([]byte, wire.MaxTCP)
	}
	n := copy(buf, packet)
	serve := c.table.Serve
	if c.now {
		serve = c.table.ServeNow
	}
	var q wire.Query
	res = serve(&q, buf, n, c.tr, c.rotor)
	if res.Action != Answer {
		if string(buf[:n]) != string(packet) {
			c.t.Errorf("action %d, but the packet was changed", res.Action)
		}
		return nil, res, 0
	}
	reply = new(dns.Msg)
	if err := reply.Unpack(buf[:res.N]); err != nil {
		c.t.Fatalf("miekg/dns does not take %x: %v", buf[:res.N], err)
	}
	if !reply.Response || !reply.RecursionAvailable || reply.Zero || reply.AuthenticatedData {
		c.t.Errorf("header of\n%v", reply)
	}
	return reply, res, res.N
}

// ask serves one question, with what the options do to it.
func (c *client) ask(name string, qtype uint16, options ...func(*dns.Msg)) (*dns.Msg, Result) {
	c.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	for _, o := range options {
		o(m)
	}
	b, err := m.Pack()
	if err != nil {
		c.t.Fatal(err)
	}
	reply, res, _ := c.raw(b)
	if reply != nil && (len(reply.Question) != 1 || reply.Question[0] != m.Question[0] || reply.Id != m.Id) {
		c.t.Errorf("asked %v, got\n%v", m.Question[0], reply)
	}
	if reply != nil && (reply.IsEdns0() != nil) != (m.IsEdns0() != nil) {
		c.t.Errorf("OPT asked %v, got\n%v", m.IsEdns0(), reply)
	}
	return reply, res
}

func edns(size uint16, do bool, options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(size, do)
		m.IsEdns0().Option = options
	}
}

// addresses are those of the answer section, in order.
func addresses(m *dns.Msg) (out []string) {
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	return out
}

// ede is the Extended DNS Error of a reply; nil if there is none.
func ede(m *dns.Msg) *dns.EDNS0_EDE {
	if o := m.IsEdns0(); o != nil {
		for _, option := range o.Option {
			if e, ok := option.(*dns.EDNS0_EDE); ok {
				return e
			}
		}
	}
	return nil
}
