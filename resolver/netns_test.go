package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// inNamespace runs the test in a child process with a network namespace of its
// own, with nothing but a loopback interface that is up. It returns true in
// the child; in the parent, the child's result is the test's.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "HARD_TEST_NETNS"
	if os.Getenv(mark) == t.Name() {
		setLoopback(t, true)
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=50s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skip("no network namespace here: ", err)
	}
	t.Logf("in the namespace:\n%s", out)
	switch {
	case err != nil:
		t.Error(err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skip("skipped in the namespace")
	}
	return false
}

// setLoopback sets lo up or down.
func setLoopback(t *testing.T, up bool) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if up {
		ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal("lo: ", err)
	}
}

// ip runs ip(8), or skips the test if there is none.
func ip(t *testing.T, args string) {
	t.Helper()
	if err := tryIP(args); errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func tryIP(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// linkedFarEnd is an upstream, UDP only, in a namespace of its own behind the
// link "up0", which is made, and up.
func linkedFarEnd(t *testing.T) *farEnd {
	t.Helper()
	tid, moved, end := make(chan int), make(chan struct{}), make(chan struct{})
	u := &farEnd{t: t, ports: make(map[uint16]int), addr: addrPort("10.231.0.2", 5353)}
	u.set(answerA)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		tid <- unix.Gettid()
		<-moved
		err := errors.Join(tryIP("addr add 10.231.0.2/30 dev far0"), tryIP("link set far0 up"))
		if err == nil {
			u.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(u.addr))
		}
		result <- err
		<-end
	}()
	var n int
	select {
	case n = <-tid:
	case err := <-result:
		t.Skip("no second namespace: ", err)
	}
	ip(t, fmt.Sprintf("link add up0 type veth peer name far0 netns %d", n))
	ip(t, "addr add 10.231.0.1/30 dev up0")
	ip(t, "link set up0 up")
	close(moved)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); u.serveUDP() }()
	t.Cleanup(func() { u.udp.Close(); <-done; close(end) })
	return u
}

// Fault 16: with all local ports in use, new queries are answered with
// SERVFAIL at once, those on their way are unharmed, and when ports are free
// again all is as before; no socket is kept.
func TestFault16NoPorts(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	u := newFarEnd(t, func(q []byte, _ bool) [][]byte {
		if q[13] == 'w' {
			return nil
		}
		return answerA(q, false)
	})
	const ports = 50
	err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "40000 %d", 40000+ports-1), 0)
	if err != nil {
		t.Skip("cannot set the range of ports: ", err)
	}
	// No attempt ends, and so frees its port, before the test has looked.
	o := optionsTo(u)
	o.AttemptTimeout, o.TotalTimeout = 6*time.Second, 15*time.Second
	f := testForwarder(t, o)
	var waiting []<-chan []byte
	hold := func() { // one more query that waits, with a port of its own if there is one
		b, _ := question(fmt.Sprintf("w%d.example.", len(waiting)), dns.TypeA).Pack()
		waiting = append(waiting, send(t, f, b, false, nil))
	}
	for range ports {
		hold()
	}
	early := 0
	for _, ch := range waiting {
		early += len(ch)
	}
	if early > 2 { // the prober may have ports too
		t.Errorf("%d of %d queries failed with ports left", early, ports)
	}
	for asked, without := 0, 0; without < 5; asked++ {
		start := time.Now()
		r := ask(t, f, withOPT(question(fmt.Sprintf("n%d.example.", asked), dns.TypeA)), false)
		if r.Rcode == dns.RcodeSuccess && asked < ports { // the prober's port has become free
			hold()
			continue
		}
		if r.Rcode != dns.RcodeServerFailure || ede(r) != 23 || time.Since(start) > 5*time.Second { // an attempt lasts 6 s
			t.Errorf("without ports, after %v: %v", time.Since(start), r)
		}
		without++
	}
	if s := f.UpstreamStats()[0]; s.State == "down" || s.Failures["local"] == 0 {
		t.Errorf("the upstream is %s, failures %v: it was not its fault", s.State, s.Failures)
	}
	u.set(answerA) // the retries of those that wait are answered, or their deadline ends them
	for _, ch := range waiting {
		wait(t, ch)
	}
	eventually(t, "the ports are free again", func() bool {
		return ask(t, f, question("again.example.", dns.TypeA), false).Rcode == 0
	})
	for i := range 2 * ports {
		if r := ask(t, f, question(fmt.Sprintf("a%d.example.", i), dns.TypeA), false); r.Rcode != 0 {
			t.Fatalf("query %d afterwards: %v", i, r)
		}
	}
	eventually(t, "no socket is kept but for the pool's, which have a time of their own",
		func() bool { return unpooledSocks(f) == 0 })
}

// unpooledSocks counts the sockets towards upstreams that serve one query.
func unpooledSocks(f *forwarder) (n int) {
	for _, l := range f.lanes {
		l.mu.Lock()
		n += l.open
		for _, u := range f.conf.Load().all {
			n -= u.lanes[l.index].pooled
		}
		l.mu.Unlock()
	}
	return n
}

// Fault 30: without a link queries fail at once, and within 2 s of its return
// they are forwarded again, for netlink has told of it.
func TestFault30LinkDownAndUp(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	u := linkedFarEnd(t)
	f := testForwarder(t, patient(optionsTo(u)))
	if r := ask(t, f, question("a.example.", dns.TypeA), false); r.Rcode != 0 {
		t.Fatalf("before: %v", r)
	}
	up := f.conf.Load().all[0]
	for round := range 3 {
		ip(t, "link set up0 down")
		for i := range 5 {
			r := ask(t, f, withOPT(question(fmt.Sprintf("d%d-%d.example.", round, i), dns.TypeA)), false)
			if r.Rcode != dns.RcodeServerFailure || ede(r) != 23 {
				t.Errorf("down: %v", r)
			}
		}
		eventually(t, "it is down", func() bool { return !up.usable() })
		// As after a long time without a link.
		up.health.backoff.Store(int64(probeMax))
		up.health.nextProbe.Store(f.now() + int64(probeMax))
		ip(t, "link set up0 up")
		// Without a query's help, and long before its next probe would have been due.
		eventually(t, "it is up", up.usable)
		if r := ask(t, f, question(fmt.Sprintf("u%d.example.", round), dns.TypeA), false); r.Rcode != 0 {
			t.Errorf("up: %v", r)
		}
	}
}

// Fault 31: the address that pooled sockets are bound to goes away; no query
// is lost, not even before netlink has told.
func TestFault31OwnAddressChanges(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "addr add 127.9.0.1/32 dev lo")
	ip(t, "addr add 127.9.0.2/32 dev lo")
	ip(t, "route replace local 127.0.0.1 dev lo src 127.9.0.1 table local")
	u := newFarEnd(t, answerA)
	f := forwardTo(t, u)
	up := f.conf.Load().all[0]
	for i := range 600 {
		usePool(f, up)
		if i == 300 {
			ip(t, "route replace local 127.0.0.1 dev lo src 127.9.0.2 table local")
			ip(t, "addr del 127.9.0.1/32 dev lo")
			ip(t, "route del local 127.0.0.0/8 dev lo table local")
		}
		r := ask(t, f, question(fmt.Sprintf("m%d.example.", i), dns.TypeA), false)
		if r.Rcode != 0 {
			t.Errorf("query %d: %v", i, dns.RcodeToString[r.Rcode])
		}
	}
}
