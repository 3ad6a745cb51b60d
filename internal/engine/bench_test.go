package engine

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hard/internal/answer"
	"hard/internal/config"
	"hard/internal/rank"
)

// nowhere is a far side that keeps nothing.
type nowhere struct{}

func (nowhere) Publish(*answer.Table)               {}
func (nowhere) SetName(string, []Check)             {}
func (nowhere) SetHosts([]Host)                     {}
func (nowhere) ProbeNow([]rank.Key)                 {}
func (nowhere) SetInterval(rank.Key, time.Duration) {}
func (nowhere) Record(rank.Sample)                  {}
func (nowhere) Event(Event)                         {}
func (nowhere) Answer(AnswerChange)                 {}
func (nowhere) Current([]EndpointState)             {}
func (nowhere) Forget([]rank.Key)                   {}
func (nowhere) Memory(string, rank.Memory)          {}
func (nowhere) Addresses(HostKey, []netip.Addr)     {}
func (nowhere) Input(Input)                         {}
func (nowhere) Checkpoint(*Checkpoint)              {}

// manyNames is a configuration of n static names; different ones have another address in the middle name.
func manyNames(n int, ttl, different string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[defaults]\ncheck = \"static:\"\nttl = %q\n", ttl)
	for i := range n {
		v4 := fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)
		if i == n/2 && different != "" {
			v4 = different
		}
		fmt.Fprintf(&b, "[name.\"host-%06d.service.example.com\"]\ncandidates = [%q, \"2001:db8::%x:%x\"]\n", i, v4, i>>16, i&0xffff)
	}
	return b.String()
}

func manyConfig(b testing.TB, text string) *config.Config {
	c, report := config.Parse("many.toml", []byte(text))
	if c == nil {
		b.Fatal(report.Err())
	}
	return c
}

func startMany(b testing.TB, c *config.Config) *Engine {
	e, err := New(Options{
		Config: c, Publisher: nowhere{}, Prober: nowhere{}, Recorder: nowhere{}, LastReply: func() time.Time { return time.Time{} },
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	return e
}

func BenchmarkNew10k(b *testing.B) {
	c := manyConfig(b, manyNames(10_000, "1s", ""))
	b.ReportAllocs()
	for b.Loop() {
		startMany(b, c)
	}
}

func BenchmarkReload10k(b *testing.B) {
	plain := manyNames(10_000, "1s", "")
	for _, bench := range []struct{ name, other string }{
		{"same", plain}, {"one", manyNames(10_000, "1s", "192.0.2.1")}, {"ttl", manyNames(10_000, "2s", "")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			configs := [2]*config.Config{manyConfig(b, bench.other), manyConfig(b, plain)}
			e := startMany(b, manyConfig(b, plain))
			e.Start()
			defer e.Stop()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := e.Apply(context.Background(), configs[i%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
