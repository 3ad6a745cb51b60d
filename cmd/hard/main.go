// Command hard is a per-host high-availability stub resolver: see README.md.
//
// This package parses the command line, turns signals into calls of the daemon and results into
// exit codes. Everything else lives below it.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

// Exit codes (contract, section 3).
const (
	exitOK         = 0
	exitFailed     = 1 // invalid configuration, or the thing asked for failed
	exitUsage      = 2
	exitNotRunning = 3 // the daemon is not running
)

// version is set by the linker (-X main.version=...) in releases.
var version = ""

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without the process: args without the program's name, and the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "hard: %v\nRun \"hard -h\" for help.\n", err)
		return exitUsage
	}
	switch {
	case o.help:
		if v := findVerb(o.verb); v != nil {
			usageOf(stdout, v)
		} else {
			usage(stdout)
		}
		return exitOK
	case o.version:
		fmt.Fprintln(stdout, "hard", Version())
		return exitOK
	case o.check:
		return check(o, stdout)
	}
	if v := findVerb(o.verb); v != nil {
		return v.run(o, stdout, stderr)
	}
	return serve(o, stderr)
}

// Version is the version of this program: the linker's, else what the Go tool recorded.
func Version() string {
	if version != "" {
		return version
	}
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	rev, dirty := "", ""
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	switch {
	case bi.Main.Version != "" && bi.Main.Version != "(devel)":
		return bi.Main.Version
	case len(rev) >= 12:
		return "devel-" + rev[:12] + dirty
	}
	return "devel"
}
