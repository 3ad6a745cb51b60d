package store

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestFirstAnswersOfARestart: what an earlier run answered last is no change when the next one begins
// with it; anything else is.
func TestFirstAnswersOfARestart(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	began := time.Now().Add(-time.Hour)
	one, two := []netip.Addr{east.Addr}, []netip.Addr{east.Addr, netip.MustParseAddr("192.0.2.77")}
	for run, answers := range [][]AnswerChange{
		{{Addresses: one, First: true, Reason: "a"}, {Type: "AAAA", First: true, Reason: "b"}}, // nothing is known yet: both are news
		{{Addresses: one, First: true, Reason: "c"}, {Type: "AAAA", First: true, Reason: "d"}}, // a restart
		{{Addresses: two, First: true, Reason: "e"}, {Type: "AAAA", Addresses: []netip.Addr{west.Addr}, First: true, Reason: "f"}},
		{{Addresses: two, First: true, Reason: "g"}, {Addresses: two, Reason: "h"}}, // the last one has another reason, while we run
		{{Name: "other.example", Addresses: two, First: true, Reason: "i"}},
	} {
		s, _ := start(t, Options{Path: path})
		for i := range answers {
			a := &answers[i]
			a.At = began.Add(time.Duration(run)*time.Minute + time.Duration(i)*time.Second)
			if a.Name == "" {
				a.Name = east.Name
			}
			if a.Type == "" {
				a.Type = "A"
			}
			s.Answer(*a)
		}
		closeNow(t, s)
	}
	if got := shell(t, path, "SELECT group_concat(reason, '') FROM (SELECT reason FROM answers ORDER BY at_ms)"); got != "abefhi" {
		t.Errorf("rows: %s", got)
	}
	r, err := OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if names, err := r.Names(context.Background()); err != nil || !slices.Equal(names, []string(nil)) {
		t.Errorf("names without endpoints: %v %v", names, err)
	}
}
