package resolver

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sock is one connected UDP socket towards one upstream. Connected, so that
// the kernel compares the peer's address for us (requirement 60) and ICMP
// errors come back (requirement 67). Guarded by the lane's lock.
type sock struct {
	up      *upstream
	fd      int
	index   int      // in lane.socks, and in epoll's event
	mix     uint32   // for the table of attempts
	used    int      // queries sent
	waiting int      // attempts whose reply is awaited
	list    *attempt // those, chained by snext
	born    int64
	retired bool // closed when nothing is waiting
}

// Source ports (requirement 59). Up to freshRate queries a second leave from
// a socket of their own; above that from a member of a pool, picked at random
// for each batch and replaced after a bounded number of queries and time. (Some
// fresh ones at high rates, too, would be a cost that shows in the p99 only.)
const (
	freshRate   = 100
	freshBurst  = 100
	poolSize    = 256
	sockMaxUse  = 512 // and up to twice that, at random
	sockMaxAge  = 20 * time.Second
	maxOpen     = 4096 // sockets of one lane, whatever happens
	sendBatch   = 64
	sendRetries = 3
)

func (s *sock) add(at *attempt) {
	at.sprev, at.snext = nil, s.list
	if s.list != nil {
		s.list.sprev = at
	}
	s.list = at
	s.waiting++
}

func (s *sock) remove(at *attempt) {
	if at.sprev != nil {
		at.sprev.snext = at.snext
	} else {
		s.list = at.snext
	}
	if at.snext != nil {
		at.snext.sprev = at.sprev
	}
	at.sprev, at.snext = nil, nil
	s.waiting--
}

// sockFor returns the socket for the next query, which it may serve alone, or
// the next batch to u.
func (l *lane) sockFor(u *upstream, now int64) (s *sock, single bool, err error) {
	ul := &u.lanes[l.index]
	if ul.fresh.take(now, freshRate, freshBurst) {
		if s, err = l.openSock(u, now); err == nil {
			s.retired = true // after this one query
			return s, true, nil
		}
	}
	if ul.pool == nil {
		ul.pool = make([]*sock, poolSize)
	}
	i := int(l.rand16()) % poolSize
	s = ul.pool[i]
	if s != nil && !s.retired && s.used < sockMaxUse+int(s.mix%sockMaxUse) && now-s.born < int64(sockMaxAge) {
		return s, false, nil
	}
	if s != nil {
		ul.pool[i] = nil
		ul.pooled--
		l.retire(s)
	}
	if s, err = l.openSock(u, now); err == nil {
		ul.pool[i] = s
		ul.pooled++
		return s, false, nil
	}
	for _, s := range ul.pool { // no descriptors: any port is better than none
		if s != nil && !s.retired {
			return s, false, nil
		}
	}
	return nil, false, err
}

// openSock makes a socket connected to u and watched by the lane's epoll.
func (l *lane) openSock(u *upstream, now int64) (*sock, error) {
	if l.open >= maxOpen || l.epoll == nil || l.stopped {
		return nil, syscall.EMFILE
	}
	if len(l.freeSocks) == 0 {
		l.freeSocks = append(l.freeSocks, len(l.socks))
		l.socks = append(l.socks, nil)
	}
	index := l.freeSocks[len(l.freeSocks)-1]
	fd, err := connectUDP(u.server.Addr)
	if err != nil {
		return nil, err
	}
	s := &sock{up: u, fd: fd, index: index, mix: uint32(l.rng.Uint64()), born: now}
	if err := l.watch(fd, index, s.mix); err != nil {
		unix.Close(fd)
		return nil, err
	}
	l.socks[index] = s
	l.freeSocks = l.freeSocks[:len(l.freeSocks)-1]
	l.open++
	return s, nil
}

// retire closes s as soon as nothing is waiting on it.
func (l *lane) retire(s *sock) {
	s.retired = true
	if s.waiting == 0 {
		l.closeSock(s)
	}
}

func (l *lane) closeSock(s *sock) {
	if s.fd < 0 {
		return
	}
	unix.Close(s.fd) // which takes it out of epoll too
	s.fd = -1
	l.socks[s.index] = nil
	l.freeSocks = append(l.freeSocks, s.index)
	l.open--
}

// dropPool retires the sockets of u's pool.
func (l *lane) dropPool(u *upstream) {
	ul := &u.lanes[l.index]
	for i, s := range ul.pool {
		if s != nil {
			ul.pool[i] = nil
			l.retire(s)
		}
	}
	ul.pool, ul.pooled = nil, 0
}

// dropPools retires the pooled sockets of all upstreams.
func (l *lane) dropPools() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.socks {
		if s != nil {
			l.dropPool(s.up)
		}
	}
}

// sweepPools closes pooled sockets whose time is over.
func (l *lane) sweepPools(now int64) {
	c := l.f.conf.Load()
	if c == nil || now < l.nextSweep {
		return
	}
	l.nextSweep = now + int64(sockMaxAge)/4
	for _, u := range c.all {
		ul := &u.lanes[l.index]
		if ul.pooled == 0 {
			continue
		}
		for i, s := range ul.pool {
			if s != nil && now-s.born >= int64(sockMaxAge) {
				ul.pool[i] = nil
				ul.pooled--
				l.retire(s)
			}
		}
		if ul.pooled == 0 {
			ul.pool = nil
		}
	}
}
