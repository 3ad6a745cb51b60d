package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"hard/internal/handover"
)

// manager plays systemd for one service: it passes sockets, keeps those it is given, and listens to
// what it is told.
type manager struct {
	t    *testing.T
	s    *service
	path string
	conn *net.UnixConn
	unit []*os.File // what hard.socket would have bound
	env  []string

	mu     sync.Mutex
	stored []stored
	told   []string // every line, in order
}

type stored struct {
	name string
	file *os.File
	ino  uint64
}

func newManager(s *service) *manager {
	s.t.Helper()
	m := &manager{t: s.t, s: s, path: filepath.Join(s.dir, "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.listen()
	}()
	s.t.Cleanup(func() {
		m.conn.Close()
		<-done
		m.emptyStore()
	})
	return m
}

func (m *manager) emptyStore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.stored {
		s.file.Close()
	}
	m.stored = nil
}

func (m *manager) listen() {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*253))
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var files []*os.File
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for i := range msgs {
				fds, _ := unix.ParseUnixRights(&msgs[i])
				for _, fd := range fds {
					files = append(files, os.NewFile(uintptr(fd), "stored"))
				}
			}
		}
		m.take(strings.Split(string(buf[:n]), "\n"), files)
	}
}

// take does what systemd does with a message.
func (m *manager) take(lines []string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	said := map[string]string{}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, "=")
		said[k] = v
		m.told = append(m.told, l)
	}
	name := said["FDNAME"]
	if strings.ContainsAny(name, ":\n") || len(name) > 255 {
		m.t.Errorf("FDNAME=%q is not allowed", name)
	}
	if said["FDSTORE"] == "1" {
		if said["FDPOLL"] != "0" {
			m.t.Error("without FDPOLL=0 an error on a socket would have it dropped")
		}
		for _, f := range files {
			m.keepLocked(name, f)
		}
		files = nil
	}
	if said["FDSTOREREMOVE"] == "1" {
		kept := m.stored[:0]
		for _, s := range m.stored {
			if s.name == name {
				s.file.Close()
			} else {
				kept = append(kept, s)
			}
		}
		m.stored = kept
	}
	for _, f := range files {
		m.t.Error("a descriptor that nobody asked for")
		f.Close()
	}
}

func (m *manager) keepLocked(name string, f *os.File) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		m.t.Error(err)
	}
	for _, s := range m.stored {
		if s.ino == st.Ino {
			f.Close()
			return
		}
	}
	m.stored = append(m.stored, stored{name, f, st.Ino})
}

// says tells how often a line that begins so was received.
func (m *manager) says(line string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.told {
		if strings.HasPrefix(l, line) {
			n++
		}
	}
	return n
}

func (m *manager) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.stored {
		names = append(names, s.name)
	}
	return names
}

// start runs the service as systemd would, and waits until it says that it is ready.
func (m *manager) start() *instance {
	m.t.Helper()
	m.mu.Lock()
	files := append([]*os.File(nil), m.unit...)
	names := make([]string, len(files))
	for i := range names {
		names[i] = "hard.socket"
	}
	for _, s := range m.stored {
		files, names = append(files, s.file), append(names, s.name)
	}
	m.mu.Unlock()
	ready := m.says("READY=1")
	r := m.s.start(func(c *exec.Cmd) {
		// A shell, for LISTEN_PID has to be the process's own.
		args := c.Args
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`}, args...)
		c.ExtraFiles = files
		c.Env = append(c.Env, "NOTIFY_SOCKET="+m.path)
		if len(files) > 0 {
			c.Env = append(c.Env, fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		}
		c.Env = append(c.Env, m.env...)
	})
	eventually(m.t, "the service manager hears that we are ready", func() bool {
		if !r.alive() {
			m.t.Fatalf("it ended: %v\n%s", r.err, r.log)
		}
		return m.says("READY=1") > ready
	})
	return r
}

// restarts has the service stopped, by TERM and by kill -9, and started again, under load.
func (m *manager) restarts(rounds int) {
	m.t.Helper()
	stops := m.says("STOPPING=1")
	now := m.start()
	m.s.knows()
	l := newLoad(m.t, m.s.at, 10000, m.s.names())
	for i := range rounds {
		l.answers(300)
		if i%2 == 0 {
			now.stop()
		} else {
			// What a process that is killed has in its hands is lost with it; what waits must not be.
			l.pause()
			now.freeze()
			l.resume()
			l.full()
			now.signal(syscall.SIGKILL)
			<-now.ended
		}
		now = m.start()
	}
	l.answers(300)
	l.stop()
	m.t.Logf("%d restarts: %d queries, %d TCP connections, %d of them again", rounds, l.asked.Load(), l.conns.Load(), l.again.Load())
	now.stop()
	if n := m.says("STOPPING=1") - stops; n != rounds/2+1 {
		m.t.Errorf("STOPPING=1 was said %d times", n)
	}
}

// freeze stops a process, and waits until each of its threads has: the signal alone takes its time.
func (r *instance) freeze() {
	r.s.t.Helper()
	r.signal(syscall.SIGSTOP)
	eventually(r.s.t, "the process stands still", func() bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.cmd.Process.Pid))
		for _, f := range stats {
			b, err := os.ReadFile(f)
			if err != nil {
				return false
			}
			// pid (comm) state ...
			if _, rest, ok := strings.Cut(string(b), ") "); !ok || rest[0] != 'T' {
				return false
			}
		}
		return len(stats) > 0
	})
}

func (r *instance) signal(sig syscall.Signal) {
	r.s.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.s.t.Fatal(err)
	}
}

func managerRounds() int {
	if os.Getenv("HARD_LONG") != "" {
		return 100
	}
	return 4
}

// TestManagerStore: the sockets that hard binds are kept by systemd while it is restarted, by TERM or
// kill -9: at 10,000 queries a second none is lost.
func TestManagerStore(t *testing.T) {
	s := newService(t)
	m := newManager(s)
	m.restarts(managerRounds())
	for _, n := range m.names() {
		if n != handover.StoreName(s.at) {
			t.Errorf("stored under %q", n)
		}
	}
}

// TestManagerSockets: the same with sockets that systemd has bound (hard.socket). What nobody listens
// to is closed, with a warning.
func TestManagerSockets(t *testing.T) {
	s := newService(t)
	m := newManager(s)
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.at))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(s.at))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stray, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	for _, c := range []interface{ File() (*os.File, error) }{u, l, stray} {
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m.unit = append(m.unit, f)
	}
	m.unit = append(m.unit, pipe, m.unit[0]) // no socket at all, and one twice
	first := m.start()
	first.stop() // its log is whole then
	text := first.log.String()
	if !strings.Contains(text, stray.Addr().String()) || strings.Count(text, "handed over is closed") != 2 {
		t.Errorf("no warning of the two that can't be used:\n%s", text)
	}
	m.restarts(managerRounds())
}

// TestManagerReload: a reload is told, and changes what is stored with what is listened on; the
// watchdog is fed.
func TestManagerReload(t *testing.T) {
	s := newService(t)
	m := newManager(s)
	m.env = []string{"WATCHDOG_USEC=200000"}
	r := m.start()
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	second := ownPlace()
	reload := func(dns string) {
		t.Helper()
		ready := m.says("READY=1")
		s.write(strings.Replace(string(text), fmt.Sprintf("dns = [%q]", s.at), dns, 1))
		r.signal(syscall.SIGHUP)
		eventually(t, "the reload is over", func() bool { return m.says("READY=1") > ready })
	}
	stored := func() map[string]bool {
		set := map[string]bool{}
		for _, n := range m.names() {
			set[n] = true
		}
		return set
	}
	reload(fmt.Sprintf("dns = [%q, %q]", s.at, second))
	if got := stored(); !got[handover.StoreName(s.at)] || !got[handover.StoreName(second)] {
		t.Errorf("stored: %v", got)
	}
	reload(fmt.Sprintf("dns = [%q]", second))
	eventually(t, "the address that was given up is taken out", func() bool { return !stored()[handover.StoreName(s.at)] })
	reload("nonsense = 1")
	if m.says("RELOADING=1") != 3 || m.says("MONOTONIC_USEC=") != 3 || m.says("STATUS=serving 3 names on ["+second.String()+"]; the last reload failed") != 1 {
		t.Errorf("told: %q", m.told)
	}
	eventually(t, "the watchdog is fed", func() bool { return m.says("WATCHDOG=1") >= 5 })
	// Its environment is not for its children.
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", r.cmd.Process.Pid))
	if err != nil || !strings.Contains(string(env), "NOTIFY_SOCKET=") {
		t.Errorf("the test doesn't pass NOTIFY_SOCKET: %v", err)
	}
	r.stop()

	// An address that is no longer listened on is taken out of the store at the next start.
	s.write(string(text))
	r = m.start()
	eventually(t, "only what is listened on is stored", func() bool {
		got := stored()
		return got[handover.StoreName(s.at)] && !got[handover.StoreName(second)]
	})
	r.stop()
}
