package store

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"hard/internal/rank"
)

// TestDocumentedQueries runs every query of docs/database.md on a night in which east failed
// from 03:10 to 03:20.
func TestDocumentedQueries(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/database.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(document), "```sql\n")[1:]
	wants := []string{
		"2026-03-01T03:10:04.000Z|A|192.0.2.11|east is unhealthy",
		"2026-03-01T03:10:04.000Z|api.example.com|east|192.0.2.10|state|healthy|unhealthy|2 failures in a row",
		"east|192.0.2.10|refused|0|connection refused|600|2026-03-01T03:10:00.000Z|2026-03-01T03:19:59.000Z",
		"api.example.com|east|192.0.2.10|2|2026-03-01T03:20:04.000Z",
		"api.example.com|east|192.0.2.10|2026-03-01T03:10:04.000Z|2026-03-01T03:20:04.000Z|600.0|2 failures in a row",
		"2026-03-01T03Z|east|1740|6.0|6.0|6.0",
		"2026-03-01T03Z|1200|6.0|6.0|6.0",
		"", // uptime is about today, and checked below
		"192.0.2.10|2|1434.9",
		"api.example.com|west|192.0.2.11|unhealthy|drain|timeout",
	}
	if len(blocks) != len(wants) {
		t.Fatalf("%d queries, %d expectations", len(blocks), len(wants))
	}

	night := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	path := dbPath(t)
	s, _ := start(t, Options{Path: path, RawFor: 1e6 * time.Hour, RollupFor: 1e6 * time.Hour,
		Now: func() time.Time { return night.Add(30 * time.Minute) }})
	west := key("api.example.com", "west", "192.0.2.11")
	fill(t, s, []rank.Key{west}, night.Add(30*time.Minute), 30*time.Minute, time.Second)
	for at := night; at.Before(night.Add(30 * time.Minute)); at = at.Add(time.Second) {
		p := probeAt(east, at)
		if m := at.Minute(); m >= 10 && m < 20 {
			p.Outcome, p.Status, p.Detail = rank.Refused, 0, "connection refused"
		}
		s.Record(p)
	}
	for _, e := range []Event{
		{At: night.Add(10*time.Minute + 4*time.Second), Old: "healthy", New: "unhealthy", Reason: "2 failures in a row"},
		{At: night.Add(20*time.Minute + 4*time.Second), Old: "unhealthy", New: "healthy", Reason: "2 successes in a row"},
	} {
		e.Key, e.Kind = east, "state"
		s.Event(e)
	}
	for _, a := range []AnswerChange{
		{At: night.Add(-3 * time.Hour), Addresses: []netip.Addr{east.Addr}, Reason: "best"},
		{At: night.Add(10*time.Minute + 4*time.Second), Addresses: []netip.Addr{west.Addr}, Reason: "east is unhealthy"},
		{At: night.Add(15*time.Minute + 10*time.Second), Addresses: []netip.Addr{east.Addr}, Reason: "east is healthy"},
	} {
		a.Name, a.Type = east.Name, "A"
		s.Answer(a)
	}
	s.Put(CurrentState{Key: west, State: rank.Unhealthy, Override: rank.Drain, LastOutcome: rank.Timeout})
	s.sync(t)
	err = s.do(context.Background(), func(w *writer) error { // west is rolled up, east came later: again
		for _, q := range []string{"DELETE FROM rollup_minute", "DELETE FROM rollup_hour", "DELETE FROM setting"} {
			if err := w.exec(q); err != nil {
				return err
			}
		}
		return w.rollUp(night.Add(30 * time.Minute))
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range blocks {
		query, _, _ := strings.Cut(block, "```")
		if got := shell(t, path, query); !strings.Contains(got, wants[i]) {
			t.Errorf("%s\n got %s\nwant %s", query, got, wants[i])
		}
	}

	path = dbPath(t)
	s, _ = start(t, Options{Path: path})
	fill(t, s, []rank.Key{east}, time.Now(), 5*time.Minute, time.Second)
	query, _, _ := strings.Cut(blocks[7], "```")
	if got := shell(t, path, query); !strings.HasPrefix(got, "east|300|99.0|") {
		t.Errorf("%s\n got %s", query, got)
	}
}
