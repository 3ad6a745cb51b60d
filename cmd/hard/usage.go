package main

import (
	"fmt"
	"io"
)

// verb is one word of the command line that is not a configuration file.
type verb struct {
	name, args, help string
	run              func(o *options, stdout, stderr io.Writer) int
}

// verbs is the one table of verbs: parsing and help are made from it.
func verbs() []verb {
	return []verb{
		{"demo", "[-once]", "a self-contained run: own candidates, own port, nothing to set up", demo},
	}
}

// findVerb returns the verb of that name, or nil.
func findVerb(name string) *verb {
	for _, v := range verbs() {
		if v.name == name {
			return &v
		}
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprint(w, `hard: a per-host high-availability stub resolver

  hard [flags] [CONFIG]     serve; CONFIG is $HARD_CONFIG or `+defaultConfig+` where not given
  hard -check [CONFIG]      validate a configuration and exit
`)
	for _, v := range verbs() {
		fmt.Fprintf(w, "  hard %-20s %s\n", v.name+" "+v.args, v.help)
	}
	fmt.Fprint(w, `
Flags (they may follow what they belong to):
  -config, -c FILE   the configuration
  -check, -t         validate the configuration and exit: 0 good, 1 not
  -strict            with -check: warnings fail, too
  -json              machine-readable output
  -b ADDR[,ADDR]     listen for DNS there (ports are kept, unless given)
  -p PORT            listen for DNS on that port (addresses are kept)
  -l LEVEL           trace, debug, info, warn or error; LOG_LEVEL in the environment
                     says the same, this flag wins
  -v                 the same as -l debug
  -s SOCKET          the control socket
  -cold              ignore the state that the last run stored
  -once              with demo: tell the story once, check it, exit 0 or 1
  -V, -version       print the version

Signals: HUP reloads the configuration, USR1 dumps the state to the log, TERM and INT stop.
Exit codes: 0 fine, 1 invalid configuration or failure, 2 usage, 3 daemon not running.
`)
}
