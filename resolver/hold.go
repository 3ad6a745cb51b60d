package resolver

import (
	"bytes"
	"sync"
	"time"

	"hard/internal/answer"
	"hard/internal/bug"
	"hard/internal/wire"
)

const (
	holdFor = time.Second // contract, section 5, number 6
	maxHeld = 1024        // queries, 1.5 MiB at the very most; beyond, they are answered at once
)

// holds keeps the queries whose answer is not known yet, until the table that
// knows it is published, or their time is over. It is off the listeners' path:
// one goroutine of its own answers them.
type holds struct {
	r    *Resolver
	kick chan struct{} // a table was published, or a query added
	done chan struct{}
	wg   sync.WaitGroup

	// Owned by the goroutine.
	query wire.Query
	rotor *answer.Rotor
	buf   []byte

	mu      sync.Mutex // guards the rest
	list    []heldQuery
	started bool
	stopped bool
}

type heldQuery struct {
	msg   []byte
	from  asker
	until time.Time
}

func newHolds(r *Resolver) *holds {
	return &holds{r: r, kick: make(chan struct{}, 1), done: make(chan struct{}), rotor: r.answers.NewRotor()}
}

// add keeps a copy of msg and reports whether there was room.
func (h *holds) add(msg []byte, from asker) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) >= maxHeld || h.stopped {
		return false
	}
	h.list = append(h.list, heldQuery{bytes.Clone(msg), from, time.Now().Add(holdFor)})
	// The goroutine looks at once: the caller may have seen a table that was
	// replaced a moment ago.
	h.wakeLocked()
	return true
}

// wake has all held queries looked at again.
func (h *holds) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.list) > 0 {
		h.wakeLocked()
	}
}

func (h *holds) wakeLocked() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

func (h *holds) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.list)
}

func (h *holds) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started || h.stopped {
		return
	}
	h.started = true
	h.wg.Add(1)
	go h.run()
}

// stop answers what is held as if its time were over, and joins the goroutine.
func (h *holds) stop() {
	h.mu.Lock()
	if !h.stopped {
		h.stopped = true
		close(h.done)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *holds) run() {
	defer h.wg.Done()
	h.buf = make([]byte, wire.MaxTCP)
	timer := time.NewTimer(holdFor)
	defer timer.Stop()
	for {
		select {
		case <-h.kick:
		case <-timer.C:
		case <-h.done:
			h.look(time.Now().Add(2 * holdFor))
			return
		}
		if next := h.look(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// look answers what can be answered now, and returns when the time of the
// oldest of the rest is over; zero if there are none.
func (h *holds) look(now time.Time) (next time.Time) {
	h.mu.Lock()
	list := h.list
	h.list = nil
	h.mu.Unlock()
	table := h.r.table.Load()
	rest := list[:0]
	for i := range list {
		q := &list[i]
		if !h.answer(table, q, !now.Before(q.until)) {
			rest = append(rest, *q)
		}
	}
	clear(list[len(rest):])
	h.r.fwd.flush()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(rest, h.list...)
	if len(h.list) == 0 {
		return time.Time{}
	}
	return h.list[0].until
}

// answer answers q, or has it forwarded; with over, whatever the table says. It
// reports whether q is done with.
func (h *holds) answer(table *answer.Table, q *heldQuery, over bool) (done bool) {
	done = true // of a panic
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		notePanic(h.r.log, v, "a held query", q.msg)
		size := afterPanic(h.buf, copy(h.buf, q.msg), q.from.transport())
		q.from.replyAs(sourceError, h.buf[:size])
	}()
	bug.Here("held")
	n := copy(h.buf, q.msg)
	tr := q.from.transport()
	if over {
		size, src := answerHeld(table, &h.query, h.buf, n, tr, h.rotor)
		if size == 0 && table != nil { // its name is no longer ours, or forwarded when all is down
			return h.serve(table, q, n, tr)
		}
		q.from.replyAs(src, h.buf[:size])
		return true
	}
	if table == nil {
		return false
	}
	return h.serve(table, q, n, tr)
}

func (h *holds) serve(table *answer.Table, q *heldQuery, n int, tr wire.Transport) (done bool) {
	res := table.Serve(&h.query, h.buf, n, tr, h.rotor)
	switch res.Action {
	case answer.Wait:
		return false
	case answer.Answer:
		q.from.replyAs(sourceOf(res.Source), h.buf[:res.N])
	case answer.Ask:
		h.r.fwd.query(&request{msg: h.buf[:n], q: &h.query, entry: res.Entry, from: q.from})
	default:
		q.from.replyAs(sourceError, nil) // nothing, but its client is told
	}
	return true
}

var notReady = wire.EDEOption(wire.EDENotReady, "starting")

// answerHeld answers a query that can't be held any longer, in place; size 0:
// it is not to be answered here. Without a table nothing is known of any name:
// SERVFAIL.
func answerHeld(table *answer.Table, q *wire.Query, buf []byte, n int, tr wire.Transport, rotor *answer.Rotor) (size int, src source) {
	if table != nil {
		res := table.ServeNow(q, buf, n, tr, rotor)
		if res.Action != answer.Answer {
			return 0, sourceError
		}
		return res.N, sourceOf(res.Source)
	}
	if v := q.Parse(buf[:n]); v != wire.VerdictOK {
		return answer.Reject(q, v, buf, tr), sourceError
	}
	return q.Error(buf, wire.ServFail, notReady, tr), sourceError
}
