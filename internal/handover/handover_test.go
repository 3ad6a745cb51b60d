package handover

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

// played is an instance that writes down what it is asked to do.
type played struct {
	files []*os.File
	state string

	mu    sync.Mutex
	calls []string
	done  chan struct{}
}

func (p *played) note(call string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
}

func (p *played) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.calls, " ")
}

func (p *played) Offer(string) ([]*os.File, []byte, error) {
	p.note("offer")
	var files []*os.File
	for _, f := range p.files {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return nil, nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), f.Name()))
	}
	return files, []byte(p.state), nil
}
func (p *played) Withdraw(error) { p.note("withdraw") }
func (p *played) Leave(string)   { p.note("leave") }
func (p *played) Release()       { p.note("release") }
func (p *played) Released()      { p.note("released"); close(p.done) }

// give makes a Giver with n sockets.
func give(t *testing.T, n int) (*played, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hand")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &played{state: `{"A":"` + strings.Repeat("x", 1<<20) + `"}`, done: make(chan struct{})}
	for i := range n {
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := u.File()
		u.Close()
		if err != nil {
			t.Fatal(err)
		}
		p.files = append(p.files, os.NewFile(mustDup(t, f), fmt.Sprint("udp ", i)))
		f.Close()
	}
	t.Cleanup(func() { CloseAll(p.files) })
	path := Path(filepath.Join(dir, "sub", "c.sock"))
	g := Listen(path, p, slog.New(slog.DiscardHandler))
	t.Cleanup(g.Close)
	eventually(t, "it listens", func() bool { // the file is there a moment before that
		u, err := net.Dial("unix", path)
		if err != nil {
			return false
		}
		u.Close()
		return true
	})
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi, err)
	}
	return p, path
}

func mustDup(t *testing.T, f *os.File) uintptr {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(fd)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// take retries: right after the socket is there, nobody may listen on it yet.
func take(t *testing.T, path string) *Takeover {
	t.Helper()
	var tk *Takeover
	eventually(t, "the sockets are handed over", func() (ok bool) {
		var err error
		if tk, err = Take(t.Context(), path, "next"); err != nil && !errors.Is(err, ErrNobody) {
			t.Fatal(err)
		}
		return err == nil
	})
	return tk
}

func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// TestHandover: more sockets than go in one message, and a large state, arrive as they were; then
// the instance is asked to leave, in order, and once.
func TestHandover(t *testing.T) {
	p, path := give(t, perMessage*2+30)
	tk := take(t, path)
	if tk.State == nil || string(tk.State) != p.state {
		t.Errorf("%d bytes of state arrived of %d", len(tk.State), len(p.state))
	}
	if len(tk.Files) != len(p.files) {
		t.Fatalf("%d sockets arrived of %d", len(tk.Files), len(p.files))
	}
	for i, f := range tk.Files {
		if inode(t, f) != inode(t, p.files[i]) || f.Name() != p.files[i].Name() {
			t.Errorf("socket %d is another one: %s", i, f.Name())
		}
		if flags, err := fcntl(f, syscall.F_GETFD); err != nil || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("a child would inherit socket %d", i)
		}
	}
	if got := p.all(); got != "offer" {
		t.Errorf("before the successor serves: %s", got)
	}
	if err := tk.Serving(); err != nil {
		t.Fatal(err)
	}
	tk.Released(t.Context())
	<-p.done
	tk.Close()
	if got := p.all(); got != "offer leave release released" {
		t.Error(got)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("its socket is still there, where the successor's should be")
	}
	if _, err := Take(t.Context(), path, "next"); !errors.Is(err, ErrNobody) {
		t.Errorf("after that: %v", err)
	}
}

func fcntl(f *os.File, cmd uintptr) (uintptr, error) {
	r, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), cmd, 0)
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// TestHandoverFails: whatever a successor does before it serves, the instance goes on, and the next
// one may try.
func TestHandoverFails(t *testing.T) {
	p, path := give(t, 2)
	for name, wrong := range map[string]func(*conn){
		"says nothing": func(*conn) {},
		"speaks an unknown version": func(c *conn) {
			_ = c.send(&message{Hello: &hello{Protocol: 99}})
			if m, err := c.receive(time.Now().Add(patience)); err != nil || !strings.Contains(m.Refused, "version") {
				t.Errorf("no reason: %v, %v", m, err)
			}
		},
		"speaks nonsense": func(c *conn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
		"changes its mind": func(c *conn) {
			_ = c.send(&message{Hello: &hello{Protocol: protocol}})
			for {
				if m, err := c.receive(time.Now().Add(patience)); err != nil || m.State != nil {
					break
				}
			}
			_ = c.send(&message{Hello: &hello{}})
		},
	} {
		u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c := newConn(u, ofInstance)
		wrong(c)
		c.close()
	}
	tk := take(t, path)
	tk.Close()
	eventually(t, "every offer is withdrawn", func() bool { return p.all() == "offer withdraw offer withdraw" })
	tk = take(t, path)
	if err := tk.Serving(); err != nil {
		t.Fatal(err)
	}
	<-p.done
	tk.Close()
}

// TestHandoverWho: another user gets nothing, whatever the socket's mode says by then.
func TestHandoverWho(t *testing.T) {
	if path := os.Getenv("HANDOVER_TAKE"); path != "" {
		_, err := Take(t.Context(), path, "thief")
		fmt.Println("took:", err)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can be two users")
	}
	p, path := give(t, 1)
	for dir := filepath.Dir(path); dir != filepath.Clean(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self := filepath.Join(filepath.Dir(path), "self") // the test's own is out of the other user's reach
	if out, err := exec.Command("cp", os.Args[0], self).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	steal := func() string {
		cmd := exec.Command(self, "-test.run=^TestHandoverWho$", "-test.v")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "HANDOVER_TAKE="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := steal(); !strings.Contains(out, "permission denied") {
		t.Errorf("another user may connect: %s", out)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if out := steal(); !strings.Contains(out, "uid 65534 may not") {
		t.Errorf("another user is not refused: %s", out)
	}
	if p.all() != "" {
		t.Errorf("and yet: %s", p.all())
	}
}

// TestStoreName: systemd takes it.
func TestStoreName(t *testing.T) {
	for _, a := range []string{"127.0.0.1:53", "[::1]:53", "[fe80::1%eth0]:5353"} {
		if n := StoreName(netip.MustParseAddrPort(a)); strings.ContainsAny(n, ":\n \x00") || n == "" {
			t.Errorf("%s becomes %q", a, n)
		}
	}
}
