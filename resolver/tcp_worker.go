package resolver

import (
	"encoding/binary"
	"slices"

	"hard/internal/answer"
	"hard/internal/bug"
	"hard/internal/wire"
)

// tcpWorker is what one connection needs while it is being served. Connections
// borrow it, so that idle ones cost next to nothing.
type tcpWorker struct {
	r      *Resolver
	in     []byte // what was read
	out    []byte // replies with their lengths in front
	query  wire.Query
	rotor  *answer.Rotor
	counts *counts
	// logging: queries go to the query log. Looked up when the worker is borrowed.
	logging bool
	owed    bool // the query being handled has got no reply, and is nobody else's
}

const (
	tcpFrame = 2 + wire.MaxTCP
	tcpIn    = tcpFrame + 4<<10
	// tcpReply is the room for one answer of ours: some 500 addresses.
	tcpReply = 16 << 10
	// tcpOut is written as soon as it comes together.
	tcpOut = 32 << 10
)

func (s *tcpServer) getWorker() *tcpWorker {
	s.mu.Lock()
	if n := len(s.workers); n > 0 {
		w := s.workers[n-1]
		s.workers = s.workers[:n-1]
		s.mu.Unlock()
		w.logging = s.r.logQuery.Load()
		return w
	}
	s.mu.Unlock()
	return &tcpWorker{r: s.r, in: make([]byte, tcpIn), out: make([]byte, 0, tcpOut+tcpReply+2),
		rotor: s.r.answers.NewRotor(), counts: s.r.newCounts(1), logging: s.r.logQuery.Load()}
}

func (s *tcpServer) putWorker(w *tcpWorker) {
	w.out = w.out[:0]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = append(s.workers, w)
}

// answer puts the reply to msg behind w.out, its length in front, and returns
// its size; 0: there is none, or it comes later by from.
func (w *tcpWorker) answer(msg []byte, from asker, tr wire.Transport) (size int) {
	start := len(w.out) + 2
	w.out = slices.Grow(w.out, 2+max(len(msg), tcpReply))
	buf := w.out[start:cap(w.out)]
	buf = buf[:min(len(buf), wire.MaxTCP)]
	size = w.guarded(buf, msg, from, tr)
	if size > 0 {
		w.out = w.out[:start+size]
		binary.BigEndian.PutUint16(w.out[start-2:], uint16(size))
	}
	return size
}

// guarded is serve for a copy of msg, and SERVFAIL if it panics.
func (w *tcpWorker) guarded(buf, msg []byte, from asker, tr wire.Transport) (size int) {
	w.owed = true
	defer func() {
		x := recover()
		if x == nil {
			return
		}
		size = 0
		notePanic(w.r.log, x, "a query's handling", msg)
		if !w.owed {
			return
		}
		if size = afterPanic(buf, copy(buf, msg), tr); size > 0 {
			w.r.shared[1].noteReply(sourceError, buf[:size], 0)
		}
	}()
	return w.serve(buf, copy(buf, msg), from, tr)
}

func (w *tcpWorker) serve(buf []byte, n int, from asker, tr wire.Transport) (size int) {
	bug.Here("tcp")
	r := w.r
	table := r.table.Load()
	if w.logging && from.at == 0 {
		from.at = int64(r.sinceStart())
	}
	if table == nil {
		return w.hold(nil, buf, n, from, tr)
	}
	res := table.Serve(&w.query, buf, n, tr, w.rotor)
	switch res.Action {
	case answer.Answer:
		size = res.N
		w.counts.note(&w.query, sourceOf(res.Source), buf)
		if w.logging {
			r.logReply(&from, sourceOf(res.Source), buf[:size])
		}
	case answer.Ask:
		w.owed = false
		from.to.later(1)
		if from.at == 0 {
			from.at = int64(r.sinceStart())
		}
		r.fwd.query(&request{msg: buf[:n], q: &w.query, entry: res.Entry, from: from})
	case answer.Wait:
		size = w.hold(table, buf, n, from, tr)
	default:
		inc(&w.counts.dropped)
	}
	if res.Entry != nil && res.Entry.Idle && r.asked != nil {
		r.asked(res.Slot)
	}
	return size
}

func (w *tcpWorker) hold(table *answer.Table, buf []byte, n int, from asker, tr wire.Transport) (size int) {
	from.to.later(1)
	if w.r.held.add(buf[:n], from) {
		w.owed = false
		return 0
	}
	from.to.later(-1)
	size, src := answerHeld(table, &w.query, buf, n, tr, w.rotor)
	if size > 0 {
		w.counts.note(&w.query, src, buf)
		if w.logging {
			w.r.logReply(&from, src, buf[:size])
		}
	}
	return size
}
