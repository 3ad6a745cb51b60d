package past

import (
	"context"
	"errors"
	"slices"
	"time"

	"hard/internal/engine"
	"hard/internal/rank"
	"hard/store"
)

const (
	// longestProbe is how long before a checkpoint a probe may have begun that was taken after it.
	longestProbe = 2 * time.Minute
	// readAhead samples go from the reading goroutine to the deciding one at a time, and this many
	// times they wait.
	readAhead   = 1024
	blocksAhead = 4
)

// errEnough ends a stream from inside.
var errEnough = errors.New("enough")

// visitor gets what the engine was given, in the order in which it was: the error errEnough ends
// the stream, any other one breaks it.
type visitor struct {
	sample func(*rank.Sample) error
	input  func(*engine.Input) error
}

// stream reads samples and inputs taken after from and not after until.
func (h *History) stream(ctx context.Context, from, until time.Time, v visitor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blocks, used, fail := make(chan []rank.Sample, blocksAhead), make(chan []rank.Sample, blocksAhead+2), make(chan error, 1)
	go func() {
		defer close(blocks)
		fail <- h.read(ctx, from, until, blocks, used)
	}()
	inputs := h.inputs
	for len(inputs) > 0 && !inputs[0].At.After(from) {
		inputs = inputs[1:]
	}
	inputsUntil := func(t time.Time) error {
		for len(inputs) > 0 && !inputs[0].At.After(t) {
			in := &inputs[0]
			inputs = inputs[1:]
			if err := v.input(in); err != nil {
				return err
			}
		}
		return nil
	}
	take := func(s *rank.Sample) error {
		if s.Taken.After(until) || !s.Taken.After(from) {
			return nil
		}
		if err := inputsUntil(s.Taken); err != nil {
			return err
		}
		return v.sample(s)
	}
	err := inLine(blocks, used, take)
	cancel()
	for range blocks { // lets the reader end
	}
	if err == nil {
		err = <-fail
	}
	if err == nil {
		err = inputsUntil(until)
	}
	if err == errEnough {
		return nil
	}
	return err
}

// inLine hands on the samples of all blocks in the order in which they were taken.
func inLine(blocks <-chan []rank.Sample, used chan<- []rank.Sample, take func(*rank.Sample) error) error {
	var l line
	for block := range blocks {
		for i := range block {
			if err := l.add(&block[i], take); err != nil {
				return err
			}
		}
		select {
		case used <- block:
		default:
		}
	}
	return l.end(take)
}

// read sends the samples of a span in the order of their start, in blocks that come back used.
func (h *History) read(ctx context.Context, from, until time.Time, to chan<- []rank.Sample, used <-chan []rank.Sample) error {
	var block []rank.Sample
	send := func() error {
		select {
		case to <- block:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f := store.Filter{Since: from.Add(-longestProbe), Until: until.Add(time.Millisecond)}
	for s, err := range h.r.Samples(ctx, f) {
		if err != nil {
			return err
		}
		if block == nil {
			select {
			case block = <-used:
				block = block[:0]
			default:
				block = make([]rank.Sample, 0, readAhead)
			}
		}
		if block = append(block, s); len(block) == cap(block) {
			if err := send(); err != nil {
				return err
			}
			block = nil
		}
	}
	return send()
}

// line puts samples, which come in the order of their start, into the order in which they were
// taken. It is short: as many wait in it as were running at one time, or within ahead.
type line struct {
	wait []rank.Sample // ordered by Taken
	from int           // those before it are through
}

// ahead is how much earlier than its start a sample may have been taken: probes within one
// millisecond have starts of their own, the last of which lie in the future (engine.clock.stamp).
const ahead = 100 * time.Millisecond

// add lets in one sample, and hands those to take that can have no predecessor any more.
func (l *line) add(s *rank.Sample, take func(*rank.Sample) error) error {
	if err := l.takeBefore(s.At.Add(-ahead), take); err != nil {
		return err
	}
	if l.from > len(l.wait)/2 {
		l.wait = append(l.wait[:0], l.wait[l.from:]...)
		l.from = 0
	}
	at := len(l.wait)
	for at > l.from && l.wait[at-1].Taken.After(s.Taken) {
		at--
	}
	l.wait = slices.Insert(l.wait, at, *s)
	return nil
}

func (l *line) takeBefore(t time.Time, take func(*rank.Sample) error) error {
	for l.from < len(l.wait) && l.wait[l.from].Taken.Before(t) {
		s := &l.wait[l.from]
		l.from++
		if err := take(s); err != nil {
			return err
		}
	}
	return nil
}

// end hands on all that still wait.
func (l *line) end(take func(*rank.Sample) error) error {
	for ; l.from < len(l.wait); l.from++ {
		if err := take(&l.wait[l.from]); err != nil {
			return err
		}
	}
	return nil
}
