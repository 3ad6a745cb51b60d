package resolver

import (
	"encoding/binary"
	"syscall"

	"hard/internal/wire"
)

// runReader drains the lane's sockets whenever Go's poller says that the
// lane's epoll has something: one goroutine for all sockets, and at most one
// system call for each socket with replies.
func (l *lane) runReader() {
	defer l.wg.Done()
	rc, err := l.epoll.SyscallConn()
	if err != nil {
		l.f.log.Error("replies of upstreams can't be read; only local names are answered, restart hard", "error", err)
		return
	}
	_ = rc.Read(func(fd uintptr) bool { // ends when the file is closed
		for l.drainOnce(int(fd)) {
		}
		select {
		case <-l.done:
			return true
		default:
			return false
		}
	})
}

// drainOnce handles one batch of sockets and reports whether there may be more.
func (l *lane) drainOnce(epfd int) (more bool) {
	more = true // of a panic: what it has left is looked at again, and soon
	defer l.f.recovered()
	n := l.rx.wait(epfd)
	if n <= 0 {
		return false
	}
	l.mu.Lock()
	locked := true
	defer func() {
		if locked { // a panic
			l.mu.Unlock()
		}
	}()
	now := l.f.now()
	flushOut := func() {
		l.send(now)
		l.mu.Unlock()
		locked = false
		sendReplies(l.out)
		clear(l.out)
		l.out = l.out[:0]
		l.rx.Reset()
	}
	for i := range n {
		index, mix := l.rx.event(i)
		for index < len(l.socks) && l.socks[index] != nil && l.socks[index].mix == mix {
			if l.rx.Room() == 0 {
				flushOut()
				l.mu.Lock()
				locked = true
				continue
			}
			if !l.receive(l.socks[index], now) {
				break
			}
		}
	}
	flushOut()
	return n == maxEvents
}

// receive handles the datagrams that wait on s, up to the room in l.rx, and
// reports whether there may be more.
func (l *lane) receive(s *sock, now int64) (more bool) {
	room := l.rx.Room()
	first, n, errno := l.rx.More(s.fd)
	switch errno {
	case 0:
	case syscall.EINTR:
		return true
	case syscall.EAGAIN:
		return false
	default:
		l.sockError(s, failureOf(errno), now)
		return s.fd >= 0 // the error is cleared; there may be datagrams
	}
	for i := range n {
		buf, size, cut := l.rx.packet(first + i)
		l.datagram(s, buf, size, cut, now)
	}
	return n == room
}

// sockError ends the attempts on s: the upstream refuses, or is out of reach.
func (l *lane) sockError(s *sock, why failure, now int64) {
	s.retired = true
	for s.list != nil {
		l.failed(s.list, why, now)
	}
	if s.fd >= 0 && s.waiting == 0 {
		l.closeSock(s)
	}
}

// datagram handles buf[:n], received on s; cut: it was longer than buf.
// Whatever is not the reply to a question asked on s is counted and ignored,
// and the true reply awaited (requirements 60 to 62).
func (l *lane) datagram(s *sock, buf []byte, n int, cut bool, now int64) {
	var at *attempt
	if n >= wire.HeaderLen {
		at = l.find(s, binary.BigEndian.Uint16(buf))
	}
	if at == nil {
		l.stray(s.up)
		return
	}
	l.guarded(at, buf, n, cut, now, true)
}

func (l *lane) stray(u *upstream) { u.lanes[l.index].counts.strays++ }
