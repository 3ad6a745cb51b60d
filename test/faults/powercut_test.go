package faults

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"hard/test/faulty"
)

// Fault 1, a power cut: what strace saw the program write is played into files up to some moment; of what
// was not synced by then, sectors are lost at random. Every such image is a whole database, in which the
// override is that had been called safe.
func TestFault01PowerCut(t *testing.T) {
	t.Parallel()
	faulty.NeedLong(t)
	s := newShop(t, nil)
	trace := filepath.Join(s.Dir, "trace")
	s.Prefix = []string{faulty.Need(t, "strace", "strace"), "-D", "-f", "-qq", "-y", "-xx", "-s", "1000000", "-o", trace,
		"-e", "trace=pwrite64,fsync,fdatasync,ftruncate,unlink,unlinkat"}
	s.ready()
	for round := range 4 {
		if out, code := s.Verb("set", "static.example", "up", "-why", fmt.Sprint("round ", round)); code != 0 {
			t.Fatal(out)
		}
		s.Writes()
	}
	s.Kill()
	disk := readTrace(t, trace, s.DB)
	if len(disk.ops) < 50 || disk.syncs < 5 {
		t.Fatalf("only %d writes and %d syncs were seen", len(disk.ops), disk.syncs)
	}
	lost := 0
	for seed := range 60 {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		until := random.IntN(len(disk.ops))
		if seed == 0 {
			until = len(disk.ops) // the very end, and nothing but what was synced
		}
		db := filepath.Join(t.TempDir(), "hard.db")
		lost += disk.cut(t, db, until, random, seed == 0)
		what := fmt.Sprintf("cut %d, before operation %d of %d", seed, until, len(disk.ops))
		if fi, err := os.Stat(db); err != nil || fi.Size() == 0 {
			continue // before anything was synced
		}
		if got := faulty.SQLite(t, db, "PRAGMA integrity_check"); got != "ok" {
			t.Errorf("%s: %s", what, got)
		}
		if seed == 0 {
			if why := faulty.SQLite(t, db, "SELECT why FROM override"); why != "round 3" {
				t.Errorf("the override that was called safe: %q", why)
			}
		}
	}
	t.Logf("%d writes, %d syncs, 60 cuts, which lost %d writes", len(disk.ops), disk.syncs, lost)
	if lost == 0 {
		t.Error("no write was ever lost: the cuts cut nothing")
	}
}

// written is what was done to files, in order.
type written struct {
	ops   []op
	syncs int
}

// op is one write, truncation or sync; suffix tells the file.
type op struct {
	suffix string
	call   string
	at     int64 // or the new size
	data   []byte
}

var (
	traced   = regexp.MustCompile(`^\d+ +(pwrite64|fsync|fdatasync|ftruncate)\(\d+<([^>]*)>(.*)$`)
	unlinked = regexp.MustCompile(`^\d+ +(unlink|unlinkat)\((?:AT_FDCWD[^,]*, )?"([^"]*)"(.*)$`)
)

// readTrace reads what strace wrote with -y -xx.
func readTrace(t *testing.T, file, db string) (w written) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		m := traced.FindStringSubmatch(lines.Text())
		if m == nil {
			m = unlinked.FindStringSubmatch(lines.Text())
		}
		if m == nil {
			continue
		}
		path := unhex(t, m[2]) // -xx: paths too
		suffix, ours := strings.CutPrefix(path, db)
		if !ours || suffix != "" && suffix != "-wal" && suffix != "-journal" {
			continue
		}
		o := op{suffix: suffix, call: m[1]}
		args := strings.Split(strings.TrimPrefix(m[3], ", "), ", ")
		switch o.call {
		case "pwrite64":
			o.data = []byte(unhex(t, strings.Trim(args[0], `"`)))
			o.at = number(t, args[2])
			if n := number(t, args[1]); n != int64(len(o.data)) {
				t.Fatalf("%d bytes of %d are in the trace", len(o.data), n)
			}
		case "ftruncate":
			o.at = number(t, args[0])
		case "unlink", "unlinkat":
			o.call = "unlink"
		default:
			w.syncs++
		}
		w.ops = append(w.ops, o)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return w
}

// number reads the number at the beginning of an argument, which may end the call.
func number(t *testing.T, arg string) int64 {
	t.Helper()
	end := strings.IndexFunc(arg, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		arg = arg[:end]
	}
	return atoi(t, arg)
}

func unhex(t *testing.T, text string) string {
	t.Helper()
	if !strings.Contains(text, `\x`) {
		return text
	}
	b := make([]byte, 0, len(text)/4)
	for i := 0; i+4 <= len(text); i += 4 {
		v, err := strconv.ParseUint(text[i+2:i+4], 16, 8)
		if err != nil {
			t.Fatalf("%q: %v", text[i:i+4], err)
		}
		b = append(b, byte(v))
	}
	return string(b)
}

// image is one file: what is synced, and what came after.
type image struct {
	durable []byte
	pending []op
}

func apply(b []byte, o op) []byte {
	end := o.at + int64(len(o.data))
	if o.call == "ftruncate" && int64(len(b)) > o.at {
		return b[:o.at]
	}
	for int64(len(b)) < end {
		b = append(b, 0)
	}
	copy(b[o.at:], o.data)
	return b
}

// cut writes the files as they may be after a power cut before an operation: of what was not synced, none
// is there, or a sector of 512 bytes now and then. It returns how many writes lost something.
func (w *written) cut(t *testing.T, db string, until int, random *rand.Rand, nothing bool) (lost int) {
	t.Helper()
	files := map[string]*image{"": {}, "-wal": {}, "-journal": {}}
	for _, o := range w.ops[:until] {
		f := files[o.suffix]
		if o.call == "pwrite64" || o.call == "ftruncate" {
			f.pending = append(f.pending, o)
			continue
		}
		if o.call == "unlink" {
			*f = image{}
			continue
		}
		for _, p := range f.pending {
			f.durable = apply(f.durable, p)
		}
		f.pending = nil
	}
	for suffix, f := range files {
		for _, o := range f.pending {
			whole := true
			for from := 0; from == 0 || from < len(o.data); from += 512 {
				if nothing || random.IntN(4) == 0 {
					whole = false
					continue
				}
				part := o
				part.at, part.data = o.at+int64(from), o.data[from:min(from+512, len(o.data))]
				if o.call == "ftruncate" {
					part = o
				}
				f.durable = apply(f.durable, part)
			}
			if !whole {
				lost++
			}
		}
		if len(f.durable) > 0 {
			put(t, db+suffix, f.durable)
		}
	}
	return lost
}
