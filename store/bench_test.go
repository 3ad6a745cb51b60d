package store

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"hard/internal/rank"
)

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// keys makes n endpoints.
func keys(n int) []rank.Key {
	ks := make([]rank.Key, n)
	for i := range ks {
		ks[i] = rank.Key{Name: fmt.Sprintf("name%d.example.com", i/4), Candidate: fmt.Sprintf("c%d", i%4),
			Addr: netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(i % 250)})}
	}
	return ks
}

// BenchmarkWrite commits batches of 10,000 probes of 1,000 endpoints, a second's load at the
// highest rate, and reports processor time and file bytes per row.
func BenchmarkWrite(b *testing.B) {
	path := dbPath(b)
	s, _ := start(b, Options{Path: path, QueueRows: 1 << 20, MaxSize: 1 << 40})
	ks := keys(1000)
	at := time.Now().Add(-time.Hour)
	began := cpu()
	for i := range b.N {
		at = at.Add(100 * time.Microsecond)
		p := probeAt(ks[i%len(ks)], at)
		p.Phases.Total += time.Duration(i%1000) * time.Microsecond
		s.Record(p)
		if i%10000 == 9999 {
			s.sync(b)
		}
	}
	s.sync(b)
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/row")
	closeNow(b, s)
	if fi, err := os.Stat(path); err == nil && b.N > 100000 {
		b.ReportMetric(float64(fi.Size())/float64(b.N), "bytes/row")
	}
}

// BenchmarkOpen is the time from Open to Load of a database with 100 names of 4 endpoints.
func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "hard.db")
	s, _ := start(b, Options{Path: path})
	for _, k := range keys(400) {
		s.Put(CurrentState{Key: k, State: rank.Healthy, Health: []byte(`{"State":"healthy"}`)})
		s.PutMemory(k.Name, []byte(`{"Families":[{},{}]}`))
		s.PutAddresses(k.Name, k.Candidate, []netip.Addr{k.Addr})
	}
	closeNow(b, s)
	for b.Loop() {
		s, _ := start(b, Options{Path: path})
		got, err := s.Load(context.Background())
		if err != nil || len(got.Endpoints) != 400 {
			b.Fatal(err, len(got.Endpoints))
		}
		closeNow(b, s)
	}
}
