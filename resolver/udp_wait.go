package resolver

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/mmsg"
	"hard/internal/procs"
)

// How a listener waits for its next datagram.
//
// Parked: its goroutine sleeps in Go's poller. That costs nothing while nobody
// asks, and for each query the scheduler's work: two epoll_pwait and, where it
// has a processor to spare, a thread that looks for more to do.
//
// Seated: in a busy period it blocks in recvfrom by a raw call (mmsg.Receiver.Wait)
// and keeps its processor of Go's scheduler, so that a query costs that, sendto and
// one wake-up. Everything else of the process needs processors, too, so each seat
// is one that was added for it (seats).
//
// To block, the socket's description must be a blocking one, also for who shares it:
// a predecessor or successor of ours, whose calls say themselves that they must
// not block, like ours. It may make it non-blocking again, for a moment or by its
// end; then the wait in a seat ends at once, and the next seat mends it.
//
// A listener that finds several datagrams whenever it wakes gives its seat up:
// it hardly waits, and goroutines are switched for less than threads. So does one
// most of whose queries go upstream: its thread and that of the lane's reader would
// preempt each other with the lane's lock held, which makes the p99.

const (
	// seatGap is the longest pause between two queries of a busy period.
	seatGap = 10 * time.Millisecond
	// seatAfter is how many waits in a row, none above seatGap, begin one.
	seatAfter = 4
	// seatWait bounds one wait in a seat. A timeout ends the busy period, and a
	// stop is noticed no later.
	seatWait = 20 * time.Millisecond
	// crowd datagrams at once, crowdAfter times in a row, are too many for a seat.
	crowd, crowdAfter = 4, 8
	// passedMost batches more with queries for upstreams than without are too many for a seat.
	passedMost = 8
	// singles is how many datagrams are waited for, by the cheapest call, between
	// two looks at how many there are.
	singles = 16
	// maxSeats bounds the processors added, whatever the machine has: the garbage
	// collector takes a quarter of them all.
	maxSeats = 4
)

// pace is what a listener knows of its load. Owned by its goroutine.
type pace struct {
	seat    bool
	nice    int           // its thread's before it took the seat
	block   bool          // the next receive waits
	singles int           // how many of those look for one datagram only
	crowds  int           // looks in a row, seated, that found a crowd
	passed  int           // batches with queries for upstreams less those without, 0 to passedMost
	quick   int           // waits in a row, parked, that were short
	parked  time.Duration // when it parked last, by Resolver.sinceStart
}

// receive receives what has come. It waits for that if wait has said so.
func (l *udpListener) receive() (n int, errno syscall.Errno) {
	p := &l.pace
	if !p.block {
		return l.rx.Recv(l.fd)
	}
	p.block = false
	p.singles--
	many := p.singles < 0
	if many {
		p.singles = singles
	}
	if n, errno = l.rx.Wait(l.fd, many); errno == syscall.EAGAIN { // the busy period is over
		l.stand()
		errno = syscall.EINTR // one more look, now that the door is open
	}
	return n, errno
}

// wait is called when the socket is thought to be empty. It reports whether to
// call receive again, which then waits where the listener has a seat; false: it
// is to park.
func (l *udpListener) wait() bool {
	p := &l.pace
	if p.seat {
		if p.block = p.passed < passedMost; !p.block {
			l.stand()
		}
		return true
	}
	now := l.r.sinceStart()
	if l.n < crowd && p.passed == 0 && now-p.parked < seatGap {
		p.quick++
	} else {
		p.quick = 0
	}
	p.parked = now
	if p.quick < seatAfter {
		return false
	}
	p.quick = 0
	if !l.r.seats.take() {
		return false
	}
	if mmsg.MakeWait(l.fd, seatWait) != 0 {
		l.r.seats.give()
		return false
	}
	p.seat, p.singles, p.crowds = true, 0, 0
	p.nice = prompt()
	l.door.shut()
	return true // for what came before the door was shut
}

// passes notes whether some of a batch went upstream.
func (p *pace) passes(some bool) {
	if some {
		p.passed = min(p.passed+1, passedMost)
	} else {
		p.passed = max(p.passed-1, 0)
	}
}

// crowded gives the seat up after many looks in a row that found a crowd.
func (l *udpListener) crowded() {
	p := &l.pace
	if l.n < crowd {
		p.crowds = 0
	} else if p.crowds++; p.crowds >= crowdAfter {
		l.stand()
	}
}

// stand gives the seat back, if there is one. The poller is told only of what comes
// from now on, so whoever calls it looks once more before parking.
func (l *udpListener) stand() {
	p := &l.pace
	if !p.seat {
		return
	}
	p.seat, p.block, p.quick, p.parked = false, false, 0, l.r.sinceStart()
	unhurried(p.nice)
	l.door.open()
	l.r.seats.give()
}

// door stands between a socket and Go's poller, which is told of datagrams only
// while it is open: each one would wake a thread of the scheduler, also when
// somebody else waits for it. It is an epoll instance of its own in the poller's.
type door struct {
	file *os.File
	raw  syscall.RawConn
	epfd int
	fd   int
}

const (
	doorOpen = unix.EPOLLIN | 1<<31 /* EPOLLET */
	doorShut = 1 << 31
)

func newDoor(fd int) (*door, error) {
	file, epfd, err := newEpoll()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err == nil {
		if errno := mmsg.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: doorOpen}); errno != 0 {
			err = os.NewSyscallError("epoll_ctl", errno)
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &door{file: file, raw: raw, epfd: epfd, fd: fd}, nil
}

func (d *door) shut() { d.set(doorShut) }

// open does not always tell the poller of what is there already: epoll_ctl does only
// where it has forgotten the last time.
func (d *door) open() { d.set(doorOpen) }

func (d *door) set(events uint32) {
	mmsg.EpollCtl(d.epfd, unix.EPOLL_CTL_MOD, d.fd, &unix.EpollEvent{Events: events})
}

// newEpoll makes an epoll instance that Go's poller watches.
func newEpoll() (*os.File, int, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, -1, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, -1, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "epoll"), fd, nil
}

// takeFD takes c's socket out of Go's poller: it closes c and returns a descriptor
// of the same socket.
func takeFD(c *net.UDPConn) (fd int, err error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(x uintptr) { fd, err = unix.FcntlInt(x, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return -1, cerr
	}
	return fd, os.NewSyscallError("fcntl", err)
}

// seats are processors added to Go's scheduler for listeners that keep theirs
// while they wait. They are added when they are wanted and taken away when nobody
// has used one for a while, because to change their number stops everything for
// a moment, and more processors than the machine has cost something, too.
type seats struct {
	most int32
	idle time.Duration // free ones go when none was taken between two looks, this far apart

	free   atomic.Int32 // seats that nobody has
	added  atomic.Int32 // written by run alone
	taken  atomic.Uint64
	wanted chan struct{}
	quit   chan struct{}
	wg     sync.WaitGroup // run
}

func newSeats() *seats {
	return &seats{most: int32(min(procs.Own(), maxSeats)), idle: time.Second, wanted: make(chan struct{}, 1), quit: make(chan struct{})}
}

// take takes a seat. If there is none it asks for one more and returns false; it
// never waits.
func (s *seats) take() bool {
	for n := s.free.Load(); n > 0; n = s.free.Load() {
		if s.free.CompareAndSwap(n, n-1) {
			s.taken.Add(1)
			return true
		}
	}
	if s.added.Load() < s.most {
		select {
		case s.wanted <- struct{}{}:
		default:
		}
	}
	return false
}

func (s *seats) give() { s.free.Add(1) }

func (s *seats) start() {
	s.wg.Add(1)
	go s.run()
}

// stop takes the seats away, when nobody has one any more. It may be called
// without start, but only once.
func (s *seats) stop() {
	close(s.quit)
	s.wg.Wait()
}

// run adds and takes away seats until stop.
func (s *seats) run() {
	defer s.wg.Done()
	look := time.NewTicker(time.Hour)
	defer look.Stop()
	var before uint64
	for {
		select {
		case <-s.wanted:
			if s.free.Load() == 0 && s.added.Load() < s.most {
				procs.Borrow(1)
				s.free.Add(1)
				s.added.Add(1)
				look.Reset(s.idle)
			}
		case <-look.C:
			if taken := s.taken.Load(); taken != before {
				before = taken
			} else if s.takeAway(); s.added.Load() == 0 {
				look.Reset(time.Hour)
			}
		case <-s.quit:
			s.takeAway()
			return
		}
	}
}

// takeAway takes all seats away that nobody has.
func (s *seats) takeAway() {
	if n := s.free.Swap(0); n > 0 {
		s.added.Add(-n)
		procs.Return(int(n))
	}
}
