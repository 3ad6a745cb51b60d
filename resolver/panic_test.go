package resolver

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/wire"
)

// Fault 20: whatever can be read of a query whose handling has panicked, its client is told.
func TestAfterPanic(t *testing.T) {
	plain := query(tName, dns.TypeA)
	edns := query(tName, dns.TypeA)
	edns.SetEdns0(1232, true)
	response := query(tName, dns.TypeA)
	response.Response = true
	broken := pack(t, plain)[:15]
	for name, c := range map[string]struct {
		msg       []byte
		silent    bool
		questions int
		ede       bool
	}{
		"plain":       {msg: pack(t, plain), questions: 1},
		"EDNS":        {msg: pack(t, edns), questions: 1, ede: true},
		"no question": {msg: broken},
		"response":    {msg: pack(t, response), silent: true},
		"short":       {msg: broken[:11], silent: true},
		"empty":       {silent: true},
	} {
		buf := make([]byte, udpSize)
		size := afterPanic(buf, copy(buf, c.msg), wire.Transport{})
		if c.silent {
			if size != 0 {
				t.Errorf("%s: %d bytes", name, size)
			}
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:size]); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Rcode != dns.RcodeServerFailure || !m.Response || m.Id != uint16(c.msg[0])<<8|uint16(c.msg[1]) ||
			len(m.Question) != c.questions || (m.IsEdns0() != nil) != c.ede {
			t.Errorf("%s: %v", name, m)
		}
	}
}

// The reply for which nothing but the header is looked at is the same, without a question.
func TestBareServFail(t *testing.T) {
	q := pack(t, query(tName, dns.TypeA))
	m := new(dns.Msg)
	buf := make([]byte, udpSize)
	copy(buf, q)
	if err := m.Unpack(buf[:bareServFail(buf)]); err != nil || m.Rcode != dns.RcodeServerFailure || len(m.Question) != 0 || !m.RecursionDesired {
		t.Errorf("%v %v", m, err)
	}
	if n := bareServFail(buf); n != 0 {
		t.Errorf("%d bytes to a response", n)
	}
}

// bombs lets every record of the query log panic, while set.
type bombs struct {
	slog.Handler
	set *atomic.Bool
}

func (b bombs) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelInfo && b.set.Load() {
		panic("bomb")
	}
	return b.Handler.Handle(ctx, r)
}

// Fault 20: a panic after the reply was made, in the query log, gives no second reply, over UDP and TCP.
func TestPanicAfterReply(t *testing.T) {
	var log logged
	set := new(atomic.Bool)
	r := serve(t, Options{Listeners: 1, Log: slog.New(bombs{log.logger().Handler(), set}), LogQuery: true})
	set.Store(true)
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Write(pack(t, query(tName, dns.TypeA))); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 512)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for range 3 {
		n, err := c.Read(buf)
		m := new(dns.Msg)
		if err == nil {
			err = m.Unpack(buf[:n])
		}
		if err != nil {
			t.Fatal(err)
		}
		wantA(t, m)
	}
	eventually(t, "three panics", func() bool { return r.Stats().Panics == 3 })
	set.Store(false)
	// What comes next is the reply to this one.
	q := query("localhost.", dns.TypeA)
	if _, err := c.Write(pack(t, q)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	m := new(dns.Msg)
	if err == nil {
		err = m.Unpack(buf[:n])
	}
	if err != nil || m.Id != q.Id || m.Question[0].Name != "localhost." {
		t.Fatalf("%v %v", m, err)
	}
	if strings.Count(log.String(), "packet=") != 3 {
		t.Errorf("log: %s", log.String())
	}
}
