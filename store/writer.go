package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"syscall"
	"time"

	"hard/internal/bug"
	"hard/internal/rank"
)

// writer owns the database. All its fields belong to the goroutine of run.
type writer struct {
	s   *Store
	log *slog.Logger

	lock    *os.File                 // held from the first successful open on; see lock.go
	db      *sql.DB                  // nil: not open
	conn    *sql.Conn                // the one connection
	st      map[string]*sql.Stmt     // prepared, by text
	tx      bool                     // a transaction is open
	ids     map[rank.Key]*dimension  // ids of endpoints
	results map[resultKey]*dimension // ids of results
	hour    int64                    // the hour of the batch, for their last use
	file    os.FileInfo              // the file that is open, to notice another one in its place
	wal     os.FileInfo              // its -wal; nil while there is none
	args    []any                    // scratch

	spare   []rank.Sample // memory of the last batch
	batch   *batch        // what is being written; nil: nothing
	failing int           // transactions failed in a row
	openAt  time.Time     // when to try to open it again
	backoff time.Duration
	writeAt time.Time // when to try to write again; zero: at the next batch

	until   time.Time // a predecessor may hold the lock until then
	behind  bool      // open, but its migration is still to come
	loadBy  time.Time // until then a migration waits for the first Load; zero: it has been
	held    bool      // the -wal is over its limit and can't be emptied
	clock   clockGuard
	houseAt time.Time // next house-keeping
	rollAt  time.Time // next roll-up
	timesAt int64     // hour of the last look at rollup_time
}

const (
	// predecessorTime is how long an instance that leaves may hold the lock, and predecessorLook how
	// often it is tried; it says when it has left, so this is for one that dies or hangs.
	predecessorTime = 30 * time.Second
	predecessorLook = time.Second

	houseEvery   = 2 * time.Second
	rollEvery    = 10 * time.Second
	leastBackoff = time.Second
	mostBackoff  = 30 * time.Second
)

// writerPriority is the nice value of the writer's thread. A batch of some hundred rows takes several
// milliseconds of a processor, in which queries would wait; at this value it gets a tenth of a busy one.
const writerPriority = 10

// run is the writer's life. The timers are the real clock's: what is stored takes Options.Now.
func (w *writer) run() {
	defer close(w.s.done)
	runtime.LockOSThread() // never unlocked: the thread and its priority end with this goroutine
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, writerPriority)
	if w.loadBy = time.Now().Add(loadFirst); w.s.o.Successor {
		w.until, w.loadBy = time.Now().Add(predecessorTime), time.Time{}
	}
	w.open(time.Now())
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	var soon <-chan time.Time
	for {
		select {
		case <-w.s.stop:
			w.finish()
			return
		case c := <-w.s.calls:
			c.done <- w.answer(&c)
			continue
		case <-w.s.retry:
			w.openAt = time.Time{}
			w.step(time.Now(), false)
			continue
		case <-w.s.soon:
			if soon == nil {
				soon = time.After(soonAfter)
			}
			continue
		case <-soon:
			soon = nil
			w.step(time.Now(), false)
		case <-tick.C:
			w.step(time.Now(), true)
		}
	}
}

// answer runs a call on an open database.
func (w *writer) answer(c *call) (err error) {
	defer w.caught(&err)
	if w.loadBy = (time.Time{}); !c.early {
		w.catchUp(time.Now())
	}
	if w.db == nil {
		return w.unavailable()
	}
	err = c.f(w)
	if err != nil {
		w.rollback()
		w.fault(err, time.Now())
	}
	return err
}

// caught is deferred around what the writer does: a panic is a bug of ours, or of the driver's. The
// database is opened anew; rows that were being written are counted as lost, for with them it might come again.
func (w *writer) caught(err *error) {
	v := recover()
	if v == nil {
		return
	}
	bug.Note(w.log, v, "the history")
	e := fmt.Errorf("a bug: %v", v)
	if err != nil {
		*err = e
	}
	if w.batch != nil {
		w.s.queue.discard(*w.batch)
		w.batch = nil
	}
	w.fault(e, time.Now())
}

// step opens what is closed, writes what waits and, when asked, keeps house.
func (w *writer) step(now time.Time, house bool) {
	defer w.caught(nil)
	if w.db == nil && !w.open(now) {
		return
	}
	if house && w.replaced() {
		w.leave()
		if !w.open(now) {
			return
		}
	}
	if now.Before(w.writeAt) || w.behind && now.Before(w.loadBy) {
		return
	}
	if !w.catchUp(now) || !w.flush(now) || !house {
		return
	}
	if err := w.house(now); err != nil {
		w.rollback()
		w.fault(err, now)
	}
}

// flush writes all that waits and tells whether that went well.
func (w *writer) flush(now time.Time) bool {
	at := w.s.o.Now() // whatever was queued before it is written
	b := w.s.queue.take(!w.held, w.spare)
	b.at = at
	w.spare = nil
	if b.len() == 0 {
		w.spare = b.samples
		return true
	}
	w.batch = &b
	err := w.writeBatch(&b)
	w.batch = nil
	if err == nil {
		w.failing, w.backoff, w.writeAt = 0, 0, time.Time{}
		w.committed(b.len(), w.s.o.Now())
		if !w.held {
			w.become(StateOK, "")
		}
		clear(b.samples) // lets their strings go
		w.spare = b.samples
		return true
	}
	w.rollback()
	w.failing++
	if w.db != nil && hopeless(err) && w.failing >= 3 {
		w.log.Error("history rows can't be stored and are dropped", "rows", b.len(), "error", err)
		w.s.queue.discard(b)
		w.failing = 0
	} else {
		w.s.queue.giveBack(b)
	}
	w.fault(err, now)
	return false
}

// finish is the end: everything is written and the file left so that readers can open it.
func (w *writer) finish() {
	defer w.caught(nil)
	now := time.Now()
	if w.db == nil {
		w.openAt = time.Time{}
		w.open(now)
	}
	if w.db != nil {
		w.held = false
		if w.catchUp(now) && w.flush(now) {
			w.cleanStop()
		}
	}
	w.close()
	w.unlock()
}

// cleanStop notes the time and moves the -wal into the file.
func (w *writer) cleanStop() {
	err := w.set("stopped_ms", w.s.o.Now().UnixMilli())
	if err == nil {
		err = w.checkpoint()
	}
	if err != nil {
		w.log.Debug("history not stopped cleanly", "error", err)
	}
}

// set stores one setting.
func (w *writer) set(key string, value any) error {
	return w.exec(`INSERT OR REPLACE INTO setting (key, value) VALUES (?, ?)`, key, value)
}

// prepare gives the prepared statement of a text.
func (w *writer) prepare(text string) (*sql.Stmt, error) {
	if st := w.st[text]; st != nil {
		return st, nil
	}
	st, err := w.conn.PrepareContext(context.Background(), text)
	if err == nil {
		w.st[text] = st
	}
	return st, err
}

// exec runs a statement, prepared once.
func (w *writer) exec(text string, args ...any) error {
	_, err := w.change(text, args...)
	return err
}

// change is exec for those who want to know what it did.
func (w *writer) change(text string, args ...any) (sql.Result, error) {
	st, err := w.prepare(text)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(context.Background(), args...)
}

// one reads the single value of a query; a missing row leaves into alone.
func (w *writer) one(into any, text string, args ...any) error {
	st, err := w.prepare(text)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(context.Background(), args...).Scan(into)
	if err == sql.ErrNoRows {
		return nil
	}
	return err
}

// begin opens a transaction that may write; commit ends it.
func (w *writer) begin() error {
	err := w.exec("BEGIN IMMEDIATE")
	w.tx = err == nil
	return err
}

func (w *writer) commit() error {
	err := w.exec("COMMIT")
	w.tx = w.tx && err != nil
	return err
}

// rollback undoes an open transaction, and forgets the ids that it may have made.
func (w *writer) rollback() {
	if !w.tx || w.conn == nil {
		return
	}
	w.tx = false
	_ = w.exec("ROLLBACK") // fails where SQLite has rolled back by itself
	clear(w.ids)
	clear(w.results)
}
