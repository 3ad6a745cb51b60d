package prober

import "time"

// moment is a point of a schedule's monotonic clock: nanoseconds since its base.
type moment int64

// never is a delay that no schedule lives to see; some 146 years.
const never time.Duration = 1<<62 - 1

func (m moment) add(d time.Duration) moment { return m + moment(d) }

func (m moment) sub(o moment) time.Duration { return time.Duration(m - o) }

// queued is what an item of a queue carries: when it is due and where it stands.
type queued struct {
	due moment
	pos int // 1 + index in the heap; 0: not in it
}

func (q *queued) entry() *queued { return q }

// queue is a binary heap of what is due when, earliest first. The items know their place, so that
// one can be moved or taken out.
type queue[T interface{ entry() *queued }] struct{ items []T }

func (q *queue[T]) len() int { return len(q.items) }

// head returns the earliest item; the queue must not be empty.
func (q *queue[T]) head() T { return q.items[0] }

// set puts an item in at a time, or moves it there.
func (q *queue[T]) set(item T, due moment) {
	e := item.entry()
	e.due = due
	if e.pos == 0 {
		q.items = append(q.items, item)
		e.pos = len(q.items)
	}
	q.fix(e.pos - 1)
}

// remove takes an item out, if it is in.
func (q *queue[T]) remove(item T) {
	e := item.entry()
	if e.pos == 0 {
		return
	}
	i, last := e.pos-1, len(q.items)-1
	q.swap(i, last)
	var zero T
	q.items[last] = zero
	q.items = q.items[:last]
	e.pos = 0
	if i < last {
		q.fix(i)
	}
}

func (q *queue[T]) fix(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.less(i, parent) {
			break
		}
		q.swap(i, parent)
		i = parent
	}
	for {
		child := 2*i + 1
		if child >= len(q.items) {
			return
		}
		if child+1 < len(q.items) && q.less(child+1, child) {
			child++
		}
		if !q.less(child, i) {
			return
		}
		q.swap(i, child)
		i = child
	}
}

func (q *queue[T]) less(i, k int) bool { return q.items[i].entry().due < q.items[k].entry().due }

func (q *queue[T]) swap(i, k int) {
	q.items[i], q.items[k] = q.items[k], q.items[i]
	q.items[i].entry().pos, q.items[k].entry().pos = i+1, k+1
}

// fifo holds the jobs that wait for a free slot, in the order of their turn.
type fifo struct {
	jobs []*job
	head int
}

func (f *fifo) len() int { return len(f.jobs) - f.head }

func (f *fifo) push(j *job) { f.jobs = append(f.jobs, j) }

func (f *fifo) pop() *job {
	j := f.jobs[f.head]
	f.jobs[f.head] = nil
	f.head++
	if f.head == len(f.jobs) {
		f.jobs, f.head = f.jobs[:0], 0
	}
	return j
}
