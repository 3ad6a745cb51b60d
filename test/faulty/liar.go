package faulty

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Liar is an upstream that answers in octets, over UDP and TCP, so that it can answer what no library would.
type Liar struct {
	Addr netip.AddrPort
	Seen atomic.Int64 // queries

	lie atomic.Pointer[Lie]
}

// Lie is how a Liar answers a query, to which truth is the true reply: by these datagrams, or by these octets on
// a stream, which is closed after them if close says so.
type Lie struct {
	Datagrams func(query, truth []byte) [][]byte
	Stream    func(query, truth []byte) (octets []byte, close bool)
}

// NewLiar starts one on an address of its own. It tells the truth until Tells.
func NewLiar(t testing.TB, in *Namespace) *Liar {
	t.Helper()
	u := &Liar{Addr: Addr()}
	u.Tells(Lie{})
	var pc net.PacketConn
	var l net.Listener
	err := in.Do(func() (err error) {
		if pc, err = net.ListenPacket("udp", u.Addr.String()); err == nil {
			l, err = net.Listen("tcp", u.Addr.String())
		}
		return err
	})
	if err != nil {
		t.Fatalf("upstream: %v", err)
	}
	var wg sync.WaitGroup
	wg.Add(2)
	go func() { defer wg.Done(); u.serveUDP(pc) }()
	go func() { defer wg.Done(); u.serveTCP(l, &wg) }()
	t.Cleanup(func() {
		_ = pc.Close()
		_ = l.Close()
		wg.Wait()
	})
	return u
}

// Tells changes how it answers from now on. What a Lie leaves out is answered with the truth.
func (u *Liar) Tells(l Lie) { u.lie.Store(&l) }

// truthTo packs the reply that an Upstream would give.
func truthTo(query []byte) []byte {
	q := new(dns.Msg)
	if q.Unpack(query) != nil {
		return nil
	}
	b, err := Everything(q).Pack()
	if err != nil {
		return nil
	}
	return b
}

func (u *Liar) serveUDP(pc net.PacketConn) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		u.Seen.Add(1)
		q := append([]byte(nil), buf[:n]...)
		out := [][]byte{truthTo(q)}
		if f := u.lie.Load().Datagrams; f != nil {
			out = f(q, out[0])
		}
		for _, m := range out {
			_, _ = pc.WriteTo(m, from)
		}
	}
}

func (u *Liar) serveTCP(l net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer c.Close()
			for u.serveOne(c) {
			}
		}()
	}
}

// liarPatience is when a Liar closes a connection on which nothing is asked or taken.
const liarPatience = 5 * time.Second

func (u *Liar) serveOne(c net.Conn) bool {
	_ = c.SetDeadline(time.Now().Add(liarPatience))
	size := make([]byte, 2)
	if _, err := io.ReadFull(c, size); err != nil {
		return false
	}
	q := make([]byte, binary.BigEndian.Uint16(size))
	if _, err := io.ReadFull(c, q); err != nil {
		return false
	}
	u.Seen.Add(1)
	truth := truthTo(q)
	out, end := Framed(truth), false
	if f := u.lie.Load().Stream; f != nil {
		out, end = f(q, truth)
	}
	_, err := c.Write(out)
	return err == nil && !end
}

// Framed puts the length of each message in front of it, as over TCP.
func Framed(messages ...[]byte) (out []byte) {
	for _, m := range messages {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(m))), m...)
	}
	return out
}
