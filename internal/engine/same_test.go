package engine

import (
	"testing"
	"time"

	"hard/internal/rank"
)

// TestAnswerOfTheSameAddress: an answer that becomes stale, and good again, is recorded with its
// reason, and marked as one that gives nobody another address. The first of a run is marked, too.
func TestAnswerOfTheSameAddress(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		for _, o := range []rank.Outcome{rank.OK, rank.Refused, rank.Refused, rank.OK, rank.OK} {
			s.probe("b.example", "192.0.2.3", o, time.Millisecond)
			s.wants("b.example", "192.0.2.3")
		}
		var list []AnswerChange
		for _, a := range seen(s, &s.answers) {
			if a.Name == "b.example" && a.Family == rank.V4 {
				list = append(list, a)
			}
		}
		want := []struct {
			addrs       int
			first, same bool
		}{{1, true, false}, {1, false, true}, {1, false, true}, {1, false, true}} // what a query waits for, good, last_good, good
		if len(list) != len(want) {
			t.Fatalf("%d changes: %+v", len(list), list)
		}
		for i, w := range want {
			if a := list[i]; len(a.Addresses) != w.addrs || a.First != w.first || a.Same != w.same || a.Reason == "" {
				t.Errorf("%d: %+v, want %+v", i, a, w)
			}
		}
	})
}
