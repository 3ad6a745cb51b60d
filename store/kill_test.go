package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("HARD_TEST_WRITE"); path != "" {
		writeForever(path)
	}
	os.Exit(m.Run())
}

// writeForever records probes and stores overrides, and prints the number of each override that
// is safe.
func writeForever(path string) {
	s := Open(Options{Path: path, MaxSize: 8 << 20})
	go func() {
		for {
			for _, k := range keys(10) {
				s.Record(probeAt(k, time.Now()))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for i := time.Now().UnixNano(); ; i++ {
		s.Event(Event{At: time.Now(), Kind: "guard", New: fmt.Sprint(i)})
		o := Override{Name: fmt.Sprint(i % 7), What: ForceWeight, Value: fmt.Sprint(i)}
		if err := s.PutOverride(context.Background(), o); err == nil {
			fmt.Println(o.Name, o.Value)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestKill kills a writer again and again, always on the same database.
func TestKill(t *testing.T) {
	t.Parallel()
	runs := 15
	if os.Getenv("HARD_LONG") != "" {
		runs = 250
	}
	path := dbPath(t)
	acknowledged := make(map[string]string)
	for run := range runs {
		killAfter(t, path, time.Duration(rand.Int64N(int64(300*time.Millisecond))), acknowledged)
		check(t, path, run, acknowledged)
	}
	if got := shell(t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Error("the real program finds:", got)
	}
	// How much is lost: on a machine that does other work, too, the best of a few.
	least := time.Hour
	for run := 0; run < 6 && least > 2*time.Second; run++ {
		killed := killAfter(t, path, 3*time.Second, acknowledged)
		check(t, path, run, acknowledged)
		last := count(t, path, "SELECT max(at_ms) FROM probe")
		least = min(least, killed.Sub(time.UnixMilli(int64(last))))
	}
	if len(acknowledged) == 0 {
		t.Error("no override was ever stored")
	}
	t.Logf("%v of probes lost", least)
	if least > 2*time.Second {
		t.Errorf("%v of probes lost at least", least)
	}
}

// killAfter runs a writer for a while, and notes the overrides that it called safe.
func killAfter(t *testing.T, path string, life time.Duration, acknowledged map[string]string) time.Time {
	t.Helper()
	return runUntilKilled(t, exec.Command(os.Args[0]), path, life, acknowledged)
}

func runUntilKilled(t *testing.T, cmd *exec.Cmd, path string, life time.Duration, acknowledged map[string]string) time.Time {
	t.Helper()
	cmd.Env = append(os.Environ(), "HARD_TEST_WRITE="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan time.Time, 1)
	timer := time.AfterFunc(life, func() {
		_ = cmd.Process.Kill()
		done <- time.Now()
	})
	defer timer.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			acknowledged[name] = value
		}
	}
	_ = cmd.Wait()
	return <-done
}

// check looks for damage, and for overrides that were called safe and are not there.
func check(t *testing.T, path string, run int, acknowledged map[string]string) {
	t.Helper()
	if fi, err := os.Stat(path); err != nil || fi.Size() == 0 {
		if len(acknowledged) > 0 {
			t.Fatalf("run %d: the database is gone", run)
		}
		return // killed before it was made
	}
	s, log := start(t, Options{Path: path})
	got, err := s.Load(context.Background())
	if err != nil {
		t.Fatalf("run %d: %v", run, err)
	}
	stored := make(map[string]string)
	for _, o := range got.Overrides {
		stored[o.Name] = o.Value
	}
	for name, value := range acknowledged {
		// A later one may have been stored without our hearing of it.
		if stored[name] < value {
			t.Fatalf("run %d: override %s is %q, %q was safe", run, name, stored[name], value)
		}
	}
	closeNow(t, s)
	if n := count(t, path, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"); n != 0 {
		t.Fatalf("run %d: damaged", run)
	}
	if strings.Contains(log.String(), "aside") {
		t.Fatalf("run %d: set aside", run)
	}
}
