package store

import (
	"net/netip"
	"sync"
	"time"

	"hard/internal/rank"
)

// row is anything but a probe that waits to be written.
type row interface {
	kind() string // for the count of dropped rows
	write(w *writer) error
}

// latestKey names a row of which only the newest matters.
type latestKey struct {
	table           string
	name, candidate string
	addr            netip.Addr
}

// batch is what one transaction writes.
type batch struct {
	samples []rank.Sample // oldest first
	rows    []row         // oldest first
	latest  map[latestKey]row
	lost    lost
	at      time.Time // when it was taken
}

func (b *batch) len() int { return len(b.samples) + len(b.rows) + len(b.latest) }

// queue holds what waits for the writer. Probes and other rows share one limit; when it is
// reached the oldest probe goes, and an old event only when there is no probe left. The latest
// rows have the same limit for themselves: there are as many as there are endpoints and names.
type queue struct {
	limit int // immutable

	mu      sync.Mutex // guards what follows; held for an append or a swap
	waiting batch
	dropped map[string]uint64
}

// hurryRows is how many waiting probes are worth a commit before the second is over.
const hurryRows = 8192

// addSample tells whether the writer should hurry.
func (q *queue) addSample(p rank.Sample) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.samples = append(q.waiting.samples, p)
	q.fitLocked()
	return len(q.waiting.samples) == hurryRows
}

func (q *queue) addRow(r row) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.rows = append(q.waiting.rows, r)
	q.fitLocked()
}

func (q *queue) put(k latestKey, r row) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting.latest == nil {
		q.waiting.latest = make(map[latestKey]row)
	}
	if _, known := q.waiting.latest[k]; !known && len(q.waiting.latest) >= q.limit {
		q.dropLocked(r.kind(), 1)
		return
	}
	q.waiting.latest[k] = r
}

// fitLocked drops the oldest until the limit holds.
func (q *queue) fitLocked() {
	b := &q.waiting
	for over := len(b.samples) + len(b.rows) - q.limit; over > 0; over-- {
		if len(b.samples) > 0 {
			q.dropLocked("probe", 1)
			b.lost.sample(&b.samples[0])
			b.samples = b.samples[1:] // append moves the rest to fresh memory now and then
			continue
		}
		b.lost.row(b.rows[0])
		q.dropLocked(b.rows[0].kind(), 1)
		b.rows[0] = nil
		b.rows = b.rows[1:]
	}
}

func (q *queue) dropLocked(kind string, n int) {
	if n <= 0 {
		return
	}
	if q.dropped == nil {
		q.dropped = make(map[string]uint64)
	}
	q.dropped[kind] += uint64(n)
}

// take hands everything over to the writer: with spare, the writer's last batch, whose memory is
// used again. Without probes they stay and wait.
func (q *queue) take(probes bool, spare []rank.Sample) batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.waiting
	q.waiting = batch{}
	if probes {
		q.waiting.samples = spare[:0]
	} else {
		q.waiting.samples, b.samples = b.samples, nil
	}
	return b
}

// giveBack takes a batch back that could not be written; newer rows stay newer.
func (q *queue) giveBack(b batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting.samples = append(b.samples, q.waiting.samples...)
	q.waiting.rows = append(b.rows, q.waiting.rows...)
	for k, r := range q.waiting.latest {
		if b.latest == nil {
			b.latest = make(map[latestKey]row)
		}
		b.latest[k] = r
	}
	q.waiting.latest = b.latest
	q.waiting.lost.join(b.lost)
	q.fitLocked()
}

// discard counts a batch as lost.
func (q *queue) discard(b batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropLocked("probe", len(b.samples))
	for i := range b.samples {
		b.lost.sample(&b.samples[i])
	}
	for _, r := range b.rows {
		b.lost.row(r)
	}
	q.waiting.lost.join(b.lost)
	for _, r := range b.rows {
		q.dropLocked(r.kind(), 1)
	}
	for _, r := range b.latest {
		q.dropLocked(r.kind(), 1)
	}
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting.len()
}

func (q *queue) counts() (queued int, dropped map[string]uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped = make(map[string]uint64, len(q.dropped))
	for k, n := range q.dropped {
		dropped[k] = n
	}
	return q.waiting.len(), dropped
}
