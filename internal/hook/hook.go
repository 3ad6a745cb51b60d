// Package hook tells others of changes: it runs a program and posts to a URL for every change of
// an endpoint's state or of a name's answer.
//
// It owns its queues and workers. Nobody waits for it: a full queue drops the newest change and
// counts it. Changes of one name keep their order, and a program or server that hangs holds up no
// more than its own queue.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hard/internal/bug"
)

// Change is one change, as the program reads it on stdin and the URL gets it.
type Change struct {
	Time      time.Time    `json:"time"`
	Kind      string       `json:"kind"` // state or answer
	Name      string       `json:"name"`
	Candidate string       `json:"candidate,omitempty"` // of kind state, as the next three
	Address   *netip.Addr  `json:"address,omitempty"`
	Old       string       `json:"old,omitempty"`
	New       string       `json:"new,omitempty"`
	Type      string       `json:"type,omitempty"`      // of kind answer: A or AAAA
	Addresses []netip.Addr `json:"addresses,omitempty"` // of kind answer; none: no address is answered
	Reason    string       `json:"reason"`
}

// Bounds. Four workers keep a slow receiver of one name from delaying most of the others.
const (
	workers  = 4
	queueLen = 256 // changes that wait, for each worker
)

// Counters tell what became of the changes; one with two receivers counts twice.
type Counters struct{ Sent, Failed, Dropped uint64 }

// Hook sends changes. Make it with New; Set says where to, Stop ends it.
type Hook struct {
	// immutable
	log    *slog.Logger
	seed   maphash.Seed
	ctx    context.Context // ends what runs
	cancel context.CancelFunc

	// any goroutine
	sent, failed, dropped atomic.Uint64

	mu      sync.RWMutex // guards the rest; held for reading while a change is queued
	command []string
	webhook string
	sinks   []*sink
	stopped bool
	leaving sync.WaitGroup // sinks that Set has replaced
}

// New returns a Hook that sends to nobody.
func New(log *slog.Logger) *Hook {
	h := &Hook{log: log, seed: maphash.MakeSeed()}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Set says where changes go from now on: to a program with its arguments, to a URL, to both or
// to none. What is already queued still goes where it was meant to go.
func (h *Hook) Set(command []string, webhook string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || slices.Equal(h.command, command) && h.webhook == webhook {
		return
	}
	for _, s := range h.sinks {
		h.leaving.Go(s.stop)
	}
	h.command, h.webhook, h.sinks = command, webhook, nil
	if len(command) > 0 {
		h.sinks = append(h.sinks, newSink(h, "on_change", command[0], program(command), func() {}))
	}
	if webhook != "" {
		deliver, closeIdle := post(webhook)
		h.sinks = append(h.sinks, newSink(h, "webhook", shown(webhook), deliver, closeIdle))
	}
}

// Send queues a change. It never waits.
func (h *Hook) Send(c *Change) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.sinks) == 0 {
		return
	}
	text, err := json.Marshal(c)
	if err != nil {
		return // plain data: it can't fail
	}
	worker := maphash.String(h.seed, c.Name) % workers
	for _, s := range h.sinks {
		select {
		case s.queues[worker] <- text:
		default:
			h.dropped.Add(1)
			s.note("queue is full, changes are dropped", nil)
		}
	}
}

// Stats are the counters since New.
func (h *Hook) Stats() Counters {
	return Counters{Sent: h.sent.Load(), Failed: h.failed.Load(), Dropped: h.dropped.Load()}
}

// Stop sends what is queued until ctx ends, then ends what still runs, and joins all workers.
func (h *Hook) Stop(ctx context.Context) {
	h.mu.Lock()
	h.stopped = true
	sinks := h.sinks
	h.sinks = nil
	h.mu.Unlock()
	end := context.AfterFunc(ctx, h.cancel)
	for _, s := range sinks {
		s.stop()
	}
	h.leaving.Wait()
	end()
	h.cancel()
}

// sink is one receiver with its workers.
type sink struct {
	// immutable
	h        *Hook
	what     string
	target   string
	deliver  func(ctx context.Context, text []byte) error
	end      func() // gives back what deliver keeps
	queues   [workers]chan []byte
	wg       sync.WaitGroup
	noteTime atomic.Int64 // of the last log line, Unix nanoseconds
}

// noteEvery bounds the log lines of a receiver that fails.
const noteEvery = time.Minute

func newSink(h *Hook, what, target string, deliver func(context.Context, []byte) error, end func()) *sink {
	s := &sink{h: h, what: what, target: target, deliver: deliver, end: end}
	for i := range s.queues {
		s.queues[i] = make(chan []byte, queueLen)
		s.wg.Go(func() { s.work(s.queues[i]) })
	}
	return s
}

func (s *sink) work(queue <-chan []byte) {
	for text := range queue {
		if s.h.ctx.Err() != nil {
			s.h.dropped.Add(1)
			continue
		}
		if err := s.try(text); err != nil {
			s.h.failed.Add(1)
			s.note("failed", err)
			continue
		}
		s.h.sent.Add(1)
	}
}

// try delivers one change; a panic, a bug, is an error.
func (s *sink) try(text []byte) (err error) {
	err = errors.New("a bug of hard's, see its log")
	defer bug.Caught(s.h.log, "a hook")
	bug.Here("hook")
	return s.deliver(s.h.ctx, text)
}

// note logs a problem, at most once in noteEvery.
func (s *sink) note(what string, err error) {
	now, last := time.Now().UnixNano(), s.noteTime.Load()
	if now-last < int64(noteEvery) || !s.noteTime.CompareAndSwap(last, now) {
		return
	}
	s.h.log.Warn("hook "+s.what+" "+what, "target", s.target, "error", err)
}

// stop ends the workers when they have sent what waits, or the Hook's context has ended. Nobody
// may send to the sink any more.
func (s *sink) stop() {
	for _, q := range s.queues {
		close(q)
	}
	s.wg.Wait()
	s.end()
}
