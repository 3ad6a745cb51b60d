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
	// readAhead samples go from the reading goroutine to the deciding one at a time.
	readAhead = 1024
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
	blocks, fail := make(chan []rank.Sample, 4), make(chan error, 1)
	go func() {
		defer close(blocks)
		fail <- h.read(ctx, from, until, blocks)
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
	err := sorted(blocks, take)
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

// read sends the samples of a span in the order of their start.
func (h *History) read(ctx context.Context, from, until time.Time, to chan<- []rank.Sample) error {
	block := make([]rank.Sample, 0, readAhead)
	send := func() error {
		select {
		case to <- block:
			block = make([]rank.Sample, 0, readAhead)
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
		if block = append(block, s); len(block) == cap(block) {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// sorted hands samples on in the order in which they were taken. They come in the order of their
// start: whatever was taken before the start of the present one can have no predecessor any more.
func sorted(blocks <-chan []rank.Sample, take func(*rank.Sample) error) error {
	var wait []*rank.Sample // ordered by Taken; few, as many as probes run at one time
	for block := range blocks {
		for i := range block {
			s := &block[i]
			done := 0
			for done < len(wait) && wait[done].Taken.Before(s.At) {
				if err := take(wait[done]); err != nil {
					return err
				}
				done++
			}
			wait = append(wait[:0], wait[done:]...)
			at := len(wait)
			for at > 0 && wait[at-1].Taken.After(s.Taken) {
				at--
			}
			wait = slices.Insert(wait, at, s)
		}
	}
	for _, s := range wait {
		if err := take(s); err != nil {
			return err
		}
	}
	return nil
}
