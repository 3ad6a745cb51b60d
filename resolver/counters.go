package resolver

import (
	"sync/atomic"
	"time"

	"hard/internal/answer"
	"hard/internal/wire"
)

// source says whose reply it is, for metrics.
type source uint8

const (
	sourceForward source = iota
	sourceCache
	sourceStale
	sourceLocal // these three in the order of answer.Source
	sourceSpecial
	sourceError
	numSources
)

var sourceNames = [numSources]string{"forward", "cache", "stale", "local", "special", "error"}

func sourceOf(s answer.Source) source { return sourceLocal + source(s) }

// Query types are counted in classes, so that clients cannot make labels.
var typeNames = [...]string{"other", "A", "AAAA", "HTTPS", "SVCB", "PTR", "TXT", "MX", "SRV", "SOA", "NS", "CNAME", "ANY"}

const numTypes = len(typeNames)

var typeClasses = [256]uint8{
	wire.TypeA: 1, wire.TypeAAAA: 2, wire.TypeHTTPS: 3, wire.TypeSVCB: 4, wire.TypePTR: 5, wire.TypeTXT: 6,
	wire.TypeMX: 7, wire.TypeSRV: 8, wire.TypeSOA: 9, wire.TypeNS: 10, wire.TypeCNAME: 11, wire.TypeANY: 12,
}

func typeClass(qtype uint16) uint8 {
	if qtype > 255 {
		return 0
	}
	return typeClasses[qtype]
}

var rcodeNames = [...]string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
	"NXRRSET", "NOTAUTH", "NOTZONE", "BADVERS", "other"}

const numRcodes = len(rcodeNames)

// rcodeClass is the index in rcodeNames of msg's rcode. Of the extended ones
// only BADVERS exists here, which is an error with all the low bits clear.
func rcodeClass(msg []byte, s source) uint8 {
	rcode := msg[3] & 0x0f
	switch {
	case rcode == 0 && s == sourceError:
		return uint8(numRcodes - 2)
	case int(rcode) > numRcodes-3:
		return uint8(numRcodes - 1)
	}
	return rcode
}

// counts are the counters of one listener. Those of a listener are written by
// its goroutine alone (note), and Resolver.shared by anybody (noteReply);
// Stats sums them up at any time.
type counts struct {
	replies  [numTypes][numSources][numRcodes]atomic.Uint64
	dropped  atomic.Uint64 // packets that get no answer: too short, responses, from port 0
	lost     atomic.Uint64 // replies that could not be sent
	duration [numSources]histogram
}

// inc adds one to a counter with a single writer, which needs no locked
// addition.
func inc(n *atomic.Uint64) { n.Store(n.Load() + 1) }

// note counts a reply; for the only writer of c.
func (c *counts) note(q *wire.Query, s source, msg []byte) {
	class := uint8(0)
	if q.QEnd != 0 {
		class = typeClass(q.Type)
	}
	inc(&c.replies[class][s][rcodeClass(msg, s)])
}

// noteReply counts a whole reply by its own question, and the time it took
// (0 = not known); for any goroutine.
func (c *counts) noteReply(s source, msg []byte, took time.Duration) {
	if len(msg) < wire.HeaderLen {
		return
	}
	class := uint8(0)
	if end, ok := wire.SkipName(msg, wire.HeaderLen); ok && end+2 <= len(msg) {
		class = typeClass(uint16(msg[end])<<8 | uint16(msg[end+1]))
	}
	c.replies[class][s][rcodeClass(msg, s)].Add(1)
	if took > 0 {
		c.duration[s].observe(took)
	}
}

// took is the time since from's query came; 0 = not known.
func (r *Resolver) took(from *asker) time.Duration {
	if from.at == 0 {
		return 0
	}
	return r.sinceStart() - time.Duration(from.at)
}

// durationBounds are the upper bounds of the histograms' buckets.
var durationBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond,
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// histogram counts durations. Any goroutine may use it.
type histogram struct {
	buckets [len(durationBounds) + 1]atomic.Uint64 // not cumulative
	sum     atomic.Int64                           // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	h.buckets[durationBucket(d)].Add(1)
	h.sum.Add(int64(d))
}

// durationBucket is the index of the bucket that d belongs to.
func durationBucket(d time.Duration) int {
	i := 0
	for i < len(durationBounds) && d > durationBounds[i] {
		i++
	}
	return i
}

// newCounts makes the counters of one listener, for proto 0 (UDP) or 1 (TCP).
// They stay in Stats when the listener is gone, as counters must not go back.
func (r *Resolver) newCounts(proto int) *counts {
	c := new(counts)
	r.countersMu.Lock()
	defer r.countersMu.Unlock()
	r.counters[proto] = append(r.counters[proto], c)
	return c
}

// Stats is what the front end has counted since New.
type Stats struct {
	Requests  []RequestCount  // answered queries; what got no answer is in Dropped
	Responses []ResponseCount // by response code
	Durations []Duration      // every forward, and a sample of local answers
	Answers   []uint64        // by answer.SetSpec.IDs: replies that gave this endpoint
	Dropped   uint64          // packets that deserve no answer: too short, responses, from port 0
	Lost      uint64          // replies that the kernel did not take
	Loops     uint64          // queries of ours that came back through an upstream
	Held      int             // queries that wait for a first verdict now
	Conns     int             // open TCP connections
	Accepted  uint64          // TCP connections
	Evicted   uint64          // TCP connections closed to make room for new ones
}

// RequestCount is one series of hard_dns_requests_total.
type RequestCount struct {
	Proto, Type, Source string
	N                   uint64
}

// ResponseCount is one series of hard_dns_responses_total.
type ResponseCount struct {
	Rcode, Source string
	N             uint64
}

// Duration is one histogram of hard_dns_request_duration_seconds.
type Duration struct {
	Source string
	Bounds []time.Duration // upper bounds
	Counts []uint64        // per bucket, not cumulative; one more than Bounds
	Sum    time.Duration
}

// Stats sums up the counters. Any goroutine may call it.
func (r *Resolver) Stats() Stats {
	var sum [2]tally
	r.countersMu.Lock()
	for proto, list := range r.counters {
		for _, c := range list {
			sum[proto].add(c)
		}
	}
	r.countersMu.Unlock()
	s := Stats{Answers: r.answers.Sum(), Loops: r.fwd.loops.Load(), Held: r.held.len()}
	s.Conns, s.Accepted, s.Evicted = r.tcp.stats()
	var responses [numRcodes][numSources]uint64
	durations := make([]Duration, numSources)
	for proto := range sum {
		sum[proto].into(&s, [2]string{"udp", "tcp"}[proto], &responses, durations)
	}
	for rcode, list := range responses {
		for src, n := range list {
			if n > 0 {
				s.Responses = append(s.Responses, ResponseCount{rcodeNames[rcode], sourceNames[src], n})
			}
		}
	}
	for src, d := range durations {
		if d.Counts != nil {
			d.Source = sourceNames[src]
			s.Durations = append(s.Durations, d)
		}
	}
	return s
}

// tally is the sum of some counts.
type tally struct {
	replies       [numTypes][numSources][numRcodes]uint64
	dropped, lost uint64
	buckets       [numSources][len(durationBounds) + 1]uint64
	sum           [numSources]int64
}

func (t *tally) add(c *counts) {
	for i := range c.replies {
		for j := range c.replies[i] {
			for k := range c.replies[i][j] {
				t.replies[i][j][k] += c.replies[i][j][k].Load()
			}
		}
	}
	t.dropped += c.dropped.Load()
	t.lost += c.lost.Load()
	for i := range c.duration {
		for j := range c.duration[i].buckets {
			t.buckets[i][j] += c.duration[i].buckets[j].Load()
		}
		t.sum[i] += c.duration[i].sum.Load()
	}
}

func (t *tally) into(s *Stats, proto string, responses *[numRcodes][numSources]uint64, durations []Duration) {
	s.Dropped += t.dropped
	s.Lost += t.lost
	for class := range t.replies {
		for src := range numSources {
			n := uint64(0)
			for rcode, x := range t.replies[class][src] {
				n += x
				responses[rcode][src] += x
			}
			if n > 0 {
				s.Requests = append(s.Requests, RequestCount{proto, typeNames[class], sourceNames[src], n})
			}
		}
	}
	for src := range durations {
		t.durations(&durations[src], src)
	}
}

// durations adds one source's histogram to d.
func (t *tally) durations(d *Duration, src int) {
	any := uint64(0)
	for _, n := range t.buckets[src] {
		any += n
	}
	if any == 0 {
		return
	}
	if d.Counts == nil {
		d.Bounds, d.Counts = durationBounds[:], make([]uint64, len(durationBounds)+1)
	}
	for i, n := range t.buckets[src] {
		d.Counts[i] += n
	}
	d.Sum += time.Duration(t.sum[src])
}
