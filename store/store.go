// Package store keeps the history of hard in a SQLite database: every probe, event and answer
// change, and what a warm start needs. It is the one place that writes the file; people read it
// with any sqlite3 program while we run (docs/database.md).
//
// Ownership: callers put rows into a bounded queue, which drops and counts rather than wait. One
// goroutine, the writer, owns the database connection and everything about it. The database can
// cost history, never an answer: no call here waits for the disk but Load, PutOverride and Close,
// which take a context.
//
// It is not for decisions: it stores what package rank and its users give, and interprets nothing
// but outcome, times and counts.
package store

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"hard/internal/rank"
)

// Options says where and how much to keep. The zero value of a limit is its default.
type Options struct {
	Path      string        // the database; empty: keep nothing
	RawFor    time.Duration // age at which probes go; default 48 h
	RollupFor time.Duration // age at which hour rollups, events and answers go; default 400 d
	MaxSize   int64         // bytes of the file and its -wal; default 512 MiB, at least 4 MiB
	QueueRows int           // rows that wait in memory at most; default 32768, some 8 MB when full
	Log       *slog.Logger
	Now       func() time.Time // the wall clock; default time.Now

	// Successor: another instance has the database and is about to leave. Until it has, nothing is
	// called a fault, and rows wait; Retry says that it has.
	Successor bool
}

const (
	minuteFor     = 30 * 24 * time.Hour // minute rollups become hour rollups
	defaultRaw    = 48 * time.Hour
	defaultRollup = 400 * 24 * time.Hour
	defaultSize   = 512 << 20
	leastSize     = 4 << 20
	defaultRows   = 32768

	batchEvery = time.Second           // probes wait for their commit at most this long
	soonAfter  = 50 * time.Millisecond // events and answers wait this long
)

// Store is a running writer. Its methods may be called by any goroutine.
type Store struct {
	o     Options // immutable
	queue queue

	calls chan call     // work for the writer's goroutine, answered
	retry chan struct{} // the database may be free; never blocks
	soon  chan struct{} // rows that should be written soon; never blocks
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when the writer has ended

	once sync.Once // closes stop

	mu    sync.Mutex // guards what follows; held for copies only
	stats Stats
}

// call is work that the writer's goroutine does for somebody who waits.
type call struct {
	f     func(*writer) error
	early bool       // reads what any schema has: it goes before a migration
	done  chan error // buffered, one value
}

// Open starts a store. It never fails and returns before the file is touched: a database that
// can't be used costs history, is tried again with back-off, and Stats and one log record for
// each change say why.
func Open(o Options) *Store {
	s := &Store{
		o:     o.withDefaults(),
		calls: make(chan call),
		retry: make(chan struct{}, 1),
		soon:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	s.queue.limit = s.o.QueueRows
	s.stats.State = StateStarting
	go (&writer{s: s, log: s.o.Log}).run()
	return s
}

func (o Options) withDefaults() Options {
	if o.RawFor <= 0 {
		o.RawFor = defaultRaw
	}
	if o.RollupFor <= 0 {
		o.RollupFor = defaultRollup
	}
	if o.MaxSize <= 0 {
		o.MaxSize = defaultSize
	}
	o.MaxSize = max(o.MaxSize, leastSize)
	if o.QueueRows <= 0 {
		o.QueueRows = defaultRows
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Record queues one probe. Of a full queue the oldest probe is dropped and counted.
func (s *Store) Record(p rank.Sample) {
	if s.o.Path == "" {
		return
	}
	if s.queue.addSample(p) {
		s.hurry()
	}
}

// add queues a row that is not a probe.
func (s *Store) add(r row) {
	if s.o.Path == "" {
		return
	}
	s.queue.addRow(r)
	s.hurry()
}

// put queues a row of which only the newest matters.
func (s *Store) put(k latestKey, r row) {
	if s.o.Path != "" {
		s.queue.put(k, r)
	}
}

// hurry lets the writer not wait for its next second.
func (s *Store) hurry() {
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

// Retry has the database opened now, if it is closed. It doesn't wait for it.
func (s *Store) Retry() {
	select {
	case s.retry <- struct{}{}:
	default:
	}
}

// do runs f on the writer's goroutine and waits for it or for ctx; after the latter f may still run.
func (s *Store) do(ctx context.Context, f func(*writer) error) error {
	return s.wait(ctx, call{f: f})
}

func (s *Store) wait(ctx context.Context, c call) error {
	c.done = make(chan error, 1)
	select {
	case s.calls <- c:
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.done:
		return err
	case <-s.done:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("the store is closed")

// Close writes what waits, closes the database and ends the writer. When ctx ends first, what
// still waits is lost, and the writer ends as soon as the disk lets it.
func (s *Store) Close(ctx context.Context) error {
	s.once.Do(func() { close(s.stop) })
	select {
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stats.State != StateOK && s.stats.State != StateOff && s.queue.length() > 0 {
		return errors.New("history not written: " + s.stats.Reason)
	}
	return nil
}
