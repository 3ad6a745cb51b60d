// Package bug keeps a bug of ours from becoming an outage: a panic in the handling of one event ends
// that event, is counted, and is logged with its stack; the process goes on.
//
// Who uses it says with the defer how much is one event, and sees to it that what the event held is
// given back: locks by defer, callers that wait by an error. It is not for errors that are expected.
package bug

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// caught counts the panics of this process.
var caught atomic.Uint64

// Count is how many panics of this process were caught.
func Count() uint64 { return caught.Load() }

// Caught is deferred, itself, around the handling of one event: what names it for the log, and args
// are further attributes, as of slog.
func Caught(log *slog.Logger, what string, args ...any) {
	if v := recover(); v != nil {
		Note(log, v, what, args...)
	}
}

// Note counts and logs a panic that the caller has recovered: it must be called by the deferred
// function that did, so that the stack shows where it came from.
func Note(log *slog.Logger, v any, what string, args ...any) {
	caught.Add(1)
	log.Error("bug: panic in "+what+"; the rest goes on, please report this",
		append(args, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))...)
}
