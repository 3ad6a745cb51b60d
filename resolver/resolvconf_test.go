package resolver

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil { // as those who write these files do
		t.Fatal(err)
	}
}

func ports(list ...string) (out []netip.AddrPort) {
	for _, s := range list {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(s), 53))
	}
	return out
}

// Contract section 4, R78: the first file that names another than ourselves.
func TestFindServers(t *testing.T) {
	d := t.TempDir()
	a, b, c := d+"/a", d+"/b", d+"/c"
	self := ports("127.0.0.1", "::1")
	if _, _, err := findServers([]string{a, b}, self); err == nil {
		t.Error("no error without files")
	}
	write(t, a, "# nothing\nnameserver 127.0.0.1\nnameserver ::1\n")
	write(t, b, "search x\nnameserver\nnameserver bad\n nameserver 127.0.0.53\nnameserver fe80::1%lo # x\nnameserver 127.0.0.53\n")
	write(t, c, "nameserver 10.0.0.1\n")
	got, file, err := findServers([]string{d + "/missing", a, b, c}, self)
	if err != nil || file != b || !slices.Equal(got, ports("127.0.0.53", "fe80::1%lo")) {
		t.Errorf("got %v of %s, %v", got, file, err)
	}
	if got, _, _ = findServers([]string{a}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}); len(got) != 2 {
		t.Errorf("another port is not us: %v", got)
	}
	if got, _, err = findServers([]string{a}, ports("0.0.0.0")); err == nil {
		t.Errorf("a wildcard listener is ourselves: %v", got)
	}
}

// Fault 36.
func TestBesideUs(t *testing.T) {
	p := t.TempDir() + "/resolv.conf"
	write(t, p, "nameserver 127.0.0.1\nnameserver 10.0.0.1\n")
	if got := besideUs(p, ports("127.0.0.1")); len(got) != 1 || got[0].String() != "10.0.0.1" {
		t.Errorf("got %v", got)
	}
	if got := besideUs(p, ports("127.0.0.2")); got != nil {
		t.Errorf("we are not there, yet: %v", got)
	}
}

// Files are followed through renames, links, missing directories and broken
// halves; the saved list stands in.
func TestFollowResolvConf(t *testing.T) {
	d := t.TempDir()
	first, second := d+"/run/first/resolv.conf", d+"/etc/resolv.conf"
	var mu sync.Mutex
	var list []netip.AddrPort
	now := func() []netip.AddrPort {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
	if err := os.MkdirAll(d+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	w := newConfWatcher(slog.New(slog.DiscardHandler), []string{first, second}, ports("127.0.0.1"), ports("10.9.9.9", "127.0.0.1"))
	if !slices.Equal(w.servers, ports("10.9.9.9")) {
		t.Errorf("saved list: %v", w.servers)
	}
	w.again = 20 * time.Millisecond
	w.start(func(s []netip.AddrPort) {
		mu.Lock()
		defer mu.Unlock()
		list = slices.Clone(s)
	})
	defer w.stop()
	becomes := func(want ...string) {
		t.Helper()
		eventually(t, "the list becomes "+want[0], func() bool { return slices.Equal(now(), ports(want...)) })
	}
	write(t, second, "nameserver 10.0.0.1\n")
	becomes("10.0.0.1")
	write(t, second, "nameserver 10.0.0.2\n")
	becomes("10.0.0.2")
	write(t, first, "nameserver 10.0.0.3\n") // its directory is new
	becomes("10.0.0.3")
	if err := os.RemoveAll(d + "/run"); err != nil {
		t.Fatal(err)
	}
	becomes("10.0.0.2")
	write(t, d+"/elsewhere/x", "nameserver 10.0.0.4\n")
	if err := os.Symlink(d+"/elsewhere/x", second+".l"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(second+".l", second); err != nil {
		t.Fatal(err)
	}
	becomes("10.0.0.4")
	write(t, d+"/elsewhere/x", "nameserver 10.0.0.5\n")
	becomes("10.0.0.5")
	write(t, d+"/elsewhere/x", "")
	write(t, d+"/elsewhere/x", "nameserver 10.0.0.6\n")
	becomes("10.0.0.6")
}

// The forwarder takes the servers of a file, and of its next version.
func TestForwardToResolvConf(t *testing.T) {
	p := t.TempDir() + "/resolv.conf"
	write(t, p, "nameserver 127.0.0.1\n")
	var saved sync.Map
	f := testForwarder(t, UpstreamOptions{
		Servers:     []Server{{Text: "resolv.conf:" + p, Kind: ResolvConf, Path: p}},
		Self:        ports("127.0.0.1"),
		SaveServers: func(s []netip.AddrPort) { saved.Store("list", s) },
	})
	if n := len(f.UpstreamStats()); n != 0 {
		t.Errorf("%d upstreams", n)
	}
	write(t, p, "nameserver 127.0.0.77\n")
	eventually(t, "the server is taken", func() bool {
		s := f.UpstreamStats()
		return len(s) == 1 && s[0].Upstream == "127.0.0.77:53"
	})
	eventually(t, "the list is saved", func() bool { _, ok := saved.Load("list"); return ok })
}

// A named pipe where resolv.conf belongs blocks nobody.
func TestResolvConfNamedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skipf("skipped: no named pipes here: %v", err)
	}
	if list, _, err := ResolvConfServers(path, nil); err == nil {
		t.Errorf("nameservers from an empty pipe: %v", list)
	}
}
