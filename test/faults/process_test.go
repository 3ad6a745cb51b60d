package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/test/faulty"
)

// Rows 37 to 46: the process, its file, and users of the same host who mean ill. Rows 37 and 38 are
// in cmd/hard (TestHostPortTaken, TestHostNoPrivilege), row 45's schemas in package store.

// reload asks for a reload by the control socket, and tells whether it was taken.
func reload(h *faulty.Hard) (bool, error) {
	c := &http.Client{Timeout: faulty.Patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket)
		}}}
	r, err := c.Post("http://hard/v1/reload", "application/json", nil)
	if err != nil {
		return false, err
	}
	defer r.Body.Close()
	var v struct{ Reloaded bool }
	return v.Reloaded, json.NewDecoder(r.Body).Decode(&v)
}

// TestFault39BadConfiguration: whatever is wrong with the file at a reload, the configuration in force
// stays whole, status says what is wrong, and the next good file is taken.
func TestFault39BadConfiguration(t *testing.T) {
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.Start(t, nil, headWith(up.Addr.String())+static)
	h.Wants("forwarding", faulty.Forwarded())
	faulty.LeakCheck(t, h)
	a := h.Ask(ours(), faulty.Forwarded())
	good, err := os.ReadFile(h.File)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(good), `"192.0.2.1"`, `"192.0.2.2"`, 1)
	more := func(n string) string {
		return "[name.\"" + n + "\"]\ncandidates = [\"192.0.2.3\"]\ncheck = \"static:\"\n"
	}
	for _, bad := range []struct {
		what string
		make func()
		want string // in what status says
	}{
		{"missing", func() { mustRemove(t, h.File) }, "cannot be read"},
		{"empty", func() { mustWrite(t, h.File, "") }, "no names"},
		{"half-written", func() { mustWrite(t, h.File, other[:len(other)-30]) }, "har.toml:"},
		{"one bad name among good ones", func() {
			mustWrite(t, h.File, other+more("new.example")+more("b..ad")+more("last.example"))
		}, "b..ad"},
		{"a directory", func() {
			mustRemove(t, h.File)
			if err := os.Mkdir(h.File, 0o755); err != nil {
				t.Fatal(err)
			}
		}, "cannot be read"},
		{"binary", func() { mustRemove(t, h.File); mustWrite(t, h.File, "\x7fELF\x00\x01\xff") }, "har.toml:"},
	} {
		bad.make()
		if ok, err := reload(h); ok || err != nil {
			t.Fatalf("%s: taken: %v, %v", bad.what, ok, err)
		}
		s := h.Status()
		if b, _ := json.Marshal(s); !bytes.Contains(b, []byte(bad.want)) || len(s.Names) != 1 {
			t.Errorf("%s: status does not say %q: %s", bad.what, bad.want, b)
		}
		a.More(0, 5)
		a.More(1, 5)
	}
	a.Clean() // of all of it nobody saw anything
	mustWrite(t, h.File, other+more("new.example"))
	h.Signal(syscall.SIGHUP)
	h.Wants("the next good file", faulty.Ours("static.example", "192.0.2.2"))
	h.Wants("its new name", faulty.Ours("new.example", "192.0.2.3"))
	faulty.Eventually(t, "the reload, which has published its table, says that it was good", func() bool {
		return h.Metric("hard_config_last_reload_successful") == 1
	})
}

// TestFault40ReloadStorm: a thousand reloads under load, half of them of a file with a name more or less:
// no query is lost or wrongly answered, and nothing piles up.
func TestFault40ReloadStorm(t *testing.T) {
	reloads := 60
	if faulty.Long() {
		reloads = 1000
	}
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	near := faulty.NewCandidate(t, nil, netip.AddrPort{}, 0)
	base := headWith(up.Addr.String()) + static + probed("api.example", near)
	h := faulty.Start(t, nil, strings.Replace(base, `"1500ms"`, `"4s"`, 1))
	h.Wants("forwarding", faulty.Forwarded())
	h.Wants("the candidate", faulty.Ours("api.example", near.Addr.Addr().String()))
	before := h.Usage()
	questions := []faulty.Question{ours(), ours(), ours().TCP(), faulty.Forwarded(), faulty.Forwarded(), faulty.Forwarded().TCP(),
		faulty.Ours("api.example", near.Addr.Addr().String())}
	a := h.Ask(questions...)
	began := time.Now()
	extra := "[name.\"extra.example\"]\ncandidates = [\"192.0.2.9\"]\ncheck = \"static:\"\n"
	n := 0
	for ; n < reloads && time.Since(began) < 30*time.Second; n++ {
		if n%2 == 0 {
			h.Config(base + extra)
		} else {
			h.Config(base)
		}
		if ok, err := reload(h); !ok || err != nil {
			t.Fatalf("reload %d: %v, %v", n, ok, err)
		}
	}
	t.Logf("%d reloads in %v", n, time.Since(began).Round(time.Millisecond))
	for i := range questions {
		a.More(i, 1)
	}
	a.Clean()
	// Descriptors are not looked at: the forwarder keeps its pool of sockets for some 20 s.
	faulty.Eventually(t, "no goroutine is left of all the reloads", func() bool { return h.Usage().Goroutines <= before.Goroutines+4 })
}

// TestFault40SignalStorm: HUPs as fast as they can be sent do not swallow the TERM behind them, nor hold it up.
func TestFault40SignalStorm(t *testing.T) {
	h := faulty.Start(t, nil, headWith("127.0.0.1:9")+static)
	storm := func() {
		for range 2000 {
			h.Signal(syscall.SIGHUP)
		}
	}
	storm()
	faulty.Eventually(t, "a HUP is heeded", func() bool { return strings.Contains(h.Log(), "reloaded") })
	storm() // a TERM right behind them may well be heeded before any of these
	h.Signal(syscall.SIGTERM)
	if code := h.Wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestFault41Terminate: TERM under load: queries on their way get their answer, the exit code is 0; a second
// TERM ends it at once.
func TestFault41Terminate(t *testing.T) {
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	release, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	up.Answers(func(q *dns.Msg) *dns.Msg {
		if strings.HasPrefix(q.Question[0].Name, "inflight99.") {
			<-end
		} else if strings.HasPrefix(q.Question[0].Name, "inflight") {
			<-release
		}
		return faulty.Everything(q)
	})
	slow := func(i int) faulty.Question {
		q := faulty.Forwarded()
		q.Each = func(int) string { return fmt.Sprintf("inflight%d.example.", i) }
		return q
	}
	h := faulty.Start(t, nil, faulty.Head(up.Addr)+static)
	h.Wants("forwarding", faulty.Forwarded())
	type result struct {
		r   *dns.Msg
		err error
	}
	results := make(chan result, 20)
	before := up.Seen.Load()
	for i := range cap(results) {
		go func() {
			r, _, err := slow(i).Exchange(nil, h.DNS, 0)
			results <- result{r, err}
		}()
	}
	faulty.Eventually(t, "all are on their way", func() bool { return up.Seen.Load()-before >= int64(cap(results)) })
	h.Signal(syscall.SIGTERM)
	h.Says("stopping", 0)
	close(release)
	for range cap(results) {
		if r := <-results; r.err != nil || faulty.Forwarded().Check(r.r) != "" {
			t.Errorf("on its way when TERM came: %v, %v", r.r, r.err)
		}
	}
	if code := h.Wait(); code != 0 {
		t.Errorf("exit %d", code)
	}

	// The second TERM: nothing is waited for.
	h.Run()
	h.Wants("forwarding", faulty.Forwarded())
	before = up.Seen.Load()
	go func() { _, _, _ = slow(99).Exchange(nil, h.DNS, 0) }()
	faulty.Eventually(t, "one is on its way", func() bool { return up.Seen.Load() > before })
	mark := len(h.Log())
	h.Signal(syscall.SIGTERM)
	h.Says("stopping", mark)
	h.Signal(syscall.SIGTERM)
	if code := h.Wait(); code != 1 {
		t.Errorf("exit %d after the second TERM, want 1", code)
	}
	if !strings.Contains(h.Log()[mark:], "stopped at once") {
		t.Error("the log does not say so")
	}
}

// TestFault42KillAndRestart: kill -9 and a new start, 50 times: each start serves, from what was known.
func TestFault42KillAndRestart(t *testing.T) {
	needLong(t)
	near := faulty.NewCandidate(t, nil, netip.AddrPort{}, 0)
	h := faulty.New(t, nil, headWith("127.0.0.1:9")+static+probed("api.example", near))
	h.MayEndBadly = true
	h.Program = faulty.Plain(t)
	api := faulty.Ours("api.example", near.Addr.Addr().String())
	h.Run()
	h.Wants("the candidate", api)
	faulty.Eventually(t, "it is stored", func() bool { return h.Status().Store.State == "ok" })
	began := time.Now()
	for range 50 {
		h.Kill()
		h.Run()
		h.Wants("a local answer", ours())
		h.Wants("the candidate", api)
	}
	t.Logf("50 kills and starts in %v", time.Since(began).Round(time.Millisecond))
	if strings.Contains(h.Log(), "corrupt") || strings.Contains(h.Log(), "set aside") {
		t.Error("the history was damaged")
	}
}

// TestFault43StopAndContinue: a process that does not run for a while: what is asked meanwhile is answered or
// dropped, nothing storms afterwards, and no candidate is blamed.
func TestFault43StopAndContinue(t *testing.T) {
	needLong(t)
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	near := faulty.NewCandidate(t, nil, netip.AddrPort{}, 0)
	h := faulty.Start(t, nil, headWith(up.Addr.String())+static+strings.Replace(probed("api.example", near), `interval = "100ms"`, `interval = "100ms"`+"\ntimeout = \"100ms\"", 1))
	h.Wants("forwarding", faulty.Forwarded())
	h.Wants("the candidate", faulty.Ours("api.example", near.Addr.Addr().String()))
	faulty.LeakCheck(t, h)
	mark := len(h.Log())
	for range 2 {
		seen := near.Seen.Load()
		h.Signal(syscall.SIGSTOP)
		conn, err := net.Dial("udp", h.DNS.String())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 { // what its clients ask in that time
			m, err := new(dns.Msg).SetQuestion(fmt.Sprintf("s%d.elsewhere.example.", i), dns.TypeA).Pack()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(m)
		}
		time.Sleep(4 * time.Second) // how long it stands still
		h.Signal(syscall.SIGCONT)
		h.Wants("a local answer", ours())
		h.Wants("the candidate", faulty.Ours("api.example", near.Addr.Addr().String()))
		h.Wants("forwarding", faulty.Forwarded())
		conn.Close()
		if n := near.Seen.Load() - seen; n > 30 {
			t.Errorf("%d probes after 4 s of standing still: they were made up for", n)
		}
	}
	if strings.Contains(h.Log()[mark:], "endpoint is unhealthy") {
		t.Error("a candidate was blamed for our own standing still")
	}
}

// TestFault44Signals: no signal ends it but those that are meant to: HUP reloads, and one that comes while it
// starts waits; USR1 dumps; QUIT prints all goroutines and ends it.
func TestFault44Signals(t *testing.T) {
	h := faulty.New(t, nil, headWith("127.0.0.1:9")+static)
	hangUpWhileReading(t, h)
	h.Serving()
	a := h.Ask(ours())
	for _, s := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGURG, syscall.SIGIO, syscall.SIGCHLD, syscall.SIGVTALRM} {
		h.Signal(s)
	}
	mark := len(h.Log())
	h.Signal(syscall.SIGHUP)
	h.Says("reloaded", mark)
	mark = len(h.Log())
	h.Signal(syscall.SIGUSR1)
	h.Says("static.example", mark)
	a.More(0, 20)
	a.Clean()
	h.MayEndBadly = true
	h.Signal(syscall.SIGQUIT)
	if code := h.Wait(); code != 2 || !strings.Contains(h.Log(), "SIGQUIT: quit") {
		t.Errorf("QUIT: exit %d", code)
	}
}

// hangUpWhileReading starts the program on a named pipe in the place of its file, and sends it HUPs
// before it can have read the file from there. In the end the file is there.
func hangUpWhileReading(t *testing.T, h *faulty.Hard) {
	t.Helper()
	text, err := os.ReadFile(h.File)
	if err != nil {
		t.Fatal(err)
	}
	for try := 0; ; try++ {
		mustRemove(t, h.File)
		if err := syscall.Mkfifo(h.File, 0o600); err != nil {
			t.Fatal(err)
		}
		pipe, err := os.OpenFile(h.File, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		h.Begin()
		faulty.Eventually(t, "it reads its file", func() bool { return hasOpen(h.PID(), h.File) })
		for range 5 {
			h.Signal(syscall.SIGHUP)
		}
		mustWrite(t, h.File+".new", string(text)) // what the reload will find
		mustRename(t, h.File+".new", h.File)
		if _, err := pipe.Write(text); err != nil {
			t.Fatal(err)
		}
		pipe.Close()
		faulty.Eventually(t, "it serves, or has ended", func() bool {
			return strings.Contains(h.Log(), "serving") || !hasOpen(h.PID(), "/dev/null")
		})
		if strings.Contains(h.Log(), "serving") {
			return
		}
		// On a host that is very busy it may have given up to wait for the pipe's writer.
		if code := h.Wait(); code != 1 || try == 10 {
			t.Fatalf("it ended with %d:\n%s", code, h.Log())
		}
	}
}

// hasOpen tells whether a process has a file open.
func hasOpen(pid int, file string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range list {
		if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == file {
			return true
		}
	}
	return false
}

// TestFault44Pipe: who reads the log goes away: it serves on.
func TestFault44Pipe(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	h := faulty.New(t, nil, headWith("127.0.0.1:9")+static)
	h.Output = write
	h.Run()
	read.Close()
	a := h.Ask(ours())
	for range 3 {
		h.Signal(syscall.SIGUSR1) // which writes to nobody
		h.Signal(syscall.SIGHUP)
		a.More(0, 10)
	}
	a.Clean()
}

// TestFault45OtherVersion: two versions of the program take turns on one database: each goes on from what the
// other knew. A database from the future is left alone, and costs the history only.
func TestFault45OtherVersion(t *testing.T) {
	needLong(t)
	sqlite := faulty.Need(t, "sqlite3", "sqlite3")
	dir := t.TempDir()
	var builds []string
	for _, v := range []string{"1.0", "2.0"} {
		bin := filepath.Join(dir, "hard-"+v)
		if out, err := exec.Command("go", "build", "-ldflags", "-X main.version="+v, "-o", bin, "hard/cmd/hard").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		builds = append(builds, bin)
	}
	near := faulty.NewCandidate(t, nil, netip.AddrPort{}, 0)
	h := faulty.New(t, nil, headWith("127.0.0.1:9")+static+probed("api.example", near))
	api := faulty.Ours("api.example", near.Addr.Addr().String())
	for i, v := range []string{"1.0", "2.0", "1.0"} {
		h.Program = builds[int(v[0]-'1')]
		if i > 0 {
			near.Kill() // so that only the store can tell
		}
		h.Run()
		h.Wants("the candidate", api)
		faulty.Eventually(t, "the history is open", func() bool { return h.Status().Store.State == "ok" })
		if i > 0 {
			near.Start()
			faulty.Eventually(t, "it is healthy", func() bool { return healthy(h, "api.example") == 1 })
		}
		h.Stop()
	}
	query := func(sql string) string {
		out, err := exec.Command(sqlite, h.DB, sql).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", sql, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := query("SELECT group_concat(new, ' ') FROM (SELECT new FROM events WHERE kind = 'start' ORDER BY at_ms)"); got != "1.0 2.0 1.0" {
		t.Errorf("starts: %q", got)
	}
	query("PRAGMA user_version = 999")
	before, err := os.ReadFile(h.DB)
	if err != nil {
		t.Fatal(err)
	}
	h.MayEndBadly = true // it says that history was lost
	h.Run()
	h.Wants("a local answer", ours())
	h.Wants("the candidate", api)
	h.Says("999", 0)
	h.Stop()
	if after, err := os.ReadFile(h.DB); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the database of a newer version was changed (%v)", err)
	}
}

// TestFault46HostileUser: names that would forge log lines or move a terminal's cursor, a world-writable
// database and configuration, and who may use the control socket.
func TestFault46HostileUser(t *testing.T) {
	up := faulty.NewUpstream(t, nil, netip.AddrPort{})
	h := faulty.New(t, nil, faulty.Head(up.Addr)+"[log]\nqueries = true\nlevel = \"trace\"\n"+static)
	h.Run()
	names := []string{`x\010level=ERROR msg=forged.example.`, `\027[2J\027]0;owned\007.example.`, `\000\255\034.static.example.`, `a\013\010b.static.example.`, `\226\128\174.example.`}
	for _, n := range names {
		for _, network := range []string{"udp", "tcp"} {
			q := faulty.Question{Name: n, Type: dns.TypeA, Network: network}
			if _, _, err := q.Exchange(nil, h.DNS, 0); err != nil {
				t.Fatalf("%s: %v", n, err)
			}
		}
	}
	h.Says("forged", 0)
	h.Says("owned", 0)
	log := h.Log()
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("a line of its own making: %q", line)
		}
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r != 'µ' && (r < ' ' || r > '~') }) {
			t.Errorf("unprintable: %q", line)
		}
	}
	h.There(h.Socket, h.DB) // answers come before either
	if info, err := os.Stat(h.Socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the control socket: %v, %v", info.Mode(), err)
	}
	for file, mode := range map[string]os.FileMode{h.DB: 0o640, filepath.Dir(h.DB): 0o750} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", file, info.Mode().Perm(), err)
		}
	}
	for _, file := range []string{h.DB, h.File} {
		if err := os.Chmod(file, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	mark := len(h.Log())
	h.Signal(syscall.SIGHUP)
	h.Says("every user of this host can write to this file", mark)
	h.Says("every user of this host can write to the database", mark)
	if faulty.Long() && os.Getuid() == 0 { // somebody else may not use the control socket
		if err := os.Chmod(h.Program, 0o755); err != nil {
			t.Fatal(err)
		}
		setpriv := faulty.Need(t, "setpriv", "util-linux")
		out, err := exec.Command(setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", h.Program, "-s", h.Socket, "set", "static.example", "down", "-force").CombinedOutput()
		if err == nil {
			t.Errorf("nobody could change something: %s", out)
		}
		h.Wants("the answer it was", ours())
	}
}

// TestSecretsStayInTheFile: values of headers, passwords in what a check sends, arguments and webhook URLs are in no
// log line at any level, status, -check output, /status.json, page, metrics or database.
func TestSecretsStayInTheFile(t *testing.T) {
	needLong(t)
	echo := faulty.NewCandidate(t, nil, netip.AddrPort{}, 0)
	port := echo.Addr.Port()
	h := faulty.New(t, nil, "")
	web := faulty.Addr()
	h.Config(strings.Replace(headWith("127.0.0.1:9"), `http = ""`, fmt.Sprintf("http = %q", web), 1) + fmt.Sprintf(`
[log]
level = "trace"
[hooks]
on_change = ["/bin/false", "SECRETa"]
webhook = "http://user:SECRETb@%[1]s/SECRETc?token=SECRETd"
[defaults] # SECRETe
interval = "50ms"
fast_interval = "20ms"
[name."headers.example"]
candidates = [%[2]q]
check = { url = "http://:%[3]d/", headers = { Authorization = "Bearer SECRETf" }, status = [503] }
[name."send.example"]
candidates = [%[2]q]
check = { url = "tcp://:%[3]d", send = "GET SECRETg\r\n\r\n", expect = "never" }
[name."args.example"]
candidates = ["192.0.2.1"]
check = { url = "exec:/bin/false", args = ["SECRETh"] }
`, netip.AddrPortFrom(web.Addr(), 9), echo.Addr.Addr(), port))
	out, err := exec.Command(faulty.Program(t), "-check", h.File).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	j, _ := exec.Command(faulty.Program(t), "-check", "-json", h.File).CombinedOutput()
	h.Run()
	h.Says("hook", 0)
	var text bytes.Buffer
	text.Write(out)
	text.Write(j)
	for _, verb := range [][]string{{"status"}, {"status", "-json"}, {"explain", "headers.example"}, {"probe", "headers.example", "-trace"}, {"probe", "send.example", "-trace"},
		{"probe", "args.example", "-trace"}, {"stats"}, {"history", "headers.example", "-c", h.File}} {
		o, _ := h.Verb(verb...)
		text.WriteString(o)
	}
	for _, path := range []string{"/status.json", "/", "/name/headers.example", "/name/send.example", "/metrics"} {
		faulty.Eventually(t, path, func() bool {
			r, err := http.Get("http://" + web.String() + path)
			if err != nil {
				return false
			}
			defer r.Body.Close()
			_, err = text.ReadFrom(r.Body)
			return err == nil && r.StatusCode == 200
		})
	}
	h.Signal(syscall.SIGUSR1)
	broken, err := os.ReadFile(h.File)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, h.File, strings.Replace(string(broken), `"Bearer SECRETf"`, `"Bearer SECRETf\u0001"`, 1))
	if ok, err := reload(h); ok || err != nil {
		t.Errorf("a broken file: %v, %v", ok, err)
	}
	mustWrite(t, h.File, strings.Replace(string(broken), `"Bearer SECRETf"`, `Bearer_SECRETf`, 1))
	h.Signal(syscall.SIGHUP)
	h.Says("har.toml:", 0)
	if o, _ := h.Verb("status"); o != "" {
		text.WriteString(o)
	}
	h.MayEndBadly = true
	h.Stop()
	text.WriteString(h.Log())
	if i := strings.Index(text.String(), "SECRET"); i >= 0 {
		t.Errorf("told: %q", text.String()[max(0, i-100):min(text.Len(), i+50)])
	}
	files, err := filepath.Glob(h.DB + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || bytes.Contains(b, []byte("SECRET")) {
			t.Errorf("%s has a secret (%v)", f, err)
		}
	}
}
