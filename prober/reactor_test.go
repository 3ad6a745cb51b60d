package prober

import (
	"log/slog"
	"testing"
	"time"
)

// Alarms ring in the order of their times, whatever the order in which they were set; one that was
// taken back doesn't ring, and one that was moved rings once.
func TestAlarms(t *testing.T) {
	r, err := newReactor(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	rung := make(chan string, 100)
	named := func(name string) *alarm { return &alarm{ring: func() { rung <- name }} }
	late, early, never, moved, far := named("late"), named("early"), named("never"), named("moved"), named("far")
	last := named("last")
	begin := time.Now()
	r.set(far, time.Hour)
	r.set(moved, 50*time.Minute)
	r.set(late, 800*time.Millisecond)
	r.set(last, 1600*time.Millisecond)
	r.set(never, 1200*time.Millisecond)
	r.set(early, 10*time.Millisecond)
	r.unset(never)
	r.unset(named("never set"))
	r.set(moved, 25*time.Millisecond)
	for _, want := range []string{"early", "moved", "late", "last"} {
		select {
		case got := <-rung:
			if got != want {
				t.Errorf("%s rang, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s never rang", want)
		}
	}
	if passed := time.Since(begin); passed < 1600*time.Millisecond {
		t.Errorf("all had rung after %v", passed)
	}
	r.set(early, -time.Second) // what is overdue rings at once, though an hour was waited for
	select {
	case got := <-rung:
		if got != "early" {
			t.Errorf("%s rang", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("what is overdue never rang")
	}
	if len(rung) > 0 {
		t.Errorf("%s rang as well", <-rung)
	}
}
