package engine

import (
	"container/heap"
	"time"
)

// wakeQueue orders the names by when time alone may change something about them.
type wakeQueue []*name

func (q wakeQueue) Len() int           { return len(q) }
func (q wakeQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q wakeQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push and Pop are for container/heap.
func (q *wakeQueue) Push(x any) {
	n := x.(*name)
	n.place = len(*q)
	*q = append(*q, n)
}

// Pop is for container/heap.
func (q *wakeQueue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	n.place = -1
	return n
}

// set moves a name to its new time; the zero time takes it out.
func (q *wakeQueue) set(n *name, due time.Time) {
	n.due = due
	switch {
	case due.IsZero() && n.place >= 0:
		heap.Remove(q, n.place)
	case due.IsZero():
	case n.place >= 0:
		heap.Fix(q, n.place)
	default:
		heap.Push(q, n)
	}
}

// next is the earliest time, zero when the queue is empty.
func (q wakeQueue) next() time.Time {
	if len(q) == 0 {
		return time.Time{}
	}
	return q[0].due
}

// due takes out one name whose time has come, or returns nil.
func (q *wakeQueue) due(now time.Time) *name {
	if len(*q) == 0 || now.Before((*q)[0].due) {
		return nil
	}
	return heap.Pop(q).(*name)
}
