package resolver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/bug"
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
	panics := countPanics()
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
	eventually(t, "three panics", func() bool { return panics() == 3 })
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

// countPanics returns how many panics were caught since. The count is the process's: tests that panic run alone.
func countPanics() (since func() uint64) {
	before := bug.Count()
	return func() uint64 { return bug.Count() - before }
}

// brokenForwarder has a cache, an upstream, and a configuration that lets every query for it panic from then on.
func brokenForwarder(t *testing.T) (f *forwarder, breakIt func()) {
	u := newFarEnd(t, answerA)
	f = cachingForwarder(t, u, 100, time.Hour)
	return f, func() {
		c := *f.conf.Load()
		c.main = nil
		f.conf.Store(&c)
	}
}

// unharmed wants no lane locked, and nothing counted as waiting.
func unharmed(t *testing.T, f *forwarder, panics func() uint64) {
	t.Helper()
	for i, l := range f.lanes {
		eventually(t, "a lane is unlocked", l.mu.TryLock) // its timer and its reader lock it, too
		if l.inflight != 0 || l.oldest != nil {
			t.Errorf("lane %d: %d wait", i, l.inflight)
		}
		l.mu.Unlock()
	}
	if n := f.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
	if n := panics(); n != 1 {
		t.Errorf("%d panics, want one", n)
	}
}

// Fault 20: a panic in the forwarder is one SERVFAIL.
func TestPanicInForwarder(t *testing.T) {
	panics := countPanics()
	f, breakIt := brokenForwarder(t)
	breakIt()
	ch := make(chan []byte, 2)
	b := pack(t, query("p.example.", dns.TypeA))
	var q wire.Query
	q.Parse(b)
	f.query(&request{msg: b, q: &q, from: testAsker(false, func(m []byte) { ch <- bytes.Clone(m) })})
	if r := wait(t, ch); r.Rcode != dns.RcodeServerFailure || len(ch) != 0 {
		t.Errorf("%d more replies after %v", len(ch), r)
	}
	unharmed(t, f, panics)
}

// Fault 20: a panic while an entry of the cache is refreshed is not the client's who caused that: it has its reply.
func TestPanicInRefresh(t *testing.T) {
	panics := countPanics()
	f, breakIt := brokenForwarder(t)
	for range prefetchHits + 1 {
		ask(t, f, question("hot.example.", dns.TypeA), false)
	}
	age(f, 55*time.Second) // of 60
	breakIt()
	ch := make(chan []byte, 2)
	b := pack(t, question("hot.example.", dns.TypeA))
	var q wire.Query
	q.Parse(b)
	f.query(&request{msg: b, q: &q, from: testAsker(false, func(m []byte) { ch <- bytes.Clone(m) })})
	if r := wait(t, ch); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || len(ch) != 0 {
		t.Errorf("%d more replies after %v", len(ch), r)
	}
	unharmed(t, f, panics)
}

// Fault 20: a panic in a look-up of our own is an error of it.
func TestPanicInLookup(t *testing.T) {
	panics := countPanics()
	f, breakIt := brokenForwarder(t)
	breakIt()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if addrs, _, err := f.LookupAddrs(ctx, "l.example", false); !errors.Is(err, ErrLookup) || ctx.Err() != nil {
		t.Errorf("%v %v", addrs, err)
	}
	unharmed(t, f, panics)
}

// Fault 20: of two clients that share a question the second has its reply when that to the first panics, and gets no
// SERVFAIL behind it.
func TestPanicInSharedReply(t *testing.T) {
	panics := countPanics()
	release := make(chan struct{})
	u := newFarEnd(t, func(q []byte, tcp bool) [][]byte { <-release; return answerA(q, tcp) })
	f := testForwarder(t, patient(optionsTo(u)))
	ch := make(chan []byte, 3)
	put := func(id uint16, reply func([]byte)) {
		m := question("shared.example.", dns.TypeA)
		m.Id = id
		b := pack(t, m)
		var q wire.Query
		q.Parse(b)
		f.query(&request{msg: b, q: &q, from: testAsker(true, reply)}) // over TCP replies do not wait for a batch
	}
	put(1, func([]byte) { panic("of a test") })
	put(2, func(m []byte) { ch <- bytes.Clone(m) })
	close(release)
	if r := wait(t, ch); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
		t.Errorf("%v", r)
	}
	eventually(t, "the panic is over", func() bool { return f.waiting.Load() == 0 })
	if len(ch) != 0 {
		t.Errorf("%d more replies", len(ch))
	}
	unharmed(t, f, panics)
}

// Fault 20: a panic when the time of an attempt has come leaves nothing behind: its client is told, and the attempt, for
// which no time is set any more, is over.
func TestPanicWhenDue(t *testing.T) {
	panics := countPanics()
	u := newFarEnd(t, silent)
	f := testForwarder(t, patient(optionsTo(u)))
	for _, l := range f.lanes {
		l.mu.Lock() // so that the time does not come before this is done
	}
	ch := make(chan []byte, 2)
	b := pack(t, query("d.example.", dns.TypeA))
	var q wire.Query
	q.Parse(b)
	l := f.laneOf(q.Hash)
	l.add(f.conf.Load(), &request{msg: b, q: &q, from: testAsker(false, func(m []byte) { ch <- bytes.Clone(m) })}, false, nil)
	l.send(f.now())
	l.oldest.set = nil // which the hedge asks
	for _, l := range f.lanes {
		l.mu.Unlock()
	}
	if r := wait(t, ch); r.Rcode != dns.RcodeServerFailure || len(ch) != 0 {
		t.Errorf("%d more replies after %v", len(ch), r)
	}
	eventually(t, "no attempt waits", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return f.conf.Load().all[0].lanes[l.index].inflight == 0
	})
	unharmed(t, f, panics)
}
