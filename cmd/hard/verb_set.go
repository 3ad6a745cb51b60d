package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"hard/internal/admin"
	"hard/internal/rank"
)

// set is hard set.
func set(o *options, stdout, stderr io.Writer) int {
	state, err := rank.ParseOverride(o.args[1])
	if err != nil {
		fmt.Fprintf(stderr, "hard: set: up, down, drain or auto, not %q\n", o.args[1])
		return exitUsage
	}
	name, candidate := target(o.args[0])
	return forced(o, stdout, stderr, "/v1/set", admin.SetRequest{
		Name: name, Candidate: candidate, State: state, For: admin.Duration(o.holds), Why: o.why, Force: o.force,
	})
}

// weight is hard weight.
func weight(o *options, stdout, stderr io.Writer) int {
	w, err := admin.ParseWeight(o.args[1])
	if err == nil {
		if _, candidate := target(o.args[0]); candidate == "" {
			err = errors.New("a weight is one candidate's: NAME/CANDIDATE")
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "hard: weight: %v\n", err)
		return exitUsage
	}
	name, candidate := target(o.args[0])
	return forced(o, stdout, stderr, "/v1/weight", admin.WeightRequest{
		Name: name, Candidate: candidate, Weight: w, For: admin.Duration(o.holds), Why: o.why, Force: o.force,
	})
}

// forced asks for an override and tells what holds now.
func forced(o *options, stdout, stderr io.Writer, path string, in any) int {
	return ask(o, stdout, stderr, "POST", path, in, func(p *page, f *admin.Forced) {
		now := time.Now()
		for i := range f.Overrides {
			p.line(plain, "%s", overrideText(&f.Overrides[i], now))
		}
	}, func(f *admin.Forced) {
		if f.Warning != "" {
			fmt.Fprintln(stderr, "hard: warning:", f.Warning)
		}
	})
}
