package engine

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"hard/internal/answer"
	"hard/internal/rank"
	"hard/internal/wire"
)

// The first query that waits for a name's first verdict has its first probes brought forward, once: among
// thousands they may be due seconds later.
func TestFirstProbesOfWhatIsAskedFor(t *testing.T) {
	play(t, twoNames, nil, func(s *stage) {
		a1 := rank.Key{Name: "a.example", Candidate: "192.0.2.1", Addr: netip.MustParseAddr("192.0.2.1")}
		a2 := rank.Key{Name: "a.example", Candidate: "192.0.2.2", Addr: netip.MustParseAddr("192.0.2.2")}
		ask := func() {
			if tells(s, "a.example") {
				s.Asked(0)
			}
			s.pass(time.Second)
		}
		if !tells(s, "a.example") || len(seen(s, &s.probed)) > 0 {
			t.Errorf("before a query: probed %v", seen(s, &s.probed))
		}
		ask()
		s.Asked(0) // by a table that was replaced a moment ago
		ask()
		if got := seen(s, &s.probed); !slices.Equal(got, []rank.Key{a1, a2}) {
			t.Errorf("after queries: probed %v", got)
		}
		s.probe("a.example", "192.0.2.1", rank.OK, time.Millisecond)
		s.wants("a.example", "192.0.2.1")
		if tells(s, "a.example") {
			t.Error("its queries are still told of")
		}
	})
}

// tells tells whether the table in force wants queries for a name to be told of.
func tells(s *stage, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	packet, err := wire.AppendName([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name)
	if err != nil {
		s.t.Fatal(err)
	}
	buf := make([]byte, 1500)
	var q wire.Query
	res := s.far.table.Serve(&q, buf, copy(buf, append(packet, 0, 1, 0, 1)), wire.Transport{}, new(answer.Counters).NewRotor())
	return res.Entry != nil && res.Entry.Idle
}
