package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// verb is one word of the command line that is not a configuration file.
type verb struct {
	name, args, help string
	min, max         int      // positionals
	words            []string // what each positional is, for completion
	hidden           bool     // not for people
	run              func(o *options, stdout, stderr io.Writer) int
}

// verbs is the one table of verbs: parsing, help and completion are made from it.
func verbs() []verb {
	return []verb{
		{name: "status", args: "[NAME]", max: 1, words: []string{wordName}, run: status,
			help: "what every name answers, and how its endpoints are"},
		{name: "explain", args: "NAME [A|AAAA]", min: 1, max: 2, words: []string{wordName, wordType}, run: explain,
			help: "why this answer: every endpoint, kept or dropped and why"},
		{name: "history", args: "NAME[/CANDIDATE]", min: 1, max: 1, words: []string{wordCandidate}, run: history,
			help: "probes, changes and answers of the past; the daemon may be down"},
		{name: "replay", args: "-with NEW.toml [NAME]", max: 1, words: []string{wordName}, run: replay,
			help: "run the stored probes through another configuration"},
		{name: "probe", args: "NAME[/CANDIDATE]", min: 1, max: 1, words: []string{wordCandidate}, run: probe,
			help: "probe now, without consequences; the time each phase took"},
		{name: "set", args: "NAME[/CANDIDATE] STATE", min: 2, max: 2, words: []string{wordCandidate, wordState}, run: set,
			help: "force up, down or drain; auto gives back the file's state"},
		{name: "weight", args: "NAME/CANDIDATE N|N%|auto", min: 2, max: 2, words: []string{wordOnlyCandidate}, run: weight,
			help: "force a weight, or a percentage of the file's"},
		{name: "reload", run: reload,
			help: "read the configuration again; an invalid one changes nothing"},
		{name: "log", args: "LEVEL", min: 1, max: 1, words: []string{wordLevel}, run: logLevel,
			help: "change the log level until the next reload"},
		{name: "stats", run: stats,
			help: "counters of queries, upstreams, probes and history"},
		{name: "demo", run: demo,
			help: "a self-contained run: own candidates, own port, nothing to set up"},
		{name: "completion", args: "bash|zsh|fish", min: 1, max: 1, words: []string{wordShell}, run: completion,
			help: "print the shell's completion script"},
		{name: completeVerb, max: 1 << 10, hidden: true, run: complete},
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

// arity checks the number of positionals.
func (v *verb) arity(args []string) error {
	switch {
	case len(args) < v.min:
		return fmt.Errorf("%s: something is missing: hard %s %s", v.name, v.name, v.args)
	case len(args) > v.max:
		return fmt.Errorf("%s: too much: %s", v.name, strings.Join(args[v.max:], " "))
	}
	return nil
}

// usageWidth is the width of the help, in columns.
const usageWidth = 80

func usage(w io.Writer) {
	fmt.Fprint(w, "hard: a per-host high-availability stub resolver\n\n")
	entry(w, "hard [flags] [CONFIG]", 34, "serve; CONFIG is $HARD_CONFIG or "+defaultConfig+" where not given")
	entry(w, "hard -check [CONFIG]", 34, "validate a configuration and exit")
	for _, v := range verbs() {
		if !v.hidden {
			entry(w, "hard "+v.name+" "+v.args, 34, v.help)
		}
	}
	fmt.Fprint(w, "\nFlags (they may follow what they belong to):\n")
	for _, d := range flagDefs() {
		help := d.help
		if len(d.verbs) > 0 && d.verbs[0] != "" {
			help = strings.Join(d.verbs, ", ") + ": " + help
		}
		entry(w, d.usage(), 20, help)
	}
	fmt.Fprint(w, `
Signals: HUP reloads the configuration, USR1 dumps the state to the log, TERM
and INT stop.
Exit codes: 0 fine, 1 invalid configuration or failure, 2 usage, 3 daemon not
running.
`)
}

// usageOf is the help of one verb.
func usageOf(w io.Writer, v *verb) {
	fmt.Fprintf(w, "hard %s\n  %s\n\n", strings.TrimSpace(v.name+" "+v.args), v.help)
	for _, d := range flagDefs() {
		if len(d.verbs) == 0 || slices.Contains(d.verbs, v.name) {
			entry(w, d.usage(), 20, d.help)
		}
	}
}

// usage is a flag as the help shows it.
func (d *flagDef) usage() string {
	s := "-" + strings.Join(d.names, ", -")
	if d.arg != "" {
		s += " " + d.arg
	}
	return s
}

// entry writes a term and its explanation beside it, or below it where the term is long.
func entry(w io.Writer, term string, indent int, text string) {
	first := "  " + strings.TrimSpace(term)
	if len(first) > indent-2 {
		fmt.Fprintln(w, first)
		first = ""
	}
	for _, line := range wrap(text, usageWidth-indent) {
		fmt.Fprintf(w, "%-*s%s\n", indent, first, line)
		first = ""
	}
}
