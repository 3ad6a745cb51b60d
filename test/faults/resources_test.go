package faults

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hard/test/faulty"
)

// limitFiles sets how many descriptors a running program may have.
func limitFiles(t *testing.T, pid int, n uint64) {
	t.Helper()
	var l unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l)
	if l.Cur = min(n, l.Max); err == nil {
		err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &l, nil)
	}
	if err != nil {
		t.Fatal("the limit of descriptors: ", err)
	}
}

// quiet fails the test if an endpoint changed its state, or an answer, since a position of the log.
func quiet(t *testing.T, h *faulty.Hard, from int) {
	t.Helper()
	for line := range strings.Lines(h.Log()[from:]) {
		if strings.Contains(line, "endpoint is ") || strings.Contains(line, "answer changed") {
			t.Errorf("for no fault of a candidate: %s", line)
		}
	}
}

// Fault 14: no descriptor is left. Queries over UDP go on, forwards are answered or fail with SERVFAIL
// at once, accepting does not spin, no probe that could not be made counts against its candidate, and
// when there are descriptors again all is as before.
func TestFault14NoDescriptors(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	s.ready()
	s.Wants("forwards work", faulty.Forwarded())
	before := s.Usage()
	from := len(s.Log())
	limitFiles(t, s.PID(), 1) // descriptors that are open stay; there will be no new one
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range 20 { // the kernel accepts these; the program can't
		c, err := net.DialTimeout("tcp", s.DNS.String(), faulty.Patience)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	a := s.Ask(ours(), s.api(s.near), faulty.Forwarded().OrServfail())
	cpu := cpuTime(t, s.PID())
	probes, began := s.near.Seen.Load(), time.Now()
	for i := range 3 {
		a.More(i, 300)
	}
	// A change of the world must not be believed while nothing can be probed ...
	if n := s.near.Seen.Load() - probes; n > 1 {
		t.Errorf("%d probes without a descriptor: the limit is not in force", n)
	}
	spent, passed := cpuTime(t, s.PID())-cpu, time.Since(began)
	a.Clean()
	t.Logf("without descriptors: %v of CPU in %v, 3 clients asking", spent, passed.Round(time.Millisecond))
	quiet(t, s.Hard, from)
	if n := strings.Count(s.Log()[from:], "\n"); n > 20 {
		t.Errorf("%d log lines:\n%s", n, s.Log()[from:])
	}
	limitFiles(t, s.PID(), 1024)
	for _, c := range conns {
		c.Close()
	}
	conns = nil
	faulty.Eventually(t, "probes are made again", func() bool { return s.near.Seen.Load() > probes+5 })
	s.Wants("TCP again", ours().TCP())
	s.Wants("forwards again", faulty.Forwarded())
	s.Wants("forwards over TCP again", faulty.Forwarded().TCP())
	a = s.Ask(s.all()...)
	for i := range s.all() {
		a.More(i, 30)
	}
	a.Clean()
	quiet(t, s.Hard, from)
	s.Store("ok")
	s.Writes()
	s.Settles(before)
}

// cpuTime is what a process has used of the processors.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// Fault 14, from the start on, with a limit that ulimit -n 64 would give: 200 clients over TCP and a
// stream of others.
func TestFault14FewDescriptors(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.Prefix = []string{faulty.Need(t, "prlimit", "util-linux"), "--nofile=64:64"}
	s.ready()
	faulty.LeakCheck(t, s.Hard)
	from := len(s.Log())
	a := s.Ask(ours(), s.api(s.near), faulty.Forwarded().OrServfail())
	var conns []net.Conn
	for range 200 {
		c, err := net.DialTimeout("tcp", s.DNS.String(), faulty.Patience)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	s.Wants("a TCP client among 200 idle ones", ours().TCP())
	for i := range 3 {
		a.More(i, 200)
	}
	a.Clean()
	for _, c := range conns {
		c.Close()
	}
	s.Wants("TCP again", faulty.Forwarded().TCP())
	quiet(t, s.Hard, from)
}

// Fault 16: all local ports towards the upstream and the candidates are taken. What could not be sent
// is answered with SERVFAIL, candidates are not blamed, and ports given back are used again.
func TestFault16NoPorts(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	in := faulty.NewNamespace(t)
	s := newShop(t, in)
	s.ready()
	from := len(s.Log())
	before := s.Usage()
	in.Sysctl("net.ipv4.ip_local_port_range", "40000 40050")
	var taken []net.Conn
	for _, addr := range []netip.AddrPort{s.near.Addr, s.far.Addr, s.up.Addr} {
		for range 60 {
			err := in.Do(func() error {
				c, err := net.Dial("tcp", addr.String())
				if err == nil {
					taken = append(taken, c)
				}
				return err
			})
			if err != nil {
				break
			}
		}
		for range 60 {
			err := in.Do(func() error {
				c, err := net.Dial("udp", addr.String())
				if err == nil {
					taken = append(taken, c)
				}
				return err
			})
			if err != nil {
				break
			}
		}
	}
	t.Logf("%d sockets hold the ports", len(taken))
	// The clients' own sockets need ports, too: these are not of that range.
	for i := range 100 {
		for j, q := range []faulty.Question{ours(), s.api(s.near), faulty.Forwarded().OrServfail()} {
			q.Port = 20000 + 3*i + j
			r, took, err := q.Exchange(in, s.DNS, i)
			if err != nil {
				t.Errorf("query %d, %d: %v", i, j, err)
			} else if text := q.Check(r); text != "" {
				t.Errorf("query %d, %d: %s after %v", i, j, text, took)
			}
		}
	}
	probes := s.near.Seen.Load()
	faulty.Eventually(t, "probes are skipped", func() bool { return s.Metric("hard_probes_total", `outcome="aborted"`) > 5 })
	if n := s.near.Seen.Load() - probes; n > 5 {
		t.Logf("%d probes found a port", n)
	}
	quiet(t, s.Hard, from)
	for _, c := range taken {
		c.Close()
	}
	in.Sysctl("net.ipv4.ip_local_port_range", "32768 60999")
	probes = s.near.Seen.Load()
	faulty.Eventually(t, "probes are made again", func() bool { return s.near.Seen.Load() > probes+5 })
	a := s.Ask(s.all()...)
	for i := range s.all() {
		a.More(i, 50)
	}
	a.Clean()
	quiet(t, s.Hard, from)
	s.Settles(before)
}

// Fault 17: nobody reads what is logged. Not a query waits, lines are dropped and counted, and when
// somebody reads again he is told how many are missing.
func TestFault17LogBlocked(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s.Output = w
	s.Config(faulty.Head(s.up.Addr) + "[log]\nqueries = true\n" + static + probed("api.example", s.near, s.far))
	s.ready()
	faulty.LeakCheck(t, s.Hard)
	a := s.Ask(s.all()...)
	faulty.Eventually(t, "log lines are dropped", func() bool { return s.Metric("hard_log_dropped_lines_total") > 100 })
	if out, code := s.Verb("reload"); code != 0 {
		t.Errorf("a reload: %s", out)
	}
	s.near.Kill()
	s.Wants("a failover goes on", s.api(s.far))
	s.near.Start()
	s.Wants("and back", s.api(s.near))
	for i := range s.all() {
		a.More(i, 100)
	}
	for i, rep := range a.Stop() {
		t.Logf("clients saw, question %d: %v", i, rep)
		if rep.Lost > 0 || i != 1 && rep.WrongN > 0 {
			t.Errorf("question %d: %v", i, rep)
		}
	}
	dropped := s.Metric("hard_log_dropped_lines_total")
	t.Logf("%v lines dropped", dropped)
	got := new(faulty.Log)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Read(buf)
			if err != nil {
				return
			}
			_, _ = got.Write(buf[:n])
		}
	}()
	a = s.Ask(ours())
	faulty.Eventually(t, "the reader is told of lost lines", func() bool {
		return strings.Contains(got.String(), "log lines were lost: nobody read them")
	})
	a.Clean()
	// The reader goes away: a write would be EPIPE, and a SIGPIPE.
	r.Close()
	a = s.Ask(s.all()...)
	for i := range s.all() {
		a.More(i, 50)
	}
	a.Clean()
}

// Fault 12: the process stands still for longer than any interval, as a host that was suspended. The
// first answers are the last known ones, no burst of missed probes follows, no candidate is blamed, and
// a candidate that died meanwhile is found dead soon.
func TestFault12Suspended(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	from := len(s.Log())
	s.Signal(syscall.SIGSTOP)
	time.Sleep(6 * time.Second) // the suspension
	probes := s.near.Seen.Load()
	began := time.Now()
	s.Signal(syscall.SIGCONT)
	a := s.Ask(s.all()...)
	for i := range s.all() {
		a.More(i, 100)
	}
	passed := time.Since(began)
	a.Clean()
	n := s.near.Seen.Load() - probes
	t.Logf("%d probes in the %v after it, at an interval of 100 ms", n, passed.Round(time.Millisecond))
	if missed := int64(6 * time.Second / (100 * time.Millisecond)); n > missed/2+int64(passed/(50*time.Millisecond)) {
		t.Errorf("%d probes at once: the missed ones were made up for", n)
	}
	quiet(t, s.Hard, from)
	s.Signal(syscall.SIGSTOP)
	s.near.Kill()
	time.Sleep(2 * time.Second) // the suspension
	s.Signal(syscall.SIGCONT)
	s.Wants("who died meanwhile is found", s.api(s.far))
}

// Fault 13: the process gets no processor for 2 s at a time, again and again: what its probes measured
// then is not taken for the candidates'.
func TestFault13NoProcessor(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	from := len(s.Log())
	for range 4 {
		s.Signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Second) // without a processor
		s.Signal(syscall.SIGCONT)
		time.Sleep(400 * time.Millisecond) // with one
	}
	quiet(t, s.Hard, from)
	s.Wants("all is as before", s.api(s.near))
	for _, e := range s.Status().Names {
		for _, ep := range e.Endpoints {
			if ep.Failures > 0 {
				t.Errorf("%s: %d failures in a row", ep.Candidate, ep.Failures)
			}
		}
	}
}

// cgroup makes a cgroup of a kind with a limit, by version 1 or 2, in which the program will start. It
// skips the test where none can be made.
func cgroup(t *testing.T, h *faulty.Hard, v1, file1, value1, file2, value2 string) (dir string) {
	t.Helper()
	faulty.NeedRoot(t)
	name := filepath.Base(h.Dir)
	for _, c := range []struct{ root, file, value string }{
		{"/sys/fs/cgroup/" + v1, file1, value1}, {"/sys/fs/cgroup", file2, value2},
	} {
		dir = c.root + "/hardfault-" + name
		if _, err := os.Stat(c.root + "/cgroup.procs"); err != nil || os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			h.Stop()
			_ = os.Remove(dir)
		})
		if err := os.WriteFile(dir+"/"+c.file, []byte(c.value), 0o644); err != nil {
			continue
		}
		h.Prefix = []string{"/bin/sh", "-c", "echo $$ >" + dir + "/cgroup.procs; exec \"$@\"", "sh"}
		return dir
	}
	t.Skip("skipped: no cgroup of this kind can be made here")
	return ""
}

// Fault 13, with 5 % of a processor.
func TestFault13LittleProcessor(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	cgroup(t, s.Hard, "cpu", "cpu.cfs_quota_us", "5000", "cpu.max", "5000 100000")
	s.ready()
	from := len(s.Log())
	a := s.Ask(ours(), s.api(s.near))
	probes := s.near.Seen.Load()
	faulty.Eventually(t, "some probes", func() bool { return s.near.Seen.Load() > probes+40 })
	a.Clean()
	quiet(t, s.Hard, from)
}
