package resolver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"hard/internal/bug"
)

// Where the host's real upstreams are written, best first: systemd-resolved's
// uplink servers (not its stub), NetworkManager's two files, and last the file
// that may well name nobody but us.
var resolvConfPaths = []string{
	"/run/systemd/resolve/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf",
	"/run/NetworkManager/resolv.conf",
	etcResolvConf,
}

const (
	etcResolvConf = "/etc/resolv.conf"
	lastGoodList  = "last good list" // in place of a file's path

	resolvConfWait       = time.Second            // for somebody to write a named pipe
	resolvConfMaxSize    = 64 << 10               // bytes read of one file
	resolvConfMaxServers = 16                     // entries taken of one file
	resolvConfSettle     = 100 * time.Millisecond // writers replace several files in a row
	resolvConfAgain      = 2 * time.Second        // no server found: look again
	resolvConfPoll       = time.Minute            // bind mounts and network file systems send no events
)

var errNoServers = errors.New("no usable nameserver")

// ResolvConfServers reads path, or with "" the host's well-known files in the
// order of contract section 4, and returns the nameservers of the first file
// that names one besides self, and that file's path.
func ResolvConfServers(path string, self []netip.AddrPort) ([]netip.AddrPort, string, error) {
	paths := resolvConfPaths
	if path != "" {
		paths = []string{path}
	}
	return findServers(paths, self)
}

// BesideUs returns the nameservers in /etc/resolv.conf other than self, if
// self is there too: some stubs (musl) ask all of them at once and take the
// first reply, so those servers bypass local names.
func BesideUs(self []netip.AddrPort) []netip.Addr {
	return besideUs(etcResolvConf, self)
}

func besideUs(path string, self []netip.AddrPort) []netip.Addr {
	all, err := readNameservers(path)
	if err != nil {
		return nil
	}
	var others []netip.Addr
	for _, a := range all {
		if !isSelf(netip.AddrPortFrom(a, 53), self) {
			others = append(others, a)
		}
	}
	if len(others) == len(all) {
		return nil
	}
	return others
}

func findServers(paths []string, self []netip.AddrPort) ([]netip.AddrPort, string, error) {
	var errs []error
	for _, p := range paths {
		addrs, err := readNameservers(p)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		var out []netip.AddrPort
		for _, a := range addrs {
			ap := netip.AddrPortFrom(a, 53)
			if !isSelf(ap, self) && !slices.Contains(out, ap) {
				out = append(out, ap)
			}
		}
		if len(out) > 0 {
			return out, p, nil
		}
	}
	errs = append(errs, fmt.Errorf("%w in %s", errNoServers, strings.Join(paths, ", ")))
	return nil, "", errors.Join(errs...)
}

// readNameservers returns the addresses on the nameserver lines of one
// resolv.conf(5) file. Lines that do not parse are skipped, as libc does.
func readNameservers(path string) ([]netip.Addr, error) {
	// Non-blocking, and with a deadline that regular files don't need and refuse: a named pipe where
	// the file belongs must not hold a start or a reload up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(resolvConfWait))
	out, err := parseNameservers(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

// parseNameservers reads the nameserver lines of a resolv.conf(5), as far as their bounds go.
func parseNameservers(r io.Reader) ([]netip.Addr, error) {
	var out []netip.Addr
	sc := bufio.NewScanner(io.LimitReader(r, resolvConfMaxSize))
	for sc.Scan() && len(out) < resolvConfMaxServers {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, a.Unmap())
		}
	}
	if err := sc.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, err
	}
	return out, nil
}

// isSelf reports whether a datagram to ap would come to one of our listeners.
// A wildcard listener owns its port on every loopback address and on the
// addresses of this host's interfaces.
func isSelf(ap netip.AddrPort, self []netip.AddrPort) bool {
	a := ap.Addr().Unmap()
	for _, s := range self {
		if s.Port() != ap.Port() {
			continue
		}
		if s.Addr().Unmap() == a {
			return true
		}
		if a.IsUnspecified() && s.Addr().IsLoopback() {
			return true // connecting to 0.0.0.0 reaches 127.0.0.1
		}
		if s.Addr().IsUnspecified() && (a.IsLoopback() || a.IsUnspecified() || isHostAddr(a)) {
			return true
		}
	}
	return false
}

// confWatcher follows the file or files that stand behind one "resolv.conf"
// entry. It owns its goroutine (run); list is called from there only, after
// the first synchronous read by newConfWatcher.
type confWatcher struct {
	log     *slog.Logger
	paths   []string
	self    []netip.AddrPort
	onList  func(servers []netip.AddrPort) // a changed, non-empty list
	servers []netip.AddrPort
	source  string
	again   time.Duration // resolvConfAgain, shorter in tests
	cancel  context.CancelFunc
	done    chan struct{}
}

// newConfWatcher reads the files once. With nothing found it starts from
// saved, the last good list; that may be empty too.
func newConfWatcher(log *slog.Logger, paths []string, self, saved []netip.AddrPort) *confWatcher {
	w := &confWatcher{log: log, paths: paths, self: self, again: resolvConfAgain}
	servers, source, err := findServers(paths, self)
	if err != nil {
		for _, s := range saved {
			if !isSelf(s, self) {
				servers = append(servers, s)
			}
		}
		source = lastGoodList
		log.Warn("no upstream in resolv.conf files; looking on", "error", err, "using", servers)
	} else {
		log.Info("upstreams read", "file", source, "servers", servers)
	}
	w.servers, w.source = servers, source
	return w
}

func (w *confWatcher) start(onList func([]netip.AddrPort)) {
	ctx, cancel := context.WithCancel(context.Background())
	w.onList, w.cancel, w.done = onList, cancel, make(chan struct{})
	go w.run(ctx)
}

// stop ends and joins the goroutine. It must not be called from onList.
func (w *confWatcher) stop() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
	}
}

func (w *confWatcher) run(ctx context.Context) {
	defer close(w.done)
	fw, err := fsnotify.NewWatcher()
	var events chan fsnotify.Event
	var errs chan error
	if err != nil { // out of inotify instances: polling must do
		w.log.Warn("cannot watch resolv.conf; polling", "error", err)
	} else {
		defer fw.Close()
		events, errs = fw.Events, fw.Errors
	}
	dirs := make(map[string]bool)
	w.watchDirs(fw, dirs)
	w.reread() // what changed between the first read and the watch
	timer := time.NewTimer(w.nextLook())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if w.concerns(e.Name, dirs) {
				timer.Reset(resolvConfSettle)
			}
		case err := <-errs:
			w.log.Debug("resolv.conf watch", "error", err)
			timer.Reset(resolvConfSettle)
		case <-timer.C:
			w.watchDirs(fw, dirs)
			w.reread()
			timer.Reset(w.nextLook())
		}
	}
}

func (w *confWatcher) nextLook() time.Duration {
	if w.source == "" || w.source == lastGoodList {
		return w.again
	}
	return resolvConfPoll
}

// watchDirs watches the directory of every file and of what it links to, or
// the nearest directory above that exists: the files are replaced by rename,
// and their directories appear with the service that writes them.
func (w *confWatcher) watchDirs(fw *fsnotify.Watcher, dirs map[string]bool) {
	if fw == nil {
		return
	}
	add := func(file string) {
		dir := filepath.Dir(file)
		for dir != "/" && dir != "." {
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				break
			}
			dir = filepath.Dir(dir)
		}
		// Adding twice is harmless, and needed when a directory was replaced.
		if err := fw.Add(dir); err == nil {
			dirs[dir] = true
		}
	}
	for _, p := range w.paths {
		add(p)
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			add(real)
		}
	}
}

// concerns reports whether a change of name may change what we read.
func (w *confWatcher) concerns(name string, dirs map[string]bool) bool {
	if dirs[name] {
		return true
	}
	for _, p := range w.paths {
		if name == p || strings.HasPrefix(p, name+"/") {
			return true
		}
		if real, err := filepath.EvalSymlinks(p); err == nil && name == real {
			return true
		}
	}
	return false
}

func (w *confWatcher) reread() {
	defer bug.Caught(w.log, "a look at resolv.conf")
	bug.Here("resolvconf")
	servers, source, err := findServers(w.paths, w.self)
	if err != nil {
		// Keep what we have: an empty file is most often one half of a rewrite.
		if w.source != "" {
			w.log.Debug("resolv.conf unusable; keeping the list", "error", err, "servers", w.servers)
		}
		if len(w.servers) == 0 {
			w.source = ""
		}
		return
	}
	changed := !slices.Equal(servers, w.servers)
	w.servers, w.source = servers, source
	if changed {
		w.log.Info("upstreams changed", "file", source, "servers", servers)
		w.onList(servers)
	}
}
