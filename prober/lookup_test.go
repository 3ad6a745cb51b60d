package prober

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeDNS answers look-ups from a table.
type fakeDNS struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	fail  bool
	ttl   time.Duration
	takes time.Duration
	asked []time.Time // for A
	now   int
	most  int
}

func (d *fakeDNS) LookupAddrs(ctx context.Context, host string, v6 bool) ([]netip.Addr, time.Duration, error) {
	d.mu.Lock()
	d.now++
	d.most = max(d.most, d.now)
	if !v6 {
		d.asked = append(d.asked, time.Now())
	}
	d.mu.Unlock()
	time.Sleep(d.takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now--
	if d.fail {
		return nil, 0, errors.New("no upstream answers")
	}
	var out []netip.Addr
	for _, a := range d.addrs[host] {
		if a.Is6() == v6 {
			out = append(out, a)
		}
	}
	return out, d.ttl, nil
}

func (d *fakeDNS) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func ips(text ...string) []netip.Addr {
	out := []netip.Addr{}
	for _, s := range text {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func inLookupBubble(t *testing.T, d *fakeDNS, f func(p *Prober, found chan Found)) {
	synctest.Test(t, func(t *testing.T) {
		sink := newCollector()
		p := New(Options{Sink: sink, Lookup: d})
		p.Start()
		f(p, sink.found)
		if err := p.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// wantFound checks the next news; "" stands for none.
func wantFound(t *testing.T, found chan Found, want string) {
	t.Helper()
	synctest.Wait()
	got := ""
	if len(found) > 0 {
		f := <-found
		got = fmt.Sprint(f.Name, "/", f.Candidate, " ", f.Addrs, " gone ", f.Gone, " failed ", f.Err != nil)
	}
	if got != want {
		t.Errorf("found %q\n want %q", got, want)
	}
}

func TestLookup(t *testing.T) {
	d := &fakeDNS{ttl: 20 * time.Second, addrs: map[string][]netip.Addr{"h1": ips("192.0.2.1", "2001:db8::1", "192.0.2.2")}}
	inLookupBubble(t, d, func(p *Prober, found chan Found) {
		p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h1"}}})
		time.Sleep(time.Second)
		synctest.Wait()
		for len(found) > 1 { // A and AAAA may come apart
			<-found
		}
		wantFound(t, found, "n/c [192.0.2.1 192.0.2.2 2001:db8::1] gone [] failed false")

		d.set(func() { d.addrs["h1"] = ips("192.0.2.2", "2001:db8::1", "192.0.2.1") })
		time.Sleep(time.Minute)
		wantFound(t, found, "") // another order is no news

		// One leaves: it is kept for two TTLs, and said to be gone meanwhile.
		d.set(func() { d.addrs["h1"] = ips("192.0.2.2", "2001:db8::1") })
		time.Sleep(20 * time.Second)
		wantFound(t, found, "n/c [192.0.2.2 2001:db8::1] gone [192.0.2.1] failed false")
		time.Sleep(15 * time.Second)
		wantFound(t, found, "")
		time.Sleep(26 * time.Second)
		wantFound(t, found, "n/c [192.0.2.2 2001:db8::1] gone [] failed false")

		// All fails: what is known stays.
		d.set(func() { d.fail = true })
		time.Sleep(time.Hour)
		wantFound(t, found, "n/c [192.0.2.2 2001:db8::1] gone [] failed true")
		d.set(func() { d.fail = false })
		time.Sleep(lastRetry)
		wantFound(t, found, "n/c [192.0.2.2 2001:db8::1] gone [] failed false")

		// NXDOMAIN: the grace applies, then nothing is left.
		d.set(func() { d.addrs = nil })
		time.Sleep(20 * time.Second)
		for len(found) > 1 {
			<-found
		}
		wantFound(t, found, "n/c [] gone [192.0.2.2 2001:db8::1] failed false")
		time.Sleep(time.Minute)
		for len(found) > 1 {
			<-found
		}
		wantFound(t, found, "n/c [] gone [] failed false")
	})
}

func TestLookupKeepsTTLBounds(t *testing.T) {
	for _, tt := range []struct {
		ttl       time.Duration
		low, high int // look-ups in an hour
	}{{0, 3600 / 5, 3600 / 4.5}, {time.Minute, 60, 67}, {24 * time.Hour, 12, 14}} {
		d := &fakeDNS{ttl: tt.ttl, addrs: map[string][]netip.Addr{"h": ips("192.0.2.1")}}
		inLookupBubble(t, d, func(p *Prober, found chan Found) {
			p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h"}}})
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := len(d.asked); n < tt.low || n > tt.high+1 {
				t.Errorf("TTL %v: %d look-ups in an hour, want %d to %d", tt.ttl, n, tt.low, tt.high)
			}
		})
	}
}

func TestLookupRetriesWithBackoff(t *testing.T) {
	d := &fakeDNS{fail: true}
	inLookupBubble(t, d, func(p *Prober, found chan Found) {
		p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h"}, Known: ips("192.0.2.9")}})
		wantFound(t, found, "n/c [192.0.2.9] gone [] failed false") // at once
		time.Sleep(time.Minute)
		wantFound(t, found, "n/c [192.0.2.9] gone [] failed true")
		wantFound(t, found, "")
		if n := len(d.asked); n < 6 || n > 8 {
			t.Errorf("%d look-ups in a minute of failure, want 0, 1, 3, 7, 15, 31 s", n)
		}
		// The truth replaces what an earlier run knew.
		d.set(func() { d.fail, d.ttl, d.addrs = false, time.Minute, map[string][]netip.Addr{"h": ips("192.0.2.1")} })
		time.Sleep(lastRetry)
		synctest.Wait()
		for len(found) > 1 {
			<-found
		}
		wantFound(t, found, "n/c [192.0.2.1] gone [192.0.2.9] failed false")
	})
}

func TestLookupSharesHosts(t *testing.T) {
	d := &fakeDNS{ttl: time.Minute, takes: 100 * time.Millisecond, addrs: map[string][]netip.Addr{"h": ips("192.0.2.1"), "i": ips("192.0.2.2")}}
	inLookupBubble(t, d, func(p *Prober, found chan Found) {
		p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h", "i"}}, {Name: "m", Candidate: "c", Hosts: []string{"h"}}})
		time.Sleep(time.Second)
		synctest.Wait()
		if len(d.asked) != 2 {
			t.Errorf("%d look-ups of two host names", len(d.asked))
		}
		last := map[string]string{}
		for len(found) > 0 {
			f := <-found
			last[f.Name] = fmt.Sprint(f.Addrs)
		}
		if last["n"] != "[192.0.2.1 192.0.2.2]" || last["m"] != "[192.0.2.1]" {
			t.Error(last)
		}
		// The same again changes nothing; less ends the look-ups of what is left out.
		p.SetHosts([]Host{{Name: "m", Candidate: "c", Hosts: []string{"h"}}})
		time.Sleep(time.Second)
		synctest.Wait()
		if len(d.asked) != 2 || len(found) != 0 {
			t.Errorf("%d look-ups, %d news after a reload", len(d.asked), len(found))
		}
		p.SetHosts(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(d.asked) != 2 {
			t.Error("looked up what nobody wants")
		}
	})
}

func TestLookupsAreBounded(t *testing.T) {
	d := &fakeDNS{ttl: time.Minute, takes: 50 * time.Millisecond}
	inLookupBubble(t, d, func(p *Prober, found chan Found) {
		var hosts []Host
		for i := range 500 {
			hosts = append(hosts, Host{Name: fmt.Sprint("n", i), Candidate: "c", Hosts: []string{fmt.Sprint("h", i)}})
		}
		p.SetHosts(hosts)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if d.most > maxLookups || len(d.asked) != 500 || len(found) != 500 {
			t.Errorf("%d at one time, %d of 500 host names, %d news", d.most, len(d.asked), len(found))
		}
	})
}

// The engine may be busy in SetHosts while news for it are on their way.
func TestSetHostsNeverWaitsForTheSink(t *testing.T) {
	d := &fakeDNS{ttl: 5 * time.Second, addrs: map[string][]netip.Addr{"h": ips("192.0.2.1")}}
	synctest.Test(t, func(t *testing.T) {
		sink := newCollector()
		sink.found = make(chan Found) // nobody reads
		p := New(Options{Sink: sink, Lookup: d})
		p.Start()
		for range 10 {
			p.SetHosts([]Host{{Name: "n", Candidate: "c", Hosts: []string{"h"}}})
			p.SetHosts(nil)
			time.Sleep(time.Second)
		}
		go func() {
			for range sink.found {
			}
		}()
		p.Stop(context.Background())
		close(sink.found)
	})
}
