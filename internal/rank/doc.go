// Package rank is the policy of hard: from probe results to health, latency and the selection
// of endpoints. It is pure: no clock, no goroutine, no I/O; time is always an argument. The same
// functions serve the live engine, explain and replay.
//
// It owns nothing: callers keep Health and Memory values and pass them in. It is not for
// scheduling probes (package prober) nor for building replies (package answer).
package rank
