package engine

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hard/internal/rank"
)

// lines is a log that keeps each line as its message and its attributes by key.
type lines struct {
	mu   sync.Mutex
	list []map[string]string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	line := map[string]string{"msg": r.Message}
	r.Attrs(func(a slog.Attr) bool { line[a.Key] = a.Value.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, line)
	return nil
}

// with returns the lines of a message.
func (l *lines) with(msg string) (out []map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.list {
		if line["msg"] == msg {
			out = append(out, line)
		}
	}
	return out
}

// TestLogOfAnswers: a line about an answer that changed says what was answered until then, all-down answers and
// those of several addresses included.
func TestLogOfAnswers(t *testing.T) {
	for _, policy := range []string{"nodata", "all"} {
		log := new(lines)
		playLogged(t, "[defaults]\non_all_down = \""+policy+"\"\nmax_answers = 2\n"+twoNames[len("\n[defaults]\n"):], nil, slog.New(log), func(s *stage) {
			for _, o := range []rank.Outcome{rank.OK, rank.Refused, rank.Refused} {
				for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
					s.probe("a.example", addr, o, time.Millisecond)
				}
			}
			for range 2 {
				s.probe("a.example", "192.0.2.2", rank.OK, time.Millisecond)
			}
			s.pass(coalesce)
			s.wants("a.example", "192.0.2.2")
		})
		was := "192.0.2.1 192.0.2.2" // before the first verdict: all
		changes := log.with("answer changed")
		for _, line := range changes {
			if line["type"] != "A" {
				continue
			}
			if line["from"] != was {
				t.Errorf("%s: %v, but %q was answered", policy, line, was)
			}
			was = line["to"]
		}
		if was != "192.0.2.2" || len(changes) < 3 {
			t.Errorf("%s: %v", policy, changes)
		}
	}
}

// TestGivenBackTwice: to give back what nobody forced is no change, so nothing tells of one.
func TestGivenBackTwice(t *testing.T) {
	log := new(lines)
	playLogged(t, twoNames, nil, slog.New(log), func(s *stage) {
		host := HostKey{"a.example", "192.0.2.1"}
		for _, state := range []rank.Override{rank.Drain, rank.Auto, rank.Auto} {
			if out, err := s.Force(context.Background(), Override{Host: host, State: state}, true); err != nil || len(out) != 1 {
				t.Fatal(out, err)
			}
		}
		synctest.Wait()
		if events := slices.DeleteFunc(seen(s, &s.events), func(e Event) bool { return e.Kind != "override" }); len(events) != 2 {
			t.Errorf("%d events: %+v", len(events), events)
		}
	})
	if list := log.with("override"); len(list) != 2 {
		t.Errorf("%d lines: %v", len(list), list)
	}
}
