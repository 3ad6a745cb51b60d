package store

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hard/internal/rank"
)

// TestLongReader: the -wal stays bounded while a reader sits in a transaction, probes wait,
// events go on, and all is well when the reader ends.
func TestLongReader(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path, MaxSize: leastSize, QueueRows: 20000})
	s.Record(probeAt(east, time.Now()))
	s.sync(t)
	db := raw(t, path)
	must(t, db, "BEGIN", "CREATE TEMP TABLE x AS SELECT count(*) FROM probes")
	n, began := 0, time.Now().Add(-24*time.Hour)
	feed := func() {
		if s.Stats().Queued > 10000 {
			return
		}
		for range 2000 {
			n++
			s.Record(probeAt(east, began.Add(time.Duration(n)*time.Millisecond)))
		}
		time.Sleep(10 * time.Millisecond)
	}
	until(t, "held", func() bool { feed(); keepHouse(t, s); return s.Stats().State == StateHeld })
	before := s.Stats().Written
	s.Event(Event{At: time.Now(), Kind: "guard"})
	until(t, "the event is written", func() bool { return s.Stats().Written > before })
	var wal int64
	_ = s.do(context.Background(), func(w *writer) error { wal = w.walSize(); return nil })
	if batch := int64(4 << 20); wal > leastSize/4+batch { // it is looked at after each batch, 20,000 rows here at most
		t.Errorf("the -wal has %d bytes", wal)
	}
	must(t, db, "ROLLBACK")
	until(t, "ok", func() bool { keepHouse(t, s); return s.Stats().State == StateOK })
	until(t, "all is written", func() bool { return s.Stats().Queued == 0 })
}

// TestReadersAndWriterDontWait: a writer in the midst of a transaction keeps no reader waiting, and
// a reader in the midst of one keeps the writer from nothing.
func TestReadersAndWriterDontWait(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.Event(Event{At: time.Now(), Kind: "start"})
	s.sync(t)
	db := raw(t, path)
	must(t, db, "PRAGMA busy_timeout = 0", "BEGIN")
	events := func() (n int) {
		t.Helper()
		if err := db.QueryRow("SELECT count(*) FROM events").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := events(); n != 1 {
		t.Fatalf("%d events", n)
	}
	err := s.do(context.Background(), func(w *writer) error {
		if err := w.begin(); err != nil {
			return err
		}
		if err := (&Event{At: time.Now(), Kind: "guard"}).write(w); err != nil {
			return err
		}
		must(t, db, "ROLLBACK", "BEGIN")
		if n := events(); n != 1 {
			t.Errorf("%d events while the second is not committed", n)
		}
		return w.commit() // while the reader is in its transaction
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := events(); n != 1 {
		t.Errorf("%d events in the reader's old transaction", n)
	}
	must(t, db, "ROLLBACK")
	if n := events(); n != 2 {
		t.Errorf("%d events after it", n)
	}
}

func TestHopelessRowsAreDropped(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, _ := start(t, Options{Path: path})
	s.add(badRow{})
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "dropped", func() bool { return s.Stats().Dropped["bad"] == 1 })
	s.Event(Event{At: time.Now(), Kind: "start"})
	until(t, "ok again", func() bool { return s.Stats().Written == 1 })
}

type badRow struct{}

func (badRow) kind() string          { return "bad" }
func (badRow) write(w *writer) error { return w.exec("INSERT INTO event (id) VALUES (1)") }

func TestQueueKeepsWhatMatters(t *testing.T) {
	q := queue{limit: 10}
	for i := range 8 {
		q.addSample(rank.Sample{Try: i})
	}
	for i := range 6 {
		q.addRow(&Event{Kind: fmt.Sprint(i)})
	}
	b := q.take(true, nil)
	if len(b.samples) != 4 || b.samples[0].Try != 4 || len(b.rows) != 6 {
		t.Fatalf("%+v", b)
	}
	q.addSample(rank.Sample{Try: 9})
	q.put(latestKey{name: "a"}, &memoryRow{name: "new"})
	b.latest = map[latestKey]row{{name: "a"}: &memoryRow{name: "old"}, {name: "b"}: &memoryRow{name: "b"}}
	q.giveBack(b)
	b = q.take(true, nil)
	if len(b.samples) != 4 || b.samples[0].Try != 5 || b.samples[3].Try != 9 {
		t.Errorf("samples %+v", b.samples)
	}
	if got := b.latest[latestKey{name: "a"}].(*memoryRow).name; got != "new" || len(b.latest) != 2 {
		t.Errorf("latest %q of %d", got, len(b.latest))
	}
	for i := range 12 {
		q.addRow(&Event{Kind: fmt.Sprint(i)})
	}
	if b = q.take(true, nil); len(b.rows) != 10 || b.rows[0].(*Event).Kind != "2" {
		t.Errorf("rows %+v", b.rows)
	}
	if _, dropped := q.counts(); dropped["probe"] != 5 || dropped["event"] != 2 {
		t.Errorf("dropped %v", dropped)
	}
}
