// Package rank is the policy of hard: from probe results to health, latency and the selection
// of endpoints. It is pure: no clock, no goroutine, no I/O; time is always an argument. The same
// functions serve the live engine, explain and replay, and the same input always gives the same
// output.
//
// The way of one probe result through it:
//
//	Sample -> Step(Health) -> Change        rise, fall, latency estimate (health.go, latency.go)
//	             |  Guard                   is it our own network? (guard.go)
//	Health -> Decide(Policy, Memory)        who is eligible, who is selected, why (decide.go)
//	       -> Interval(Pace)                when to probe next (pace.go)
//
// It owns nothing: callers keep Health, Memory and Guard values, each owned by one goroutine, and
// pass them in. It is not for scheduling probes (package prober) nor for building replies or the
// weighted rotation inside them (package answer).
package rank
