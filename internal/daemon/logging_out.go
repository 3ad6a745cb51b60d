package daemon

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lineLimit is the longest line that a pipe takes in one piece when poll says that it takes
// something (PIPE_BUF, pipe(7)). A longer one is cut.
const lineLimit = 4096

// logWriter writes lines without ever waiting. Anything may be behind standard error: a pipe that
// nobody reads, a journal that hangs, a terminal on hold. Its one lock is held for one poll and
// one write that won't block.
type logWriter struct {
	w  io.Writer
	fd int // -1: not a file, w never blocks

	dropped atomic.Uint64

	mu   sync.Mutex // guards what follows, and the order of lines
	said uint64     // dropped lines that were told of
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{w: w, fd: -1}
	if f, ok := w.(*os.File); ok {
		l.fd = int(f.Fd())
	}
	return l
}

// Write writes one line, or counts it as lost.
func (l *logWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready() {
		l.dropped.Add(1)
		return len(b), nil
	}
	if n := l.dropped.Load(); n > l.said {
		fmt.Fprintf(l.w, "%d log lines were lost: nobody read them\n", n-l.said)
		l.said = n
		if !l.ready() {
			l.dropped.Add(1)
			return len(b), nil
		}
	}
	if l.fd >= 0 && len(b) > lineLimit {
		cut := append(append(make([]byte, 0, lineLimit), b[:lineLimit-5]...), " ...\n"...)
		_, err := l.w.Write(cut)
		return len(b), err
	}
	return l.w.Write(b)
}

// ready tells whether a line can be written without waiting.
func (l *logWriter) ready() bool {
	if l.fd < 0 {
		return true
	}
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0 // an error is the write's to tell
	}
}

const (
	repeatFor  = 10 * time.Second // a warning that comes again within this time is counted, not written
	repeatKeys = 512              // different warnings remembered
)

// repeatHandler writes a warning or error that repeats itself once, and at the end of repeatFor
// how often it came again. What is not a problem is a record of what happened, and passes.
type repeatHandler struct {
	slog.Handler
	out   *logWriter
	state *repeats
	with  uint64 // hash of the attributes and groups that the logger carries
}

type repeats struct {
	seed maphash.Seed

	mu    sync.Mutex // guards the rest
	seen  map[uint64]*repeat
	timer *time.Timer // set while anything is counted
}

// repeat is one warning that was written.
type repeat struct {
	h     slog.Handler
	r     slog.Record
	until time.Time
	again int
}

func newRepeatHandler(h slog.Handler, out *logWriter) *repeatHandler {
	return &repeatHandler{Handler: h, out: out, state: &repeats{seed: maphash.MakeSeed(), seen: make(map[uint64]*repeat)}}
}

// Handle is slog.Handler's.
func (h *repeatHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn && h.state.again(h, &r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (h *repeatHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.child(h.Handler.WithAttrs(attrs), fmt.Sprint(attrs))
}

// WithGroup is slog.Handler's.
func (h *repeatHandler) WithGroup(name string) slog.Handler {
	return h.child(h.Handler.WithGroup(name), name)
}

func (h *repeatHandler) child(inner slog.Handler, text string) slog.Handler {
	return &repeatHandler{inner, h.out, h.state, h.with*31 + maphash.String(h.state.seed, text)}
}

// key is the same for two records that say the same.
func (h *repeatHandler) key(r *slog.Record) uint64 {
	var m maphash.Hash
	m.SetSeed(h.state.seed)
	m.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		m.WriteByte(0)
		m.WriteString(a.Key)
		m.WriteByte('=')
		m.WriteString(a.Value.String())
		return true
	})
	return m.Sum64() ^ h.with ^ uint64(r.Level)
}

// again counts a record and reports whether it was written already.
func (s *repeats) again(h *repeatHandler, r *slog.Record) bool {
	k := h.key(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.seen[k]; p != nil && r.Time.Before(p.until) {
		p.again++
		if s.timer == nil {
			s.timer = time.AfterFunc(time.Until(p.until), s.flush)
		}
		return true
	}
	if len(s.seen) >= repeatKeys {
		return false // a flood of different ones: written as they come
	}
	s.seen[k] = &repeat{h: h.Handler, r: r.Clone(), until: r.Time.Add(repeatFor)}
	if s.timer == nil {
		s.timer = time.AfterFunc(repeatFor, s.flush)
	}
	return false
}

// flush tells of repeats whose time is over.
func (s *repeats) flush() {
	var due []*repeat
	s.mu.Lock()
	now := time.Now()
	next := time.Duration(-1)
	for k, p := range s.seen {
		if left := p.until.Sub(now); left > 0 {
			if next < 0 || left < next {
				next = left
			}
			continue
		}
		delete(s.seen, k)
		if p.again > 0 {
			due = append(due, p)
		}
	}
	s.timer = nil
	if next >= 0 {
		s.timer = time.AfterFunc(next, s.flush)
	}
	s.mu.Unlock()
	for _, p := range due {
		r := slog.NewRecord(now, p.r.Level, p.r.Message, 0)
		p.r.Attrs(func(a slog.Attr) bool { r.AddAttrs(a); return true })
		r.AddAttrs(slog.Int("repeated", p.again))
		_ = p.h.Handle(context.Background(), r)
	}
}
