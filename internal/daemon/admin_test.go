package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/internal/admin"
	"hard/internal/rank"
)

// watched is a house with a control socket, and a client for it.
type watched struct {
	*house
	socket string
	unix   *http.Client
}

// watch starts a daemon on a configuration in which SOCKET stands for the control socket.
func watch(t *testing.T, text string) *watched {
	t.Helper()
	dir, err := os.MkdirTemp("", "hard") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &watched{socket: filepath.Join(dir, "run", "control.sock")}
	w.house = start(t, strings.ReplaceAll(text, "SOCKET", w.socket))
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}, DisableKeepAlives: true}
	w.unix = &http.Client{Transport: tr, Timeout: patience}
	w.listens()
	return w
}

// listens waits until the control socket answers.
func (w *watched) listens() {
	w.t.Helper()
	eventually(w.t, "the control socket answers", func() bool {
		r, err := w.unix.Get("http://hard/v1/stats")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == 200
	})
}

// call asks the control API and decodes the reply.
func (w *watched) call(method, path, body string, into any) int {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://hard"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := w.unix.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	if r.Header.Get("Content-Type") != "application/json" {
		w.t.Fatalf("%s %s: %s: %s", method, path, r.Header.Get("Content-Type"), b)
	}
	if into != nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(into); err != nil {
			w.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return r.StatusCode
}

// get reads a path of the loopback server.
func (w *watched) get(path string) (int, string, http.Header) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	eventually(w.t, "http listens", func() bool { return w.HTTPAddr() != "" })
	r, err := client.Get("http://" + w.HTTPAddr() + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b), r.Header
}

// twoCandidates is a configuration with one name on two live candidates.
func twoCandidates(t *testing.T, net string) (text string, near, far *candidate) {
	t.Helper()
	near = newCandidate(t, "127.0."+net+".1", 0, 0)
	far = newCandidate(t, "127.0."+net+".2", near.addr.Port(), 40*time.Millisecond)
	up := newUpstream(t, "127.0."+net+".53")
	up.set("other.example", "A", "other.example. 60 IN A 192.0.2.77")
	return fmt.Sprintf(`
[listen]
dns = ["127.0.0.1:0"]
http = "127.0.0.1:0"
control = "SOCKET"
[upstream]
servers = ["%[1]s"]
[store]
path = "DB"
[defaults]
interval = "50ms"
fast_interval = "20ms"
hold = "50ms"
[name."api.example"]
check = "http://:%[2]d/"
[name."api.example".candidate.near]
address = "127.0.%[3]s.1"
[name."api.example".candidate.far]
address = "127.0.%[3]s.2"
weight = 80
[name."*.wild.example"]
candidates = ["127.0.%[3]s.1"]
check = "tcp://wild.example:%[2]d"
`, up.addr, near.addr.Port(), net), near, far
}

// TestControl: what an operator forces shows at once in the answers, survives a restart, and is
// in the history with who did it.
func TestControl(t *testing.T) {
	text, _, _ := twoCandidates(t, "2")
	w := watch(t, text)
	w.answers("api.example", dns.TypeA, "127.0.2.1")
	w.healthy("api.example", 2)

	var set admin.Forced
	if code := w.call("POST", "/v1/set", `{"name":"API.example.","candidate":"near","state":"drain","for":"1h","why":"kernel\nupdate"}`, &set); code != 200 || set.Warning != "" {
		t.Fatalf("%d %+v", code, set)
	}
	if o := set.Overrides[0]; o.Value != "drain" || o.Why != "kernel update" || !strings.HasPrefix(o.Who, fmt.Sprintf("uid %d pid %d", os.Getuid(), os.Getpid())) || o.Until.IsZero() {
		t.Errorf("%+v", o)
	}
	w.answers("api.example", dns.TypeA, "127.0.2.2")

	var e admin.Error
	if code := w.call("POST", "/v1/set", `{"name":"api.example","candidate":"far","state":"down"}`, &e); code != 409 || !strings.Contains(e.Hint, "force") {
		t.Errorf("the last healthy one: %d %+v", code, e)
	}
	if code := w.call("POST", "/v1/weight", `{"name":"api.example","candidate":"far","weight":"50%"}`, &set); code != 200 {
		t.Errorf("weight: %d", code)
	}
	var st admin.Status
	w.call("GET", "/v1/names/api.example", "", &st)
	if len(st.Names) != 1 || len(st.Overrides) != 2 || st.Names[0].Endpoints[1].Weight != 40 {
		t.Errorf("%+v", st)
	}

	w.stop()
	w.run()
	w.answers("api.example", dns.TypeA, "127.0.2.2")
	eventually(t, "the socket is back", func() bool { _, err := os.Stat(w.socket); return err == nil })
	w.call("GET", "/v1/status", "", &st)
	if len(st.Overrides) != 2 || st.Overrides[0].Why != "kernel update" && st.Overrides[1].Why != "kernel update" {
		t.Errorf("after a restart: %+v", st.Overrides)
	}
	w.call("POST", "/v1/set", `{"name":"api.example","state":"auto"}`, &set)
	w.answers("api.example", dns.TypeA, "127.0.2.1")
	eventually(t, "the history says who", func() bool {
		rows := w.sqlite("SELECT kind, candidate, old, new, reason FROM events WHERE kind IN ('override', 'weight') ORDER BY at_ms")
		return len(rows) >= 3 && strings.Contains(rows[0], fmt.Sprintf("near auto drain by uid %d pid ", os.Getuid())) && strings.Contains(rows[0], ": kernel update (until ")
	})
}

// TestExpiry: an override ends by itself.
func TestExpiry(t *testing.T) {
	text, _, _ := twoCandidates(t, "3")
	w := watch(t, text)
	w.healthy("api.example", 2)
	w.answers("api.example", dns.TypeA, "127.0.3.1")
	w.call("POST", "/v1/set", `{"name":"api.example","candidate":"near","state":"down","for":"1s"}`, nil)
	eventually(t, "it is in force", func() bool { // by the log: where we are starved its second is over before a query sees it
		return strings.Contains(w.logs.String(), "from=127.0.3.1 to=127.0.3.2")
	})
	eventually(t, "it has expired", func() bool { return strings.Contains(w.logs.String(), "why=expired") })
	w.answers("api.example", dns.TypeA, "127.0.3.1")
	var st admin.Status
	w.call("GET", "/v1/status", "", &st)
	if len(st.Overrides) != 0 {
		t.Errorf("%+v", st.Overrides)
	}
}

// healthy waits until a name has so many healthy endpoints.
func (w *watched) healthy(name string, n int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%s has %d healthy endpoints", name, n), func() bool {
		var st admin.Status
		w.call("GET", "/v1/names/"+name, "", &st)
		return len(st.Names) == 1 && st.Names[0].Healthy == n
	})
}

// TestExplain: the decision itself, for a name, one type of it, and a name below a wildcard.
func TestExplain(t *testing.T) {
	text, _, far := twoCandidates(t, "4")
	w := watch(t, text)
	w.healthy("api.example", 2)
	far.kill()
	w.healthy("api.example", 1)
	var x admin.Explain
	w.call("GET", "/v1/explain/api.example?type=a", "", &x)
	a, near := x.Answers["A"], x.Endpoints[0]
	if len(x.Answers) != 1 || a.Kind != rank.Normal || a.Addresses[0].String() != "127.0.4.1" || x.Policy.HoldMS != 50 {
		t.Errorf("%+v", x)
	}
	if !near.Selected || !strings.Contains(near.Reason, "selected (best)") || !strings.Contains(x.Endpoints[1].Reason, "unhealthy") {
		t.Errorf("%+v", x.Endpoints)
	}
	w.call("GET", "/v1/explain/a.b.wild.example", "", &x)
	if x.Name.Name != "*.wild.example" {
		t.Errorf("wildcard: %q", x.Name.Name)
	}
}

// TestProbeNow: a probe with its exchange, which leaves the schedule alone.
func TestProbeNow(t *testing.T) {
	text, _, _ := twoCandidates(t, "5")
	w := watch(t, text)
	w.healthy("api.example", 2)
	var p admin.Probed
	w.call("POST", "/v1/probe", `{"name":"api.example","candidate":"far","trace":true}`, &p)
	if len(p.Probes) != 1 || p.Probes[0].Outcome != rank.OK || p.Probes[0].Status != 200 || p.Probes[0].TotalMS < 40 {
		t.Fatalf("%+v", p)
	}
	if !slices.ContainsFunc(p.Probes[0].Trace, func(l admin.TraceLine) bool { return strings.Contains(l.Text, "200 OK") }) {
		t.Errorf("the trace: %+v", p.Probes[0].Trace)
	}
	w.call("POST", "/v1/probe", `{"name":"api.example"}`, &p)
	if len(p.Probes) != 2 {
		t.Errorf("all candidates: %+v", p)
	}
}

// TestReloadRefused: every problem comes back, nothing changes, and the status says so until a
// good reload.
func TestReloadRefused(t *testing.T) {
	text, _, _ := twoCandidates(t, "6")
	w := watch(t, text)
	good := read(t, w.file)
	w.write(good + "\n[log]\nlevel = \"loud\"\ncolour = true\n")
	var r admin.Reloaded
	if code := w.call("POST", "/v1/reload", "", &r); code != 422 || r.Reloaded || len(r.Problems) < 2 || r.Problems[0].Line == 0 {
		t.Errorf("%d %+v", code, r)
	}
	var st admin.Status
	if w.call("GET", "/v1/status", "", &st); st.Config.ReloadOK || st.Config.ReloadFail == "" {
		t.Errorf("%+v", st.Config)
	}
	if _, m, _ := w.get("/metrics"); !strings.Contains(m, "hard_config_last_reload_successful 0") {
		t.Error("the metric says nothing of the failed reload")
	}
	w.write(good)
	if code := w.call("POST", "/v1/reload", "", &r); code != 200 || !r.Reloaded {
		t.Errorf("%d %+v", code, r)
	}
	var after admin.Status
	if w.call("GET", "/v1/status", "", &after); !after.Config.ReloadOK {
		t.Errorf("%+v", after.Config)
	}
}

// TestBadRequests: each says what is wrong, and how.
func TestBadRequests(t *testing.T) {
	text, _, _ := twoCandidates(t, "7")
	w := watch(t, text)
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v1/set", ``, 400, "empty"},
		{"POST", "/v1/set", `{"name":"api.example"}`, 400, "state is missing"},
		{"POST", "/v1/set", `{"name":"api.example","state":"sideways"}`, 400, "sideways"},
		{"POST", "/v1/set", `{"name":5,"state":"up"}`, 400, "name: a string was expected, not a number"},
		{"POST", "/v1/set", `{"name":"api.example","state":["up"]}`, 400, "state: a string was expected, not an array"},
		{"POST", "/v1/set", `{"name":"api.example","state":"up","force":"yes"}`, 400, "force: true or false was expected, not a string"},
		{"POST", "/v1/set", `[1]`, 400, "a JSON object was expected, not an array"},
		{"POST", "/v1/set", `{"name":`, 400, "ends too early"},
		{"POST", "/v1/set", `{name}`, 400, "invalid character 'n'"},
		{"POST", "/v1/set", `{"name":"api.example","state":"up","wyh":"x"}`, 400, "wyh"},
		{"POST", "/v1/set", `{"name":"api.example","state":"up"} {}`, 400, "follows"},
		{"POST", "/v1/set", `{"name":"api.example","state":"up","for":"soon"}`, 400, "soon"},
		{"POST", "/v1/set", `{"name":"api.example","state":"up","for":"-5m"}`, 400, "-5m"},
		{"POST", "/v1/set", `{"name":"nope.example","state":"up"}`, 404, "nope.example"},
		{"POST", "/v1/set", `{"name":"api.example","candidate":"nope","state":"up"}`, 404, "nope"},
		{"POST", "/v1/set", `{"name":"` + strings.Repeat("x", 100<<10) + `"}`, 413, "longer"},
		{"POST", "/v1/weight", `{"name":"api.example","candidate":"near","weight":-1}`, 400, "-1"},
		{"POST", "/v1/weight", `{"name":"api.example","weight":"5"}`, 400, "candidate"},
		{"POST", "/v1/log", `{"level":"loud"}`, 400, "loud"},
		{"GET", "/v1/explain/api.example?type=MX", ``, 400, "MX"},
		{"GET", "/v1/explain/api.example?at=noon", ``, 400, "noon"},
		{"GET", "/v1/explain/api.example?at=", ``, 400, "not a time"},
		{"GET", "/v1/explain/api.example?at=2999-01-01T00:00:00Z", ``, 400, "yet to come"},
		{"GET", "/v1/explain/api.example?at=15m&type=MX", ``, 400, "MX"},
		{"GET", "/v1/nothing", ``, 404, "/v1/nothing"},
		{"GET", "/v1/set", ``, 405, "/v1/set"},
	} {
		var e admin.Error
		if code := w.call(c.method, c.path, c.body, &e); code != c.code || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s %s %.80s: %d %+v", c.method, c.path, c.body, code, e)
		}
	}
}

// TestLogLevel: at run time, and an event.
func TestLogLevel(t *testing.T) {
	text, _, _ := twoCandidates(t, "13")
	w := watch(t, text)
	var l admin.LogReply
	w.call("POST", "/v1/log", `{"level":"trace"}`, &l)
	var st admin.Status
	if w.call("GET", "/v1/status", "", &st); l.Level != "trace" || l.Was != "info" || st.LogLevel != "trace" {
		t.Errorf("%+v %s", l, st.LogLevel)
	}
	if !strings.Contains(w.logs.String(), `msg="log level" from=info to=trace`) {
		t.Error(w.logs.String())
	}
}
