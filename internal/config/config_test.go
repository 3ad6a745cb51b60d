package config

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hard/internal/rank"
)

const tail = "[name.\"a.example\"]\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\n"

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hard.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, r := Parse("test.toml", []byte(text))
	if c == nil {
		t.Fatal(r.Err())
	}
	return c
}

// TestDefaults holds every default to the contract's file.
func TestDefaults(t *testing.T) {
	c := mustParse(t, "[defaults]\ncheck = \"https://x.example/\"\n"+tail)
	n := c.Names[0]
	wantPolicy := rank.Policy{
		Select: rank.Best, Latency: rank.LatencyTotal, GroupWithin: 10 * time.Millisecond, SwitchRatio: 0.2,
		SwitchMin: 2 * time.Millisecond, Hold: 10 * time.Second, MaxAnswers: 1, OnAllDown: rank.LastGood,
	}
	wantPace := rank.Pace{
		Interval: 2 * time.Second, FastInterval: 250 * time.Millisecond, IdleInterval: 30 * time.Second,
		BackoffMax: 30 * time.Second, Timeout: time.Second, Rise: 2, Fall: 2,
	}
	if *n.Policy != wantPolicy || *n.Pace != wantPace {
		t.Errorf("policy %+v\npace %+v", *n.Policy, *n.Pace)
	}
	if n.IdleAfter != 0 || n.Idle != 30*time.Second || n.TTL != time.Second || n.Watch || n.SVCB != SVCBStrip || n.Warm != 5*time.Minute {
		t.Errorf("name %+v", n)
	}
	if k := n.Candidates[0].Check; k.Method != "GET" || !slices.Equal(k.Status, []StatusRange{{200, 299}}) || k.Insecure || k.Port != 443 {
		t.Errorf("check %+v", k)
	}
	if d := n.Candidates[0]; d.Weight != 100 || d.Tier != 0 || d.State != rank.Auto {
		t.Errorf("candidate %+v", d)
	}
	l := c.Listen
	if len(l.DNS) != 2 || l.DNS[0].String() != "127.0.0.1:53" || l.DNS[1].String() != "[::1]:53" || l.HTTP != "127.0.0.1:8053" || l.Control != "/run/hard/control.sock" {
		t.Errorf("listen %+v", l)
	}
	u := c.Upstream
	if len(u.Servers) != 1 || u.Servers[0].Kind != ServerResolvConf || u.AttemptTimeout != 1500*time.Millisecond || u.TotalTimeout != 4*time.Second || u.Fastest || u.MaxInflight != 4096 {
		t.Errorf("upstream %+v", u)
	}
	if c.Cache != (Cache{false, 10000, time.Hour}) || c.Store != (Store{"/var/lib/hard/hard.db", 48 * time.Hour, 400 * day, 512 << 20}) {
		t.Errorf("%+v %+v", c.Cache, c.Store)
	}
	if c.Log != (Log{slog.LevelInfo, "auto", false}) || c.Hooks.OnChange != nil || c.Hooks.Webhook != "" {
		t.Errorf("%+v %+v", c.Log, c.Hooks)
	}
}

// TestCheckKeyOrder: checkOptions.from goes by the place in both lists.
func TestCheckKeyOrder(t *testing.T) {
	for i, k := range checkKeys.keys {
		if checkKeyNames[i] != k.name {
			t.Errorf("key %d is %s and %s", i, checkKeyNames[i], k.name)
		}
	}
	if len(checkKeys.keys) != len(checkKeyNames) {
		t.Error("the lists differ in length")
	}
}

// TestDetection holds the worst cases at the defaults to the goals, and the formula to a walk through
// the schedule.
func TestDetection(t *testing.T) {
	p := nameKeys.defaults().pace
	d := DetectionTime(&p)
	if d.Refused > 2600*time.Millisecond || d.Silent > 4600*time.Millisecond {
		t.Errorf("at the defaults %+v, the goals are 2.6 s and 4.6 s", d)
	}
	if FleetRate(&p) != 500 {
		t.Errorf("fleet rate %v", FleetRate(&p))
	}
	for _, p := range []rank.Pace{
		{Interval: 2 * time.Second, FastInterval: 250 * time.Millisecond, Timeout: time.Second, Fall: 2},
		{Interval: 2 * time.Second, FastInterval: 2 * time.Second, Timeout: time.Second, Fall: 3},
		{Interval: 10 * time.Millisecond, FastInterval: 10 * time.Millisecond, Timeout: 50 * time.Millisecond, Fall: 1},
		{Interval: time.Second, FastInterval: 100 * time.Millisecond, Timeout: 3 * time.Second, Fall: 5},
	} {
		got := DetectionTime(&p)
		want := Detection{walk(p, 0), walk(p, p.Timeout)}
		if got != want {
			t.Errorf("%+v: %+v, walked %+v", p, got, want)
		}
	}
}

// walk steps through the slowest schedule after a death at 0, where a probe takes so long to fail.
func walk(p rank.Pace, takes time.Duration) time.Duration {
	start := p.Interval + p.Interval/10
	for miss := 1; ; miss++ {
		end := start + takes
		if miss == p.Fall {
			return end
		}
		start += p.FastInterval + p.FastInterval/10
		if takes > 0 { // after a timeout a probe rests for fast_interval
			start = max(start, end+p.FastInterval)
		}
	}
}

// TestFingerprint: what a probe finds decides, not how the URL is written, and not the process.
func TestFingerprint(t *testing.T) {
	of := func(check string) *Check {
		return mustParse(t, "[name.\"a.example\"]\ncheck = "+check+"\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\n").Names[0].Candidates[0].Check
	}
	base := of(`"https://a.example/x"`)
	for _, same := range []string{`"HTTPS://A.Example/x"`, `"https:///x"`, `{ url = "https://a.example/x", port = 443, status = ["200-299"] }`} {
		if of(same).Fingerprint != base.Fingerprint {
			t.Errorf("%s is another check", same)
		}
	}
	seen := map[uint64]string{base.Fingerprint: "base"}
	for _, other := range []string{
		`"https://a.example/y"`, `"http://a.example/x"`, `"https://b.example/x"`, `"https://a.example:443/x"`,
		`{ url = "https://a.example/x", port = 444 }`, `{ url = "https://a.example/x", method = "HEAD" }`,
		`{ url = "https://a.example/x", headers = { A = "b" } }`, `{ url = "https://a.example/x", headers = { Ab = "" } }`,
		`{ url = "https://a.example/x", status = [200] }`, `{ url = "https://a.example/x", body = "b" }`,
		`{ url = "https://a.example/x", verify = false }`, `{ url = "https://a.example/x", server_name = "c.example" }`,
		`{ url = "https://a.example/x", ca_file = "/ca" }`, `{ url = "https://a.example/x", source = "127.0.0.1" }`,
		`{ url = "https://a.example/x", retries = 1 }`, `{ url = "https://a.example/x", redirects = 1 }`,
		`"tcp://:1"`, `{ url = "tcp://:1", send = "x" }`, `{ url = "tcp://:1", expect = "x" }`, `"tls://:1"`, `"dns:a.example/SOA"`,
		`"dns:a.example/A"`, `"dns:b.example/A"`, `"exec:/x"`, `{ url = "exec:/x", args = ["a", "b"] }`, `{ url = "exec:/x", args = ["ab"] }`,
		`{ url = "exec:/x", args = ["a b", ""] }`, `"static:"`,
	} {
		f := of(other).Fingerprint
		if seen[f] != "" {
			t.Errorf("%s has the fingerprint of %s", other, seen[f])
		}
		seen[f] = other
	}
	// Stored with the state of the last run: a constant, whatever the version.
	if want := uint64(0x4a947cf2f7b88d83); of(`"static:"`).Fingerprint != want {
		t.Errorf("static: has %#x, was %#x: stored state would be thrown away", of(`"static:"`).Fingerprint, want)
	}
	if of(`"tcp://a.example:1"`).Fingerprint != of(`"tcp://:1"`).Fingerprint {
		t.Error("the host of a tcp check changes nothing, yet it is another check")
	}
}

// TestLoadErrors: what cannot be read has a message with the path, and no position.
func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	for file, want := range map[string]string{
		filepath.Join(dir, "none.toml"): "none.toml: error: cannot be read: no such file or directory",
		dir:                             "error: cannot be read: is a directory",
		"/dev/zero":                     "error: cannot be read: is larger than 64 MiB",
	} {
		c, r := Load(file)
		if c != nil || r.Err() == nil || !strings.Contains(r.Err().Error(), want) {
			t.Errorf("%s: %v", file, r.Err())
		}
	}
}

// TestFiles holds what Load says of the files that a configuration names.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := file("plain", "x", 0o644)
	program := file("program", "#!/bin/sh\n", 0o755)
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	store := "[store]\npath = \"" + dir + "/new/deep/hard.db\"\n"
	for text, want := range map[string]string{
		store + "[defaults]\ncheck = \"exec:" + program + "\"\n" + tail:                                 "",
		store + "[defaults]\ncheck = \"exec:" + plain + "\"\n" + tail:                                   "4:1: warning: defaults.check: \"" + plain + "\" cannot be run",
		store + "[defaults]\ncheck = \"exec:" + dir + "/none\"\n" + tail:                                "4:1: warning: defaults.check: stat " + dir + "/none: no such file",
		store + "[defaults]\ncheck = { url = \"https://x/\", ca_file = \"" + dir + "/none\" }\n" + tail: "4:31: error: defaults.check.ca_file: cannot be read: open " + dir + "/none: no such file",
		store + "[defaults]\ncheck = { url = \"https://x/\", ca_file = \"" + plain + "\" }\n" + tail:    "4:31: error: defaults.check.ca_file: \"" + plain + "\" holds no certificate",
		store + "[hooks]\non_change = [\"" + plain + "\"]\n[defaults]\ncheck = \"static:\"\n" + tail:    "4:1: warning: hooks.on_change: \"" + plain + "\" cannot be run",
		"[store]\npath = \"" + plain + "/hard.db\"\n[defaults]\ncheck = \"static:\"\n" + tail:           "2:1: warning: store.path: \"" + plain + "\" is not a directory",
		"[store]\npath = \"" + open + "/hard.db\"\n[defaults]\ncheck = \"static:\"\n" + tail:            "2:1: warning: store.path: every user of this host can write",
	} {
		_, r := Load(write(t, text))
		var b bytes.Buffer
		r.WriteText(&b)
		if want == "" && b.Len() > 0 || !strings.Contains(b.String(), want) || len(r.Problems) > 1 {
			t.Errorf("got %s want %q", b.String(), want)
		}
	}
	db := file("open.db", "", 0o666)
	if err := os.Chmod(db, 0o666); err != nil {
		t.Fatal(err)
	}
	_, r := Load(write(t, "[store]\npath = \""+db+"\"\n[defaults]\ncheck = \"static:\"\n"+tail))
	if r.Count(Warning) != 1 || !strings.Contains(r.Text(r.Problems[0]), "every user of this host can write to the database") {
		t.Errorf("a database that all may write to: %v", r.Problems)
	}
	writable := write(t, store+"[defaults]\ncheck = \"static:\"\n"+tail)
	if err := os.Chmod(writable, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, r := Load(writable); r.Count(Warning) != 1 || r.Problems[0].Line != 1 {
		t.Errorf("a file that all may write to: %v", r.Problems)
	}
}

// TestCheckFile holds exit codes, both forms of output, and warnings added from outside.
func TestCheckFile(t *testing.T) {
	good := write(t, "[store]\npath = \"/none/hard.db\"\n[upstream]\nservers = [\"resolv.conf\"]\n[defaults]\ncheck = \"tcp://:1\"\n"+tail)
	bad := write(t, "[defaults]\ncheck = 1\n"+tail)
	add := func(_ *Config, r *Report) {
		r.Warn("no resolv.conf names an upstream", "upstream", "servers")
	}
	run := func(file string, strict, asJSON bool, more ...func(*Config, *Report)) (int, string) {
		var b bytes.Buffer
		return CheckFile(file, strict, asJSON, &b, more...), b.String()
	}
	if exit, out := run(good, true, false); exit != 0 || out != good+": ok (1 names, 2 candidates, 1 upstreams)\n"+
		"a.example: a dead endpoint is out within 2.5 s (refused), 4.5 s (silent); 1,000 hosts send each address 500 probes/s\n" {
		t.Errorf("%d %s", exit, out)
	}
	if exit, out := run(good, false, false, add); exit != 0 || !strings.HasPrefix(out, good+":4:1: warning: upstream.servers: no resolv.conf") || !strings.Contains(out, ": ok (") {
		t.Errorf("%d %s", exit, out)
	}
	if exit, out := run(good, true, false, add); exit != 1 || strings.Contains(out, ": ok (") {
		t.Errorf("%d %s", exit, out)
	}
	if exit, out := run(bad, false, false); exit != 1 || !strings.HasPrefix(out, bad+":2:1: error: defaults.check: ") {
		t.Errorf("%d %s", exit, out)
	}
	for file, want := range map[string]struct {
		exit, names int
		ok          bool
	}{good: {0, 1, true}, bad: {1, 0, false}} {
		exit, out := run(file, false, true, add)
		var v struct {
			OK       bool
			Names    int
			Problems []struct {
				Line     int
				Severity string
			}
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || exit != want.exit || v.OK != want.ok || v.Names != want.names || len(v.Problems) != 1 || v.Problems[0].Line == 0 {
			t.Errorf("%d %v %s", exit, err, out)
		}
	}
}

// TestSummaryGroups: many names stay readable.
func TestSummaryGroups(t *testing.T) {
	c := mustParse(t, string(manyNames(100))+"[name.\"x.example\"]\ncheck = \"tcp://:1\"\nwatch = true\ncandidates = [\"192.0.2.1\", \"192.0.2.2\"]\n")
	var b bytes.Buffer
	if err := c.Summary().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "100 names like host-000000.service.example.com: static") || !strings.Contains(lines[2], "x.example: a dead endpoint is out within 2.5 s (refused), 4.5 s (silent), at once") {
		t.Error(b.String())
	}
}

// TestExample: the file we ship is valid without a warning, and names every key there is.
func TestExample(t *testing.T) {
	file := "../../etc/har.toml.example"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, r := Parse("har.toml.example", data)
	if c == nil || len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	var all []string
	all = append(all, topNames...)
	for _, names := range [][]string{
		listenKeys.names(), upstreamKeys.names(), routeKeys.names(), cacheKeys.names(), storeKeys.names(), logKeys.names(),
		hooksKeys.names(), nameKeys.names(), candidateKeys.names(), checkKeys.names(),
	} {
		all = append(all, names...)
	}
	for _, key := range all {
		found := false
		for line := range strings.Lines(string(data)) {
			line = strings.TrimLeft(line, "# ")
			found = found || strings.HasPrefix(line, key+" ") || strings.HasPrefix(line, "["+key) || strings.Contains(line, "."+key+"]") || strings.Contains(line, "."+key+".")
		}
		if !found {
			t.Errorf("the example does not show %s", key)
		}
	}
}
