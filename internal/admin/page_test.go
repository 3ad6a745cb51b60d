package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

// get asks the loopback server as a browser would.
func get(t testing.TB, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Host = "localhost"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// pageOf serves a backend's pages; some probes have been seen.
func pageOf(f *fake) (http.Handler, *Meter) {
	m := NewMeter()
	for i := range f.snapshot.Names {
		for j := range f.snapshot.Names[i].Endpoints {
			k := f.snapshot.Names[i].Endpoints[j].Key
			for n := range 2 * trailLen {
				o := rank.OK
				if n%17 == 0 {
					o = rank.Timeout
				}
				m.Sample(&rank.Sample{
					Key: k, Outcome: o, Final: true, At: time.Now().Add(time.Duration(n-2*trailLen) * time.Second),
					Phases: rank.Phases{Total: time.Duration(1+n%7) * time.Millisecond},
				})
			}
		}
	}
	return New(Options{Backend: f, Meter: m}).webHandler("127.0.0.1:8053"), m
}

func TestPagePaths(t *testing.T) {
	f := someNames(2)
	h, _ := pageOf(f)
	name := nameLink(f.config.Names[0].Name)
	for _, c := range []struct {
		method, path string
		code         int
		kind, want   string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", f.config.Names[1].Name},
		{"HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"GET", name, 200, "text/html; charset=utf-8", "<svg class=\"chart narrow\""},
		{"GET", name, 200, "text/html; charset=utf-8", "only the probes still in memory: [store].path is empty"},
		{"GET", name + "?hours=48", 200, "text/html; charset=utf-8", "last 48 h"},
		{"GET", name + "?hours=5", 200, "text/html; charset=utf-8", "last 5 h"},
		{"GET", name + "?hours=0", 400, "text/html; charset=utf-8", "from 1 to 48"},
		{"GET", name + "?hours=9999999999999999999", 400, "text/html; charset=utf-8", "from 1 to 48"},
		{"GET", "/name/other.example", 404, "text/html; charset=utf-8", "is not configured"},
		{"GET", "/name/", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/static/page.css", 200, "text/css; charset=utf-8", "prefers-color-scheme: dark"},
		{"GET", "/static/page.js", 200, "text/javascript; charset=utf-8", "use strict"},
		{"GET", "/static/icon.svg", 200, "image/svg+xml", "<svg"},
		{"GET", "/static/layout.html", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/favicon.ico", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/", 405, "text/plain; charset=utf-8", "read only"},
	} {
		w := get(t, h, c.method, c.path)
		if w.Code != c.code || w.Header().Get("Content-Type") != c.kind || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s\n%.300s", c.method, c.path, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "data:") ||
			w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %v", c.method, c.path, w.Header())
		}
	}
}

// TestPageEscapes: nothing that a configuration, a candidate or an operator says becomes markup.
func TestPageEscapes(t *testing.T) {
	const evil = `"'><script>alert(1)</script><img src=x onerror=alert(2)>`
	f := someNames(1)
	v := &f.snapshot.Names[0]
	f.config.Names[0].Name, f.config.File = evil, evil
	v.Name = evil
	for i := range v.Endpoints {
		v.Endpoints[i].Key.Name, v.Endpoints[i].Key.Candidate = evil, evil
	}
	f.snapshot.Overrides = []engine.Override{{Host: engine.HostKey{Name: evil, Candidate: evil}, State: rank.Drain, Who: evil, Why: evil}}
	h, m := pageOf(f)
	m.trail.answered(evil, change{time.Now(), "A", evil, true})
	for _, path := range []string{"/", "/name/" + url.PathEscape(evil), "/name/" + url.PathEscape("<script>alert(3)</script>")} {
		body := get(t, h, "GET", path).Body.String()
		if strings.Contains(body, "<script>") || strings.Contains(body, "<img") || strings.Count(body, "<script ") != 1 {
			t.Errorf("%s:\n%s", path, body)
		}
		if !strings.Contains(body, "&lt;script&gt;") {
			t.Errorf("%s does not show what it is about", path)
		}
	}
	c := chart{until: time.Now(), hours: 1, rows: []chartRow{{label: evil, address: evil}}, marks: []mark{{time.Now(), evil}}}
	if svg := string(c.both()); strings.Contains(svg, "<script") || strings.Contains(svg, "<img") {
		t.Error(svg)
	}
}

// TestPageInline: the Content-Security-Policy would suppress inline styles and handlers, so that
// there may be none.
func TestPageInline(t *testing.T) {
	f := someNames(3)
	h, _ := pageOf(f)
	for _, path := range []string{"/", nameLink(f.config.Names[0].Name), "/name/none"} {
		body := get(t, h, "GET", path).Body.String()
		for _, not := range []string{" style=", "<style", " onclick", "javascript:", "http://", "https://", "ZgotmplZ", "<no value>"} {
			if strings.Contains(body, not) {
				t.Errorf("%s has %q", path, not)
			}
		}
	}
}

func TestTrail(t *testing.T) {
	var tr trail
	k := rank.Key{Name: "a", Candidate: "b", Addr: netip.MustParseAddr("127.0.0.1")}
	for i := range trailLen + 3 {
		tr.sample(&rank.Sample{Key: k, Final: true, At: time.UnixMilli(int64(i))})
		tr.sample(&rank.Sample{Key: k, Outcome: rank.Aborted, Final: true})
	}
	got := tr.ticks(nil, k, 5)
	for i, c := range got {
		if c.at != int64(trailLen-2+i) {
			t.Errorf("%d: %d", i, c.at)
		}
	}
	if all := tr.ticks(nil, k, 2*trailLen); len(got) != 5 || len(all) != trailLen || all[0].at != 3 {
		t.Errorf("%d of %d from %d", len(got), len(all), all[0].at)
	}
	tr.forget([]rank.Key{k})
	if len(tr.ticks(nil, k, 1)) != 0 {
		t.Error("not forgotten")
	}
	now := time.Now()
	tr.answered("a", change{at: now, why: "new"})
	tr.answered("a", change{at: now.Add(-time.Hour), why: "from the history"})
	if c, _ := tr.last("a"); c.why != "new" {
		t.Errorf("%+v", c)
	}
	tr.answered("a", change{at: now, why: "IPv4", any: true})
	tr.answered("a", change{at: now, why: "no endpoint of this family"})
	if c, _ := tr.last("a"); c.why != "IPv4" {
		t.Errorf("%+v", c)
	}
}

// TestSpans: minutes of the history up to the first probe in memory, then the probes.
func TestSpans(t *testing.T) {
	k := rank.Key{Name: "a", Candidate: "b", Addr: netip.MustParseAddr("127.0.0.1")}
	minute := func(m int64, n, ok int) store.Rollup {
		return store.Rollup{At: time.UnixMilli(m * 60_000), Width: time.Minute, Key: k, N: n, OK: ok, P50: time.Millisecond, P95: 2 * time.Millisecond}
	}
	other := minute(1, 9, 9)
	other.Key.Candidate = "c"
	v := view{rollups: []store.Rollup{minute(1, 30, 29), other, minute(2, 30, 30), minute(3, 30, 30)}}
	got := v.spansOf(k, []tick{{150_000, 500, rank.OK}, {152_000, 0, rank.Refused}})
	want := []span{{60_000, 120_000, 30, 29, 1, 2}, {120_000, 150_000, 30, 30, 1, 2}, {150_000, 152_000, 1, 1, .5, .5}, {152_000, 152_001, 1, 0, 0, 0}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	cols := make([]column, 10)
	fillColumns(cols, got, 0, 60_000)
	if cols[0].n != 0 || cols[1] != (column{30, 29, 1, 2}) || cols[2].n != 32 || cols[2].ok != 31 || cols[3].n != 0 {
		t.Errorf("%v", cols[:5])
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct{ low, high, bottom, top float64 }{
		{1.2, 3.9, 1, 5}, {1, 1, 1, 5}, {0.3, 180, 0.2, 200}, {9.99, 10.01, 5, 20}, {0, 0, 1, 10},
	} {
		if s := newScale(c.low, c.high); s.low != c.bottom || s.high != c.top {
			t.Errorf("%v to %v: %v", c.low, c.high, s)
		}
	}
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 900 * time.Millisecond: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s",
		2*time.Hour + 5*time.Minute + time.Second: "2h5m", 49 * time.Hour: "2d1h",
	} {
		if got := formatAge(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for ms, want := range map[float64]string{0: "–", 0.128: "0.13", 12.34: "12.3", 1234.5: "1234"} {
		if got := formatMS(ms); got != want {
			t.Errorf("%v: %s, want %s", ms, got, want)
		}
	}
}

// TestPageStates: a state is a word, never a colour alone.
func TestPageStates(t *testing.T) {
	f := someNames(1)
	n := &f.snapshot.Names[0]
	n.Endpoints[0].Health = rank.Health{State: rank.Unhealthy, Last: rank.Refused, Checked: time.Now()}
	n.Endpoints[1].Override = rank.Drain
	n.Decision.AllDown = true
	f.snapshot.LocalFault, f.snapshot.At = true, time.Now()
	f.snapshot.Overrides = []engine.Override{{
		Host: engine.HostKey{Name: n.Name, Candidate: "west"}, State: rank.Drain, Until: time.Now().Add(90 * time.Minute), Why: "disk swap",
	}}
	h, _ := pageOf(f)
	body := get(t, h, "GET", "/").Body.String()
	for _, want := range []string{"unhealthy", "forced drain", "all down", "own network", "disk swap", "ends in 1h", "127.0.0.53:53", "refused", "probe lag"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

// BenchmarkOverview renders the overview of 100 names with 4 endpoints each; the aim is 20 ms.
func BenchmarkOverview(b *testing.B) {
	f := &fake{config: &config.Config{}}
	for i := range 100 {
		v := engine.NameView{Name: fmt.Sprintf("name%d.example.com", i)}
		f.config.Names = append(f.config.Names, config.Name{Name: v.Name, Policy: &rank.Policy{}})
		for j := range 4 {
			v.Endpoints = append(v.Endpoints, engine.EndpointState{
				Key:     rank.Key{Name: v.Name, Candidate: fmt.Sprintf("site%d", j), Addr: netip.AddrFrom4([4]byte{127, byte(i), byte(j), 1})},
				Latency: time.Millisecond, Health: rank.Health{State: rank.Healthy, Since: time.Now()}, Selected: j == 0,
			})
		}
		f.snapshot.Names = append(f.snapshot.Names, v)
	}
	h, _ := pageOf(f)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = get(b, h, "GET", "/").Body.Len()
	}
	b.ReportMetric(float64(size), "B/page")
}

// TestAlarmOfUpstreams: a reader is told that other names fail where no upstream is up, and where there is none at all.
func TestAlarmOfUpstreams(t *testing.T) {
	for _, c := range []struct {
		list []Upstream
		want bool
	}{
		{nil, true}, {[]Upstream{{State: "down"}, {State: "loop"}}, true}, {[]Upstream{{State: "down"}, {State: "up"}}, false},
	} {
		told := slices.ContainsFunc(alarms(&Status{Config: ConfigInfo{ReloadOK: true}, Upstreams: c.list}), func(s string) bool {
			return strings.Contains(s, "No upstream")
		})
		if told != c.want {
			t.Errorf("%v: told %v", c.list, told)
		}
	}
}
