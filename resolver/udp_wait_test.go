package resolver

import (
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"hard/internal/procs"
)

// askers ask one server without a pause, over UDP, until stop; every query must
// be answered.
type askers struct {
	answered atomic.Uint64
	quit     chan struct{}
	wg       sync.WaitGroup
}

func askAlways(t *testing.T, to netip.AddrPort, m *dns.Msg) *askers {
	t.Helper()
	c, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	a := &askers{quit: make(chan struct{})}
	msg := pack(t, m)
	a.wg.Go(func() {
		defer c.Close()
		buf := make([]byte, 4096)
		for {
			select {
			case <-a.quit:
				return
			default:
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(msg); err != nil {
				t.Error(err)
				return
			}
			if n, err := c.Read(buf); err != nil || n < 12 || buf[3]&15 != 0 {
				t.Errorf("no answer: %d bytes, %v", n, err)
				return
			}
			a.answered.Add(1)
		}
	})
	return a
}

func (a *askers) stop() {
	close(a.quit)
	a.wg.Wait()
}

// more waits for n more answers.
func (a *askers) more(t *testing.T, n uint64) {
	t.Helper()
	want := a.answered.Load() + n
	eventually(t, "answers", func() bool { return t.Failed() || a.answered.Load() >= want })
}

func (s *seats) used() bool { return s.free.Load() < s.added.Load() }

// oneProcessor leaves Go's scheduler one processor until the end of the test.
func oneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() {
		if n := runtime.GOMAXPROCS(before); n != 1 {
			t.Errorf("%d processors at the end, want 1", n)
		}
	})
}

// A listener that is asked again and again takes a seat, and gives it back when
// it is not asked any more; the seat then goes, too.
func TestSeatComesAndGoes(t *testing.T) {
	oneProcessor(t)
	r := newServer(t, Options{Listeners: 1})
	r.seats.idle = 100 * time.Millisecond
	r.Start()
	defer stopServer(r)
	for range 3 {
		a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
		eventually(t, "a seat is taken", r.seats.used)
		if n := runtime.GOMAXPROCS(0); n != 2 || procs.Own() != 1 {
			t.Errorf("%d processors, %d of them own; want 2, 1", n, procs.Own())
		}
		a.more(t, 200)
		a.stop()
		eventually(t, "the seat is free", func() bool { return !r.seats.used() })
		eventually(t, "the seat goes", func() bool { return r.seats.added.Load() == 0 && runtime.GOMAXPROCS(0) == 1 })
		wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA))) // from the poller again
	}
}

// While a listener has a seat, nothing else waits: timers, TCP, other listeners,
// forwards, the garbage collector.
func TestSeatHoldsUpNobody(t *testing.T) {
	oneProcessor(t)
	r := serve(t, Options{Listen: []netip.AddrPort{anyPort, anyPort}, Listeners: 1}, newFarEnd(t, answerA))
	defer stopServer(r)
	a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
	defer a.stop()
	worst := time.Duration(0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		eventually(t, "a seat is taken", r.seats.used)
		fired := make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(fired) })
		<-fired
		wantA(t, exchange(t, "tcp", r.Addrs()[0], query(tName, dns.TypeA)))
		wantA(t, exchange(t, "udp", r.Addrs()[1], query(tName, dns.TypeA)))
		wantA(t, exchange(t, "udp", r.Addrs()[0], query("other.example.", dns.TypeA)))
		began := time.Now()
		runtime.GC()
		worst = max(worst, time.Since(began))
		a.more(t, 1)
	}
	runtime.ReadMemStats(&after)
	t.Logf("worst of 20 collections %v; the world stood still for %v in each, on average", worst,
		time.Duration((after.PauseTotalNs-before.PauseTotalNs)/uint64(max(1, after.NumGC-before.NumGC))))
}

// A listener whose queries go upstream parks, however many they are; one whose
// load changes to such queries gives its seat up.
func TestSeatNotForForwards(t *testing.T) {
	oneProcessor(t)
	r := serve(t, Options{Listeners: 1}, newFarEnd(t, answerA))
	defer stopServer(r)
	a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
	eventually(t, "a seat is taken", r.seats.used)
	a.stop()
	b := askAlways(t, r.Addrs()[0], query("other.example.", dns.TypeA))
	defer b.stop()
	b.more(t, 3*passedMost)
	eventually(t, "the seat is free", func() bool { return !r.seats.used() })
	for range 20 {
		b.more(t, 20)
		if r.seats.used() {
			t.Fatal("a seat for queries that go upstream")
		}
	}
}

// A seated listener notices that it is stopped, and that its address is given up.
func TestSeatEnds(t *testing.T) {
	for range 5 {
		r := newServer(t, Options{Listeners: 1})
		r.Start()
		a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
		eventually(t, "a seat is taken", r.seats.used)
		a.stop()
		change, err := r.PrepareListen([]netip.AddrPort{anyPort, netip.MustParseAddrPort("127.0.0.2:0")})
		if err != nil {
			t.Fatal(err)
		}
		change.Commit()
		b := askAlways(t, r.Addrs()[1], query(tName, dns.TypeA))
		eventually(t, "a seat is taken again", r.seats.used)
		b.stop()
		stopServer(r)
		if r.seats.used() || r.seats.added.Load() != 0 {
			t.Error("a seat is left")
		}
	}
}

// A panic in a seat takes one query with it, and not the seat.
func TestSeatPanic(t *testing.T) {
	panics := countPanics()
	bomb := make(chan bool, 1)
	r := newServer(t, Options{Listeners: 1, Log: new(logged).logger(), Asked: func(int) {
		select {
		case <-bomb:
			panic("bomb")
		default:
		}
	}})
	r.Start()
	defer stopServer(r)
	a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
	eventually(t, "a seat is taken", r.seats.used)
	bomb <- true
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(pack(t, query(tIdle, dns.TypeA))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the panic is counted", func() bool { return panics() == 1 })
	a.more(t, 100)
	eventually(t, "a seat is taken", r.seats.used)
	a.stop()
	eventually(t, "the seat is free", func() bool { return !r.seats.used() })
}

// Who shares the socket makes it non-blocking: a successor that takes it over
// does for a moment. Queries are answered all the same.
func TestSeatOfSharedSocket(t *testing.T) {
	r := newServer(t, Options{Listeners: 1})
	r.Start()
	defer stopServer(r)
	a := askAlways(t, r.Addrs()[0], query(tName, dns.TypeA))
	defer a.stop()
	fd, err := unix.FcntlInt(uintptr(r.endpoints[0].udp[0].fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range 20 {
		eventually(t, "a seat is taken", r.seats.used)
		taken := r.seats.taken.Load()
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another seat is taken", func() bool { return r.seats.taken.Load() > taken })
		a.more(t, 20)
	}
}

// Many queries at once are no case for a seat.
func TestSeatLeftInACrowd(t *testing.T) {
	r := newServer(t, Options{Listeners: 1})
	l := r.endpoints[0].udp[0]
	if l.r.seats.free.Store(1); !l.r.seats.take() {
		t.Fatal("no seat")
	}
	l.pace.seat = true
	l.door.shut()
	for range crowdAfter - 1 {
		l.n = crowd
		l.crowded()
	}
	l.n = 1
	l.crowded()
	if !l.pace.seat {
		t.Fatal("the seat is given up though it was no crowd at last")
	}
	for range crowdAfter {
		l.n = crowd
		l.crowded()
	}
	if l.pace.seat || l.r.seats.free.Load() != 1 {
		t.Error("the seat is kept in a crowd")
	}
	l.r.seats.free.Store(0)
	r.Start()
	defer stopServer(r)
	wantA(t, exchange(t, "udp", r.Addrs()[0], query(tName, dns.TypeA)))
}
