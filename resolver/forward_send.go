package resolver

import (
	"encoding/binary"
	"syscall"
)

// flush sends what query has staged. A UDP listener calls it after each batch.
func (f *forwarder) flush() {
	for _, l := range f.lanes {
		if l.staged.Load() > 0 {
			l.flush()
		}
	}
}

func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send(l.f.now())
}

// addStage puts at up for the next send.
func (l *lane) addStage(at *attempt) {
	at.staged = true
	l.stage = append(l.stage, at)
	l.staged.Store(int32(len(l.stage)))
}

// send sends all that is staged, in batches to one upstream through one
// socket. Errors may stage more, so it goes on until nothing is left.
func (l *lane) send(now int64) {
	for len(l.stage) > 0 {
		n := 0
		var u *upstream
		rest := l.stage[:0]
		for _, at := range l.stage {
			switch {
			case at.fl == nil && at.probe == nil: // its flight ended before it left
				at.staged = false
				l.endAttempt(at)
			case (u == nil || at.up == u) && n < sendBatch:
				u = at.up
				l.batch[n] = at
				n++
			default:
				rest = append(rest, at)
			}
		}
		clear(l.stage[len(rest):])
		l.stage = rest
		if n > 0 {
			l.sendTo(u, l.batch[:n], now)
			clear(l.batch[:n])
		}
	}
	l.staged.Store(0)
}

// sendTo sends batch to u.
func (l *lane) sendTo(u *upstream, batch []*attempt, now int64) {
	if batch[0].fl != nil {
		l.f.lastQuery.Store(now)
		u.health.lastAsked.Store(now)
	}
	n := len(batch)
	for from := 0; from < n; {
		s, single, err := l.sockFor(u, now)
		if err != nil {
			why := failureOf(err)
			if why == failNetwork { // no route
				l.f.wasRefused(u, now)
			}
			for _, at := range batch[from:n] {
				at.staged = false
				l.failed(at, why, now)
			}
			return
		}
		to := n
		if single {
			to = from + 1
		}
		for _, at := range batch[from:to] {
			l.assign(s, at, now)
			l.tx.Add(at.message(), nil)
		}
		l.transmit(s, batch[from:to], now)
		l.tx.Drop()
		from = to
	}
}

func (at *attempt) message() []byte {
	if at.probe != nil {
		return at.probe
	}
	return at.fl.msg
}

// assign gives at a socket, an ID that no other query has on it, and its time.
func (l *lane) assign(s *sock, at *attempt, now int64) {
	id := l.rand16()
	for l.find(s, id) != nil {
		id = l.rand16()
	}
	at.sock, at.id, at.staged, at.sent = s, id, false, now
	binary.BigEndian.PutUint16(at.message(), id)
	p := l.bucket(s, id)
	at.hnext = *p
	*p = at
	s.add(at)
	s.used++
	l.schedule(at, now)
	at.up.lanes[l.index].counts.sent++
}

// schedule sets the first time at which something happens to at if no reply
// comes: the hedge, the attempt's end or the client's deadline.
func (l *lane) schedule(at *attempt, now int64) {
	if at.fl == nil {
		at.expire = now + int64(probeTimeout)
		l.wheel.add(at, at.expire)
		l.arm(at.expire)
		return
	}
	if at.fl.deadline == 0 {
		at.fl.deadline = now + at.fl.conf.total
	}
	at.expire = min(now+at.fl.conf.attempt, at.fl.deadline)
	due := min(now+at.up.health.hedgeDelay(), at.expire)
	if at.sock == nil {
		due = min(now+max(int64(streamHedge), at.up.health.hedgeDelay()), at.expire)
	}
	l.wheel.add(at, due)
	l.arm(due)
}

// transmit sends what is in l.tx, the messages of batch, through s.
func (l *lane) transmit(s *sock, batch []*attempt, now int64) {
	sent, tries := 0, 0
	for sent < len(batch) {
		n, err := l.tx.Try(s.fd, sent)
		if err == 0 {
			sent += n
			continue
		}
		if tries++; err == syscall.EINTR || err == syscall.ECONNREFUSED && tries < sendRetries {
			l.refusedBefore(s, now) // the error of an earlier packet; it is cleared by being told
			continue
		}
		// EAGAIN: the send buffer is full of packets that do not leave. That
		// is no verdict on the upstream; the attempt's timer sees to it.
		if err == syscall.EAGAIN || err == syscall.ENOBUFS {
			return
		}
		old := s.born < now
		for _, at := range batch[sent:] {
			if old {
				l.restage(at)
			} else {
				l.failed(at, failureOf(err), now)
			}
		}
		if s.fd >= 0 {
			l.retire(s)
		}
		if old {
			// Its source address or route is gone, perhaps (fault 31), and so
			// are those of the others. A new socket tells about the upstream.
			l.dropPool(batch[0].up)
		}
		return
	}
}

// restage undoes assign, so that at is sent through another socket.
func (l *lane) restage(at *attempt) {
	at.up.lanes[l.index].counts.sent--
	l.unassign(at)
	l.addStage(at)
}

// refusedBefore ends the attempts that were sent on s before now.
func (l *lane) refusedBefore(s *sock, now int64) {
	for at := s.list; at != nil; {
		next := at.snext
		if at.sent < now {
			l.failed(at, failRefused, now)
		}
		at = next
	}
}

func failureOf(err error) failure {
	switch err {
	case syscall.ECONNREFUSED, syscall.ECONNRESET:
		return failRefused
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EAGAIN, syscall.EADDRNOTAVAIL: // the last two for want of a port
		return failLocal
	}
	return failNetwork
}
