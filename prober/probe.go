package prober

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// probe is one run of a check. It is also the context of everything done for it: it ends when
// the job is aborted, without a timer or a goroutine of its own. One goroutine owns it.
type probe struct {
	check           *config.Check
	prepared        *prepared
	name, candidate string
	addr            netip.Addr
	timeout         time.Duration
	done            <-chan struct{} // closed to abort

	start    time.Time // of the probe
	deadline time.Time
	try      int
	tryStart time.Time     // of the connect of the present try; moved by what our own process was late
	acted    bool          // the try has done its first step
	late     time.Duration // how much that was, in all tries
	phases   rank.Phases

	samples    []rank.Sample // one for each try, keys unset
	one        [1]rank.Sample
	slow       bool // the server asked to be asked less often
	retryAfter time.Duration
	note       string // why a redirect was not followed

	trace func(dir, text string) // nil: not traced
}

// begin starts the clock of a probe.
func (pr *probe) begin() {
	pr.start = time.Now()
	pr.deadline = pr.start.Add(pr.timeout)
	pr.samples = pr.one[:0]
	pr.beginTry(0)
}

func (pr *probe) beginTry(n int) {
	pr.try = n
	pr.tryStart = time.Now()
	pr.acted = false
	pr.phases = rank.Phases{}
}

// Deadline, Done, Err and Value make the probe a context.Context.
func (pr *probe) Deadline() (time.Time, bool) { return pr.deadline, true }
func (pr *probe) Done() <-chan struct{}       { return pr.done }
func (pr *probe) Value(any) any               { return nil }
func (pr *probe) Err() error {
	select {
	case <-pr.done:
		return context.Canceled
	default:
		return nil
	}
}

// connected, secured and firstByte note when a phase was reached; the first time counts.
func (pr *probe) connected() { pr.reach(&pr.phases.Connect) }
func (pr *probe) secured()   { pr.reach(&pr.phases.TLS) }
func (pr *probe) firstByte() { pr.reach(&pr.phases.FirstByte) }

func (pr *probe) reach(phase *time.Duration) {
	if *phase == 0 {
		*phase = pr.elapsed()
	}
}

// elapsed is the time since the start of the try, less what was excused, but always after the
// phases already reached: excused time may be a clock tick too long.
func (pr *probe) elapsed() time.Duration {
	reached := max(pr.phases.Connect, pr.phases.TLS, pr.phases.FirstByte)
	return max(time.Since(pr.tryStart), reached+1)
}

// excuse takes time that our own process wasted out of all phases yet to come.
func (pr *probe) excuse(late time.Duration) {
	pr.tryStart = pr.tryStart.Add(late)
	pr.late += late
}

// act is called before the first step of a try: until then nothing was to be waited for.
func (pr *probe) act() {
	if !pr.acted {
		pr.acted = true
		pr.excuseSince(pr.tryStart)
	}
}

// excuseSince excuses the time since an earlier step, if it is long: nothing was to be waited for.
func (pr *probe) excuseSince(step time.Time) {
	if late := time.Since(step); late >= lateEnough {
		pr.excuse(late)
	}
}

// end records the verdict of the present try. Until another one follows it is the final one.
// A phase that the check does not have counts as reached with the next one that it has.
func (pr *probe) end(outcome rank.Outcome, status int, detail string) {
	ph := pr.phases
	ph.Total = pr.elapsed()
	detail = pr.hide(detail)
	if outcome == rank.OK {
		if ph.FirstByte == 0 {
			ph.FirstByte = max(ph.Connect, ph.TLS)
		}
		if ph.FirstByte == 0 {
			ph.FirstByte = ph.Total
		}
		if ph.Connect == 0 {
			ph.Connect = ph.FirstByte
		}
	}
	if n := len(pr.samples); n > 0 {
		pr.samples[n-1].Final = false
	}
	pr.samples = append(pr.samples, rank.Sample{
		At: pr.start, Outcome: outcome, Status: status, Phases: ph,
		Detail: clean(detail), Try: pr.try, Final: true,
	})
	if pr.trace != nil {
		text := outcome.String()
		if detail != "" {
			text += ": " + detail
		}
		pr.tracef("*", "%s", text)
	}
}

// fail records an error as the verdict of the present try.
func (pr *probe) fail(err error) {
	outcome, detail := classify(err, pr)
	pr.end(outcome, 0, detail)
}

// outcome returns the verdict of the last try.
func (pr *probe) outcome() rank.Outcome {
	if len(pr.samples) == 0 {
		return rank.Aborted
	}
	return pr.samples[len(pr.samples)-1].Outcome
}

// markDelayed marks what our own process may have spoilt: it did not run for stalled while the
// probe did. A refusal is a refusal at any time; everything else may be a consequence of our
// silence. Short stalls spoil a latency, not a verdict: half of the measured time must be ours.
func (pr *probe) markDelayed(stalled time.Duration) {
	for i := range pr.samples {
		s := &pr.samples[i]
		verdict := stalled > max(pr.timeout/5, stallTick/2)
		latency := s.Outcome == rank.OK && stalled >= 2*stallTick && stalled > s.Phases.Total/2
		// A deadline that we noticed late was overslept, whatever the meter says.
		overslept := s.Phases.Total > pr.timeout+max(pr.timeout/5, 2*stallTick)
		s.Delayed = s.Outcome != rank.Refused && (verdict || latency || overslept)
	}
}

// wasted tells whether the probe failed while our own process was late: it says nothing, and a
// candidate that may be dead should not wait a whole interval for one that does.
func (pr *probe) wasted() bool {
	n := len(pr.samples)
	return n > 0 && pr.samples[n-1].Delayed && pr.samples[n-1].Outcome != rank.OK
}

// clean makes one line of a detail: what servers send ends in logs and terminals.
func clean(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '�' {
			return '.'
		}
		return r
	}, s)
}

// TraceLine is one step of a traced probe.
type TraceLine struct {
	At   time.Duration // since the start of the probe
	Dir  string        // ">" sent, "<" received, "*" remark
	Text string
}

func (pr *probe) tracef(dir, format string, args ...any) {
	if pr.trace != nil {
		pr.trace(dir, clean(pr.hide(fmt.Sprintf(format, args...))))
	}
}

// check runs a probe by its kind.
func (p *Prober) check(pr *probe) {
	if pr.prepared == nil {
		prepared, err := p.prepare(pr)
		if err != nil {
			pr.end(rank.TLS, 0, err.Error())
			return
		}
		pr.prepared = prepared
		pr.begin() // loading the system's certificates takes a while, once
	}
	switch pr.check.Kind {
	case config.CheckHTTP, config.CheckHTTPS:
		p.http.check(pr)
	case config.CheckTCP, config.CheckTLS:
		checkStream(p.net, pr)
	case config.CheckDNS:
		checkDNS(p.net, pr)
	case config.CheckExec:
		checkExec(pr)
	case config.CheckStatic:
		pr.end(rank.OK, 0, "")
		pr.samples[0].Phases = rank.Phases{}
	}
}

// Probe runs one probe now, outside the schedule, and returns its final sample. With trace it
// also tells what was said.
func (p *Prober) Probe(ctx context.Context, t Target, trace bool) (rank.Sample, []TraceLine) {
	var lines []TraceLine
	pr := &probe{
		check: t.Check, addr: t.Key.Addr, timeout: t.Pace.Timeout, done: ctx.Done(),
		name: t.Key.Name, candidate: t.Key.Candidate,
	}
	if trace {
		pr.trace = func(dir, text string) {
			lines = append(lines, TraceLine{time.Since(pr.start), dir, text})
		}
	}
	p.mu.Lock()
	stopped := p.stopped
	if !stopped {
		p.wg.Add(1)
	}
	p.mu.Unlock()
	if stopped {
		return rank.Sample{Key: t.Key, At: time.Now(), Outcome: rank.Aborted, Detail: "stopping", Final: true}, nil
	}
	defer p.wg.Done()
	p.runProbe(pr)
	s := pr.samples[len(pr.samples)-1]
	s.Key = t.Key
	return s, lines
}
