package faults

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hard/test/faulty"
)

// shop is a world with two candidates, of which the first is the nearer, and a name that is static.
type shop struct {
	*faulty.Hard
	up        *faulty.Upstream
	near, far *faulty.Candidate
}

// shopDelay is how much farther away the other candidate is: more than the nearer one may be starved for while
// it is measured, or the answer would change for that.
const shopDelay = 100 * time.Millisecond

func newShop(t *testing.T, in *faulty.Namespace) *shop {
	t.Helper()
	s := &shop{up: faulty.NewUpstream(t, in, netip.AddrPort{}), near: faulty.NewCandidate(t, in, netip.AddrPort{}, 0)}
	other := s.near.Addr.Addr().As4()
	other[1] |= 0x80 // 127.192..., which Addr never gives
	s.far = faulty.NewCandidate(t, in, netip.AddrPortFrom(netip.AddrFrom4(other), s.near.Addr.Port()), shopDelay)
	s.Hard = faulty.New(t, in, faulty.Head(s.up.Addr)+static+probed("api.example", s.near, s.far))
	return s
}

// api asks for the probed name and wants one of its candidates.
func (s *shop) api(want ...*faulty.Candidate) faulty.Question {
	var addrs []string
	for _, c := range want {
		addrs = append(addrs, c.Addr.Addr().String())
	}
	return faulty.Ours("api.example", addrs...)
}

// all are questions of each kind, which must all be answered rightly.
func (s *shop) all() []faulty.Question {
	return []faulty.Question{ours(), s.api(s.near), faulty.Forwarded(), ours().TCP()}
}

// ready runs it and waits until the nearer one is answered and the history is written.
func (s *shop) ready() {
	s.T.Helper()
	s.Run()
	s.Wants("the nearer candidate", s.api(s.near))
	s.Healthy(2)
	s.Store("ok")
}

// Healthy waits until so many candidates of the probed name are healthy.
func (s *shop) Healthy(n int) {
	s.T.Helper()
	faulty.Eventually(s.T, fmt.Sprintf("%d candidates are healthy", n), func() bool {
		for _, name := range s.Status().Names {
			if name.Name == "api.example" && name.Healthy == n {
				return true
			}
		}
		return false
	})
}

// Store waits until the history is in a state.
func (s *shop) Store(state string) {
	s.T.Helper()
	faulty.Eventually(s.T, "the history is "+state, func() bool { return s.Status().Store.State == state })
}

// Writes waits until rows of now have been written.
func (s *shop) Writes() {
	s.T.Helper()
	now := s.Status()
	faulty.Eventually(s.T, "rows are written", func() bool { return s.Status().Store.LastCommit.After(now.At) })
}

// Fault 1: the process is killed while it writes, again and again. Each time the database is whole,
// the next start answers at once from the last ranking, and an override that was called safe holds.
func TestFault01KillNine(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	s.ready()
	rounds, longest := 3, 300*time.Millisecond
	if faulty.Long() {
		rounds, longest = 40, 500*time.Millisecond
	}
	// Both end, the farther one last: a start that knew nothing would answer with both.
	s.near.Kill()
	s.Wants("the other candidate", s.api(s.far))
	s.far.Kill()
	s.Writes()
	overrides := 0
	for round := range rounds {
		if _, code := s.Verb("set", "static.example", "up", "-why", fmt.Sprint(round)); code == 0 {
			overrides++
		}
		time.Sleep(time.Duration(rand.Int64N(int64(longest)))) // the moment of its end
		committed := faulty.SQLite(t, s.DB, countAll)
		killed := time.Now()
		s.Kill()
		faulty.Intact(t, s.DB)
		if kept := faulty.SQLite(t, s.DB, countAll); atoi(t, kept) < atoi(t, committed) {
			t.Errorf("round %d: %s rows are in the file, a reader had seen %s", round, kept, committed)
		}
		if why := faulty.SQLite(t, s.DB, "SELECT why FROM override"); why != fmt.Sprint(round) {
			t.Errorf("round %d: the override is that of round %q", round, why)
		}
		last := unixMilli(t, faulty.SQLite(t, s.DB, "SELECT max(at_ms) FROM probes"))
		t.Logf("round %d: the last probe kept is of %v before the end", round, killed.Sub(last).Round(time.Millisecond))
		began := time.Now()
		s.Run()
		if r, _, err := s.api(s.far).Exchange(nil, s.DNS, 0); err != nil || s.api(s.far).Check(r) != "" {
			t.Fatalf("round %d: the first answer is %v %v\n%s", round, r, err, s.Log())
		}
		t.Logf("round %d: answered rightly %v after the start", round, time.Since(began).Round(time.Millisecond))
		s.Store("ok")
	}
	if overrides != rounds {
		t.Errorf("%d of %d overrides were taken", overrides, rounds)
	}
	if strings.Contains(s.Log(), "aside") || strings.Contains(s.Log(), "damaged") {
		t.Error("a database was called damaged")
	}
	s.near.Start()
	s.Wants("it goes on as ever", s.api(s.near))
}

// countAll counts what is never deleted during a test.
const countAll = "SELECT (SELECT count(*) FROM probes) + (SELECT count(*) FROM events) + (SELECT count(*) FROM answers)"

func atoi(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func unixMilli(t *testing.T, text string) time.Time { return time.UnixMilli(atoi(t, text)) }

// Fault 2: the disk is full, and then it isn't. Clients notice nothing, rows wait and are all
// written afterwards, the log says one line for each change, and the -wal stays small.
func TestFault02DiskFull(t *testing.T) {
	t.Parallel()
	s := newShop(t, nil)
	disk := faulty.NewDisk(t, filepath.Dir(s.DB), 1024)
	s.ready()
	a := s.Ask(s.all()...)
	from := len(s.Log())
	disk.Fill()
	s.Store("full")
	began := s.Status().At
	if up := s.Metric("hard_store_up"); up != 0 {
		t.Errorf("hard_store_up is %v on a full disk", up)
	}
	if s.Metric("hard_store_write_errors_total") == 0 {
		t.Error("no write error is counted")
	}
	probes := s.near.Seen.Load()
	faulty.Eventually(t, "probes go on", func() bool { return s.near.Seen.Load() > probes+20 })
	ended := s.Status().At
	disk.Free()
	s.Store("ok")
	s.Writes()
	a.Clean()
	if st := s.Status().Store; st.Dropped["probe"] != 0 {
		t.Errorf("%d probes dropped", st.Dropped["probe"])
	}
	n := faulty.SQLite(t, s.DB, fmt.Sprintf("SELECT count(*) FROM probes WHERE at_ms BETWEEN %d AND %d", began.UnixMilli(), ended.UnixMilli()))
	if n == "0" {
		t.Error("the probes made while the disk was full were not kept")
	}
	t.Logf("%s probes of the %v on a full disk were written afterwards", n, ended.Sub(began).Round(time.Millisecond))
	if n := strings.Count(s.Log()[from:], "\n"); n != 2 {
		t.Errorf("%d log lines, want one for each change:\n%s", n, s.Log()[from:])
	}
	if fi, err := os.Stat(s.DB + "-wal"); err != nil || fi.Size() > 1<<20 {
		t.Errorf("the -wal: %v %v", fi, err)
	}
	faulty.Intact(t, s.DB)
}

// Fault 2, from the start on: there is no room even for a new database.
func TestFault02DiskFullAtStart(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	disk := faulty.NewDisk(t, filepath.Dir(s.DB), 1024)
	disk.Fill()
	s.Run()
	s.Wants("the nearer candidate", s.api(s.near))
	a := s.Ask(s.all()...)
	s.Store("full")
	disk.Free()
	s.Store("ok")
	s.Writes()
	a.Clean()
	faulty.Intact(t, s.DB)
}

// Fault 3: the file system is read-only at the start, and later it isn't.
func TestFault03ReadOnlyAtStart(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	disk := faulty.NewDisk(t, filepath.Dir(s.DB), 4096)
	s.ready()
	s.Stop()
	disk.ReadOnly(true)
	from := len(s.Log())
	s.Run()
	s.Wants("the nearer candidate", s.api(s.near))
	a := s.Ask(s.all()...)
	s.Store("failed")
	if got := s.Status().Store.Reason; !strings.Contains(got, "read-only") || !strings.Contains(got, s.DB) {
		t.Errorf("the reason is %q", got)
	}
	if n := strings.Count(s.Log()[from:], "level=WARN msg=\"no history"); n != 1 {
		t.Errorf("%d warnings that there is no history:\n%s", n, s.Log()[from:])
	}
	disk.ReadOnly(false)
	s.Store("ok")
	s.Writes()
	a.Clean()
	faulty.Intact(t, s.DB)
}

// Fault 3, while running: writes fail as on a file system that the kernel has turned read-only.
func TestFault03TurnsReadOnly(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	a := s.Ask(s.all()...)
	from := len(s.Log())
	end := s.Inject("pwrite64,ftruncate,fsync,fdatasync:error=EROFS")
	faulty.Eventually(t, "it is noticed", func() bool { return s.Status().Store.State != "ok" })
	reason := s.Status().Store.Reason
	probes := s.near.Seen.Load()
	faulty.Eventually(t, "probes go on", func() bool { return s.near.Seen.Load() > probes+10 })
	end()
	s.Store("ok")
	s.Writes()
	a.Clean()
	t.Logf("it said: %s", reason)
	if n := strings.Count(s.Log()[from:], "\n"); n != 2 {
		t.Errorf("%d log lines, want one for each change:\n%s", n, s.Log()[from:])
	}
	if st := s.Status().Store; st.Dropped["probe"] != 0 {
		t.Errorf("%d probes dropped", st.Dropped["probe"])
	}
	faulty.Intact(t, s.DB)
}

// Fault 7: the directory can't be written by the user that hard runs as, and there is no directory
// for temporary files.
func TestFault07NoDirectory(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	faulty.NeedRoot(t)
	setpriv := faulty.Need(t, "setpriv", "util-linux")
	s := newShop(t, nil)
	if err := os.Mkdir(filepath.Dir(s.DB), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(s.Dir, 65534, 65534); err != nil { // for the control socket
		t.Fatal(err)
	}
	s.Prefix = []string{setpriv, "--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set=-all"}
	s.Env = []string{"TMPDIR=/nonexistent", "HOME=/nonexistent"}
	s.Run()
	s.Wants("the nearer candidate", s.api(s.near))
	a := s.Ask(s.all()...)
	s.Store("failed")
	if got := s.Status().Store.Reason; !strings.Contains(got, "permission denied") || !strings.Contains(got, s.DB) {
		t.Errorf("the reason is %q", got)
	}
	s.Says("level=WARN msg=\"no history", 0)
	if err := os.Chown(filepath.Dir(s.DB), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(s.DB), 0o750); err != nil {
		t.Fatal(err)
	}
	s.Store("ok")
	s.Writes()
	// The directory goes away under it: a new one is made.
	if err := os.Rename(filepath.Dir(s.DB), s.Dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	faulty.Eventually(t, "a new database is made", func() bool {
		_, err := os.Stat(s.DB)
		return err == nil
	})
	s.Store("ok")
	s.Writes()
	a.Clean()
	faulty.Intact(t, s.DB)
}

// Fault 8: fsync fails with EIO. The database is opened anew; what was called safe is there.
func TestFault08FsyncFails(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	a := s.Ask(s.all()...)
	end := s.Inject("fsync,fdatasync:error=EIO")
	// An override is stored durably before it is called so: now it can't be.
	out, _ := s.Verb("set", "static.example", "up", "-why", "while broken")
	if !strings.Contains(out, "not stored") {
		t.Errorf("an override while fsync fails: %s", out)
	}
	faulty.Eventually(t, "it is noticed", func() bool { return s.Status().Store.State != "ok" })
	end()
	s.Store("ok")
	s.Writes()
	if out, code := s.Verb("set", "static.example", "up", "-why", "afterwards"); code != 0 {
		t.Errorf("an override afterwards: %s", out)
	}
	a.Clean()
	s.Kill()
	faulty.Intact(t, s.DB)
	s.Run()
	if o := s.Status().Overrides; len(o) != 1 || o[0].Why != "afterwards" {
		t.Errorf("overrides after the restart: %+v", o)
	}
}

// Fault 8: fsync takes very long. Nobody but the history waits for it; a stop doesn't either.
func TestFault08FsyncHangs(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.MayEndBadly = true // its last rows may not get in
	s.ready()
	a := s.Ask(ours(), s.api(s.near, s.far), faulty.Forwarded(), ours().TCP())
	end := s.Inject("fsync,fdatasync:delay_enter=30000000")
	set := make(chan string, 1)
	go func() {
		out, _ := s.Verb("set", "static.example", "up") // waits for an fsync
		set <- out
	}()
	s.Wants("the override is in force", ours())
	for i := range 4 {
		a.More(i, 100)
	}
	s.near.Kill()
	s.Wants("a failover goes on", s.api(s.far))
	a.Clean()
	began := time.Now()
	s.Signal(syscall.SIGTERM)
	s.Says("stopped, not all of it in order", 0)
	t.Logf("it stopped in %v", time.Since(began).Round(time.Millisecond))
	end() // strace would keep the ended process until its delay is over
	s.Wait()
	if out := <-set; !strings.Contains(out, "not stored") {
		t.Errorf("the override was called safe: %s", out)
	}
}

// Fault 9: a second instance on the same database serves, says that another holds it, writes
// nothing, and takes over when the first has ended.
func TestFault09TwoInstances(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	s.ready()
	second := newShop(t, nil)
	second.DB = s.DB
	second.Config(faulty.Head(second.up.Addr) + static + probed("second.example", second.near, second.far))
	second.Run()
	a, b := s.Ask(s.all()...), second.Ask(ours(), faulty.Forwarded())
	second.Store("locked")
	if got := second.Status().Store.Reason; !strings.Contains(got, "another instance") || !strings.Contains(got, s.DB) {
		t.Errorf("the reason is %q", got)
	}
	second.Says("another instance holds", 0)
	for range 2 {
		s.Writes()
	}
	if n := faulty.SQLite(t, s.DB, "SELECT count(*) FROM probes WHERE name = 'second.example'"); n != "0" {
		t.Errorf("the second instance has written %s probes", n)
	}
	a.Clean()
	s.Stop()
	second.Store("ok")
	second.Writes()
	b.Clean()
	if n := faulty.SQLite(t, s.DB, "SELECT count(*) FROM probes WHERE name = 'second.example'"); n == "0" {
		t.Error("the second instance has not written its probes although the first has ended")
	}
	faulty.Intact(t, s.DB)
}
