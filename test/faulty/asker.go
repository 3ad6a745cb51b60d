package faulty

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Question is something that a client asks, and how it looks at the reply.
type Question struct {
	Name    string
	Type    uint16
	Network string                    // "udp" or "tcp"; empty: udp
	Check   func(r *dns.Msg) string   // what is wrong with the reply; "" = nothing
	Port    int                       // the client's, once; 0: any
	Each    func(n int) (name string) // the name of the nth question, instead of Name
	Pause   time.Duration             // of a client of Ask between a reply and its next question; 0: 2 ms
}

// Ours asks for the A record of a name of ours: NOERROR with one of these addresses.
func Ours(name string, addrs ...string) Question {
	return Question{Name: name, Type: dns.TypeA, Check: func(r *dns.Msg) string {
		if got := Addresses(r); r.Rcode != dns.RcodeSuccess || len(got) == 0 || !within(got, addrs) {
			return fmt.Sprintf("%s %v, want one of %v", dns.RcodeToString[r.Rcode], got, addrs)
		}
		return ""
	}}
}

// Forwarded asks for a new name each time, which the Upstream knows.
func Forwarded() Question {
	return Question{Type: dns.TypeA, Each: func(n int) string { return fmt.Sprintf("f%d.elsewhere.example.", n) },
		Check: func(r *dns.Msg) string {
			if got := Addresses(r); !slices.Equal(got, []string{UpstreamAnswer}) {
				return fmt.Sprintf("%s %v, want %s", dns.RcodeToString[r.Rcode], got, UpstreamAnswer)
			}
			return ""
		}}
}

// OrServfail lets a question fail with SERVFAIL, too.
func (q Question) OrServfail() Question {
	check := q.Check
	q.Check = func(r *dns.Msg) string {
		if r.Rcode == dns.RcodeServerFailure {
			return ""
		}
		return check(r)
	}
	return q
}

// TCP asks over TCP, with a connection for each question.
func (q Question) TCP() Question {
	q.Network = "tcp"
	return q
}

// Addresses are the A and AAAA records of a reply.
func Addresses(r *dns.Msg) []string {
	var out []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		}
	}
	return out
}

func within(got, allowed []string) bool {
	for _, a := range got {
		if !slices.Contains(allowed, a) {
			return false
		}
	}
	return true
}

// ClientTimeout is when a client gives a question up, as glibc does.
const ClientTimeout = 5 * time.Second

// Exchange asks one question at a server, once.
func (q Question) Exchange(in *Namespace, server netip.AddrPort, n int) (*dns.Msg, time.Duration, error) {
	name := q.Name
	if q.Each != nil {
		name = q.Each(n)
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), q.Type)
	m.SetEdns0(1232, false)
	network := q.Network
	if network == "" {
		network = "udp"
	}
	began := time.Now()
	var conn net.Conn
	err := in.Do(func() (err error) {
		d := net.Dialer{Timeout: ClientTimeout}
		if q.Port != 0 {
			d.LocalAddr = &net.UDPAddr{Port: q.Port}
		}
		conn, err = d.Dial(network, server.String())
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	r, _, err := (&dns.Client{Net: network, Timeout: ClientTimeout}).ExchangeWithConn(m, &dns.Conn{Conn: conn, UDPSize: 1232})
	return r, time.Since(began), err
}

// Report is what clients saw.
type Report struct {
	Asked    int
	Lost     int            // no reply in time, or an error of the network
	Rcodes   map[string]int // replies by response code
	Wrong    []string       // replies that are not what they should be; some of them
	WrongN   int
	Slowest  time.Duration   // of the replies
	Times    []time.Duration // of the replies, the first 100,000
	Problems []string        // the errors behind Lost; some of them
}

func (r Report) String() string {
	return fmt.Sprintf("%d asked, %d lost %v, %d wrong %v, by code %v, half within %v, 99 %% within %v, slowest reply %v",
		r.Asked, r.Lost, r.Problems, r.WrongN, r.Wrong, r.Rcodes, r.Percentile(50), r.Percentile(99), r.Slowest.Round(10*time.Microsecond))
}

// Percentile is the time within which so many in a hundred replies came.
func (r Report) Percentile(p int) time.Duration {
	if len(r.Times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.Times))
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

// Asker asks a list of questions, each on goroutines of its own, until Stop.
type Asker struct {
	t    testing.TB
	stop chan struct{}
	wg   sync.WaitGroup

	mu sync.Mutex
	by map[int]*Report // by question
}

// somePace is Question.Pause where there is none.
const somePace = 2 * time.Millisecond

// Ask starts to ask these questions, one client for each; the end of the test ends it.
func (h *Hard) Ask(questions ...Question) *Asker {
	a := &Asker{t: h.T, stop: make(chan struct{}), by: make(map[int]*Report)}
	for i := range questions {
		a.by[i] = &Report{Rcodes: make(map[string]int)}
	}
	for i, q := range questions {
		a.wg.Add(1)
		go a.run(i, q, h.In, h.DNS)
	}
	h.T.Cleanup(func() { a.Stop() })
	return a
}

func (a *Asker) run(i int, q Question, in *Namespace, server netip.AddrPort) {
	defer a.wg.Done()
	pause := max(q.Pause, somePace)
	for n := 0; ; n++ {
		r, took, err := q.Exchange(in, server, n)
		a.note(i, q, r, took, err)
		select {
		case <-a.stop:
			return
		case <-time.After(pause):
		}
	}
}

func (a *Asker) note(i int, q Question, r *dns.Msg, took time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rep := a.by[i]
	rep.Asked++
	if err != nil {
		rep.Lost++
		if len(rep.Problems) < 5 {
			rep.Problems = append(rep.Problems, err.Error())
		}
		return
	}
	rep.Slowest = max(rep.Slowest, took)
	if len(rep.Times) < 100000 {
		rep.Times = append(rep.Times, took)
	}
	rep.Rcodes[dns.RcodeToString[r.Rcode]]++
	if text := q.Check(r); text != "" {
		rep.WrongN++
		if len(rep.Wrong) < 5 {
			rep.Wrong = append(rep.Wrong, text)
		}
	}
}

// SoFar is what question i got until now.
func (a *Asker) SoFar(i int) Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := *a.by[i]
	r.Rcodes = maps.Clone(r.Rcodes)
	r.Wrong, r.Problems, r.Times = slices.Clone(r.Wrong), slices.Clone(r.Problems), slices.Clone(r.Times)
	return r
}

// More waits until question i was asked n times more.
func (a *Asker) More(i, n int) {
	a.t.Helper()
	until := a.SoFar(i).Asked + n
	Eventually(a.t, fmt.Sprintf("question %d is asked %d times more", i, n), func() bool { return a.SoFar(i).Asked >= until })
}

// Stop ends the asking and gives the report of each question.
func (a *Asker) Stop() []Report {
	a.mu.Lock()
	select {
	case <-a.stop:
	default:
		close(a.stop)
	}
	a.mu.Unlock()
	a.wg.Wait()
	var out []Report
	for i := range len(a.by) {
		out = append(out, a.SoFar(i))
	}
	return out
}

// Clean stops, and fails the test where a reply was lost or wrong. It logs all reports.
func (a *Asker) Clean() {
	a.t.Helper()
	for i, r := range a.Stop() {
		a.t.Logf("clients saw, question %d: %v", i, r)
		if r.Asked == 0 || r.Lost > 0 || r.WrongN > 0 {
			a.t.Errorf("question %d: %v", i, r)
		}
	}
}

// Wants waits until one reply to a question is as it should be.
func (h *Hard) Wants(what string, q Question) {
	h.T.Helper()
	var last []string
	deadline := time.Now().Add(Patience)
	for n := 0; ; n++ {
		r, _, err := q.Exchange(h.In, h.DNS, n)
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			text = q.Check(r)
		}
		if text == "" {
			return
		}
		if last = append(last, text); len(last) > 3 {
			last = last[1:]
		}
		if time.Now().After(deadline) {
			h.T.Fatalf("not within %v: %s: %s", Patience, what, strings.Join(last, "; "))
		}
		time.Sleep(10 * time.Millisecond) // the poll's pace
	}
}
