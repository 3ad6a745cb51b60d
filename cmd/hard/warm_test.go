package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"hard/store"
)

// warmNames is how many names of four candidates TestWarmStartOf100Names has.
const warmNames = 100

// TestWarmStartOf100Names (R90): the first reply of a restart, to a client that asks from before it listens on,
// is the right one, out of the database: the one candidate that was good says nothing any more, so that
// no probe of the new run can tell, and its place in the file is not the first. It was answered like that
// before, so that it makes no row in the view answers. How long it took is logged and never fails.
func TestWarmStartOf100Names(t *testing.T) {
	s := newService(t)
	live, hang, over := warmCandidate(t)
	defer over()
	dead := [3]string{}
	for i := range dead {
		dead[i] = ownPlace().Addr().String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[listen]\ndns = [%q]\nhttp = \"\"\ncontrol = \"\"\n[upstream]\nservers = [%q]\n[store]\npath = %q\n", s.at,
		net.JoinHostPort(s.at.Addr().String(), "9"), filepath.Join(s.dir, "db", "hard.db"))
	// No probe that hangs ends within this test.
	fmt.Fprintf(&b, "[defaults]\ncheck = \"http://:%d/\"\ninterval = \"1s\"\nfast_interval = \"100ms\"\ntimeout = \"10m\"\n", live.Port)
	for i := range warmNames {
		fmt.Fprintf(&b, "[name.\"n%d.warm.example\"]\ncandidates = [%q, %q, %q, %q]\n", i, dead[0], dead[1], live.IP.String(), dead[2])
	}
	s.write(b.String())
	r := s.start(nil).serving()
	c := dns.Client{Timeout: patience}
	for i := range warmNames {
		eventually(t, "all names know the live candidate", func() bool { return s.warmReply(&c, i, live.IP) == nil })
	}
	r.stop()
	rows := s.answerRows()
	hang.Store(true)

	runs := 1
	if os.Getenv("HARD_LONG") != "" {
		runs = 20 // for figures
	}
	var first, all []time.Duration
	for range runs {
		began := time.Now()
		reply := firstReply(t, s, "n0.warm.example.", func() { r = s.start(nil) })
		first = append(first, time.Since(began))
		if err := warmRight(reply, live.IP); err != nil {
			t.Errorf("the first reply: %v", err)
		}
		for i := range warmNames {
			if err := s.warmReply(&c, i, live.IP); err != nil {
				t.Errorf("name %d: %v", i, err)
			}
		}
		all = append(all, time.Since(began))
		r.serving().stop()
	}
	slices.Sort(first)
	slices.Sort(all)
	t.Logf("%d starts: first reply after %v, at least %v, at most %v; all %d names after %v", runs, first[runs/2], first[0], first[runs-1], warmNames, all[runs/2])
	if now := s.answerRows(); now != rows {
		t.Errorf("%d rows of answers became %d by restarts that answered as before", rows, now)
	}
}

// warmCandidate is an HTTP server that answers until hang is set, and no more from then on.
func warmCandidate(t *testing.T) (at *net.TCPAddr, hang *atomic.Bool, over func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hang = new(atomic.Bool)
	done := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hang.Load() {
			<-done
		}
		io.WriteString(w, "ok")
	})}
	go func() { _ = srv.Serve(l) }()
	return l.Addr().(*net.TCPAddr), hang, func() { close(done); srv.Close() }
}

// warmReply asks for one of the names.
func (s *service) warmReply(c *dns.Client, i int, want net.IP) error {
	q := new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.warm.example.", i), dns.TypeA)
	q.SetEdns0(1232, false)
	m, _, err := c.Exchange(q, s.at.String())
	if err != nil {
		return err
	}
	return warmRight(m, want)
}

// warmRight tells what is wrong with a reply: a normal answer has one address, and no Extended DNS Error.
func warmRight(m *dns.Msg, want net.IP) error {
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(want) {
		return fmt.Errorf("not %s:\n%s", want, m)
	}
	if opt := m.IsEdns0(); opt == nil || len(opt.Option) > 0 {
		return fmt.Errorf("a special answer:\n%s", m)
	}
	return nil
}

// firstReply asks for a name all the time from before start is called, and gives the first reply there is.
func firstReply(t *testing.T, s *service, name string, start func()) *dns.Msg {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.at))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	q.SetEdns0(1232, false)
	packet, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(500 * time.Microsecond); ; { // the poll's pace
			_, _ = conn.Write(packet) // refused until somebody listens
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	start()
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err != nil {
			t.Fatalf("no reply: %v", err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			t.Fatal(err)
		}
		return m
	}
}

// answerRows counts the changes of answers in the history.
func (s *service) answerRows() int {
	s.t.Helper()
	r, err := store.OpenReader(filepath.Join(s.dir, "db", "hard.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	list, err := r.Answers(context.Background(), store.Filter{})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}
