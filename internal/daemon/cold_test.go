package daemon_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"hard/internal/admin"
)

// TestCold: a cold start knows nothing of what was measured, and still what operators forced.
func TestCold(t *testing.T) {
	text, near, far := twoCandidates(t, "93")
	w := watch(t, text)
	w.healthy("api.example", 2)
	near.kill()
	w.answers("api.example", dns.TypeA, "127.0.93.2")
	if code := w.call("POST", "/v1/weight", `{"name":"api.example","candidate":"far","weight":"50%","why":"still in force"}`, nil); code != 200 {
		t.Fatalf("weight: %d", code)
	}
	w.stop()
	far.kill() // a warm start would name it, the last good one

	if rows := w.sqlite("SELECT count(*) FROM current"); !slices.Equal(rows, []string{"3"}) {
		t.Fatalf("rows of the present before: %v", rows)
	}
	one, _, _ := strings.Cut(text, `[name."*.wild.example"]`)
	w.write(strings.ReplaceAll(one, "SOCKET", w.socket))
	w.cold = true
	w.run()
	eventually(t, "all are answered, for none was ever good", func() bool {
		got := addresses(w.ask("udp", 0, "api.example", dns.TypeA))
		slices.Sort(got)
		return slices.Equal(got, []string{"127.0.93.1", "127.0.93.2"})
	})
	w.listens()
	var st admin.Status
	w.call("GET", "/v1/status", "", &st)
	if len(st.Overrides) != 1 || st.Overrides[0].Why != "still in force" {
		t.Errorf("overrides after a cold start: %+v", st.Overrides)
	}
	eventually(t, "the name that is no more is not among the present", func() bool {
		return slices.Equal(w.sqlite("SELECT DISTINCT name FROM current"), []string{"api.example"})
	})
}
