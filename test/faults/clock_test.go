package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// Fault 11: the last run had a clock that was a year ahead, so that all it stored is of the future. That
// counts as old, not as fresh for a year: what it knew of the candidates is not believed, and nothing of
// the history is deleted. (Steps while running: TestFault11ClockIsSet of the engine, TestSteppedClock of the store.)
func TestFault11RowsOfTheFuture(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	s.ready()
	s.Writes()
	s.Stop()
	const year = 365 * 24 * 3600 * 1000
	for _, table := range []string{"probe", "event", "answer"} {
		faulty.SQLite(t, s.DB, fmt.Sprintf("UPDATE %s SET at_ms = at_ms + %d", table, year))
	}
	faulty.SQLite(t, s.DB, fmt.Sprintf("UPDATE endpoint_state SET since_ms = since_ms + %d, checked_ms = checked_ms + %[1]d", year))
	faulty.SQLite(t, s.DB, fmt.Sprintf("UPDATE memory SET at_ms = at_ms + %d", year))
	faulty.SQLite(t, s.DB, fmt.Sprintf("UPDATE setting SET value = value + %d WHERE key IN ('written_ms', 'stopped_ms')", year))
	rows := atoi(t, faulty.SQLite(t, s.DB, countAll))

	// What was the best is dead now. A start that believes the stored state would answer with it.
	s.near.Kill()
	began := time.Now()
	s.Run()
	q := s.api(s.far)
	r, took, err := q.Exchange(nil, s.DNS, 0)
	if err != nil || q.Check(r) != "" || r.Rcode != dns.RcodeSuccess {
		t.Errorf("the first answer after %v: %v %v", took, r, err)
	}
	t.Logf("the first answer, held until it was known: after %v", time.Since(began).Round(time.Millisecond))
	s.Store("ok")
	s.Writes()
	if n := atoi(t, faulty.SQLite(t, s.DB, countAll)); n < rows {
		t.Errorf("%d rows are left of %d", n, rows)
	}
	s.near.Start()
	s.Wants("the nearer candidate again", s.api(s.near))
	faulty.Intact(t, s.DB)
}
