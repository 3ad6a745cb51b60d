package daemon_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hard/internal/admin"
)

// TestExplainThen: with a time, explain gives what it gave at that time, endpoint by endpoint, after
// everything has changed; and where nothing is known of then it says so.
func TestExplainThen(t *testing.T) {
	text, _, far := twoCandidates(t, "18")
	w := watch(t, text)
	w.healthy("api.example", 2)
	then := func(name string, at time.Time, into any) int {
		return w.call("GET", "/v1/explain/"+name+"?at="+url.QueryEscape(at.Format(time.RFC3339Nano)), "", into)
	}
	var before, wild, now, got admin.Explain
	w.call("GET", "/v1/explain/api.example", "", &before)
	w.call("GET", "/v1/explain/a.b.wild.example", "", &wild)
	far.kill()
	w.healthy("api.example", 1)
	w.call("GET", "/v1/explain/api.example", "", &now)

	eventually(t, "it is written", func() bool { return then("api.example", now.At, nil) == http.StatusOK })
	for _, c := range []struct {
		asked string
		want  *admin.Explain
	}{{"api.example", &before}, {"API.example.", &now}, {"a.b.wild.example", &wild}} {
		got = admin.Explain{}
		if code := then(c.asked, c.want.At, &got); code != http.StatusOK {
			t.Fatalf("%s: %d", c.asked, code)
		}
		c.want.At = c.want.At.Truncate(time.Microsecond)
		if diff := cmp.Diff(*c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s: what was explained then, and what is rebuilt:\n%s", c.asked, diff)
		}
	}
	if before.Healthy != 2 || now.Healthy != 1 {
		t.Errorf("%d healthy before, %d after", before.Healthy, now.Healthy)
	}

	var e admin.Error
	if code := then("nope.example", now.At, &e); code != http.StatusNotFound {
		t.Errorf("a name that there was not: %d %+v", code, e)
	}
	if code := then("api.example", now.At.Add(-time.Hour), &e); code != http.StatusGone || e.To.IsZero() || e.Hint == "" {
		t.Errorf("before the first start: %d %+v", code, e)
	}
}

// TestExplainThenWithoutHistory: it can't be read, and the reply says so.
func TestExplainThenWithoutHistory(t *testing.T) {
	text, _, _ := twoCandidates(t, "19")
	w := watch(t, strings.Replace(text, `path = "DB"`, `path = "/proc/hard/hard.db"`, 1))
	w.badStore = true
	var e admin.Error
	if code := w.call("GET", "/v1/explain/api.example?at=1s", "", &e); code != http.StatusServiceUnavailable || !strings.Contains(e.Message, "cannot be read") || e.Hint == "" {
		t.Errorf("%d %+v", code, e)
	}
}
