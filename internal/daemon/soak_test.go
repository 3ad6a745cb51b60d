package daemon_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	soakNames  = 1000
	soakWindow = 64 // queries under way on each socket
)

// TestSoak asks as many questions as HARD_SOAK says (100000000 is the soak of a release, some half
// an hour), reloads meanwhile, and wants every answer right, and memory, goroutines and descriptors
// where they were.
func TestSoak(t *testing.T) {
	total, _ := strconv.ParseInt(os.Getenv("HARD_SOAK"), 10, 64)
	if total == 0 {
		total = 20000 // enough to see that the soak itself works
	}
	var text strings.Builder
	text.WriteString("UPSTREAM \"127.0.1.80:9\"\n[defaults]\ncheck = \"static:\"\n")
	for i := range soakNames {
		fmt.Fprintf(&text, "[name.\"n%d.soak.example\"]\ncandidates = [\"10.0.%d.%d\"]\n", i, i/250, i%250+1)
	}
	h := start(t, text.String())
	h.answers("n999.soak.example", dns.TypeA, "10.0.3.250")
	eventually(t, "the database is open", func() bool { // its descriptors count as there from the beginning
		_, err := os.Stat(h.db + "-wal")
		return err == nil
	})
	if err := h.Reload(); err != nil { // the writer has had its turn, too
		t.Fatal(err)
	}
	before, descriptors := residentKiB(t), openDescriptors(t)

	var asked, wrong, lost atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { soakClient(t, h, total/int64(runtime.GOMAXPROCS(0)), &asked, &wrong, &lost) })
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for reload := time.NewTicker(time.Second); ; {
		select {
		case <-reload.C:
			if err := h.Reload(); err != nil {
				t.Error(err)
			}
			continue
		case <-done:
			reload.Stop()
		}
		break
	}
	t.Logf("%d asked, %d wrong, %d sent again; resident %d KiB before, %d after", asked.Load(), wrong.Load(), lost.Load(), before, residentKiB(t))
	if asked.Load() < total*9/10 || wrong.Load() > 0 {
		t.Errorf("%d of %d asked, %d answers wrong", asked.Load(), total, wrong.Load())
	}
	eventually(t, "descriptors are back where they were", func() bool { return openDescriptors(t) <= descriptors })
	if after := residentKiB(t); after > before+64<<10 {
		t.Errorf("memory went from %d to %d KiB", before, after)
	}
}

// soakClient keeps a window of queries under way on one socket and checks each answer.
func soakClient(t *testing.T, h *house, count int64, asked, wrong, lost *atomic.Int64) {
	c, err := net.Dial("udp", h.Addrs()[0].String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	queries := make([][]byte, soakNames)
	for i := range queries {
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.soak.example.", i), dns.TypeA)
		m.Id = 0
		if queries[i], err = m.Pack(); err != nil {
			t.Error(err)
			return
		}
	}
	buf := make([]byte, 1500)
	for n := int64(0); n < count; {
		// The ID is the name's number, so that each answer tells what it must be.
		for i := range soakWindow {
			k := int(n+int64(i)) % soakNames
			q := queries[k]
			q[0], q[1] = byte(k>>8), byte(k)
			if _, err := c.Write(q); err != nil {
				t.Error(err)
				return
			}
		}
		for range soakWindow {
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			size, err := c.Read(buf)
			if err != nil {
				lost.Add(1)
				break
			}
			k := int(buf[0])<<8 | int(buf[1])
			asked.Add(1)
			if size < 16 || buf[3]&15 != 0 || buf[7] != 1 || buf[size-2] != byte(k/250) || buf[size-1] != byte(k%250+1) {
				wrong.Add(1)
			}
		}
		n += soakWindow
	}
}

func residentKiB(t *testing.T) int {
	t.Helper()
	runtime.GC()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("skipped: no /proc: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("skipped: no /proc: %v", err)
	}
	return len(list)
}
