package daemon

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"hard/internal/config"
)

// TestLogNeverBlocks is fault 17: a pipe that nobody reads. Lines are lost and counted, nobody
// waits, and who reads again is told how many there were.
func TestLogNeverBlocks(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	log := NewLogger(w, "text", new(slog.LevelVar))
	const lines = 20_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range lines {
			log.Info("something happened", "number", i)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("logging waits for a reader")
	}
	lost := LogDropped(log)
	if lost == 0 || lost >= lines {
		t.Fatalf("%d of %d lost", lost, lines)
	}
	buf := make([]byte, 1<<20)
	n, err := r.Read(buf) // what the pipe held
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(buf[:n], []byte("\n")); uint64(got)+lost != lines {
		t.Errorf("%d read and %d lost, of %d", got, lost, lines)
	}
	log.With("a", 1).Info("again")
	if n, err = r.Read(buf); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d log lines were lost", lost); !strings.HasPrefix(string(buf[:n]), want) || !strings.Contains(string(buf[:n]), "msg=again a=1") {
		t.Errorf("%q", buf[:n])
	}
}

// TestLogLongLine: a line that a pipe might not take in one piece is cut.
func TestLogLongLine(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	NewLogger(w, "text", new(slog.LevelVar)).Info("long", "value", strings.Repeat("x", 100_000))
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil || len(b) != lineLimit || !bytes.HasSuffix(b, []byte("x ...\n")) {
		t.Errorf("%v, %d octets", err, len(b))
	}
}

// TestLogJournal: under the journal each line has its priority and no time; a program that
// inherited $JOURNAL_STREAM but writes elsewhere looks like any other.
func TestLogJournal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func() string {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		level := new(slog.LevelVar)
		level.Set(config.LevelTrace)
		log := NewLogger(f, "auto", level).With("who", "me")
		for _, l := range []slog.Level{config.LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			log.Log(t.Context(), l, "hello")
		}
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimLeft(string(b), "\x00") // the file's offset stays behind
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	want := `<7>level=TRACE msg=hello who=me
<7>level=DEBUG msg=hello who=me
<6>level=INFO msg=hello who=me
<4>level=WARN msg=hello who=me
<3>level=ERROR msg=hello who=me
`
	if got := write(); got != want {
		t.Errorf("got\n%s", got)
	}
	t.Setenv("JOURNAL_STREAM", "1:2")
	if got := write(); !strings.HasPrefix(got, "time=") || strings.Contains(got, "<7>") {
		t.Errorf("elsewhere:\n%s", got)
	}
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last call, without times.
func (l *lockedBuffer) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for line := range strings.Lines(l.b.String()) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, rest)
	}
	l.b.Reset()
	return out
}

// TestLogRepeats: a warning that repeats itself is written once, then counted; others, and what is
// no warning, are written as they come.
func TestLogRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(lockedBuffer)
		log := NewLogger(out, "text", new(slog.LevelVar))
		for range 50 {
			log.Warn("upstream is silent", "upstream", "127.0.0.9:9")
			time.Sleep(100 * time.Millisecond)
		}
		log.Warn("upstream is silent", "upstream", "127.0.0.8:9")
		log.With("upstream", "127.0.0.7:9").Warn("upstream is silent")
		log.Error("upstream is silent", "upstream", "127.0.0.9:9")
		log.Info("query", "name", "a.example")
		log.Info("query", "name", "a.example")
		want := []string{
			`level=WARN msg="upstream is silent" upstream=127.0.0.9:9`,
			`level=WARN msg="upstream is silent" upstream=127.0.0.8:9`,
			`level=WARN msg="upstream is silent" upstream=127.0.0.7:9`,
			`level=ERROR msg="upstream is silent" upstream=127.0.0.9:9`,
			`level=INFO msg=query name=a.example`,
			`level=INFO msg=query name=a.example`,
		}
		if got := out.take(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got\n%s", strings.Join(got, "\n"))
		}
		time.Sleep(repeatFor)
		synctest.Wait()
		if got := out.take(); len(got) != 1 || got[0] != want[0]+" repeated=49" {
			t.Errorf("got %q", got)
		}
		time.Sleep(repeatFor)
		log.Warn("upstream is silent", "upstream", "127.0.0.9:9")
		if got := out.take(); len(got) != 1 || got[0] != want[0] {
			t.Errorf("later: %q", got)
		}
		time.Sleep(2 * repeatFor) // no timer outlives the bubble
	})
}
