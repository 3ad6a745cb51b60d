package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"hard/internal/admin"
)

// Completion: the shells' scripts ask this very program what may follow, so that they can't know
// other verbs and flags than it does, and names come from the daemon that runs.

// completeVerb is what the scripts call: hard __complete -- WORD... with the words behind "hard"
// up to the cursor, the last one perhaps empty. It prints one candidate per line, at last perhaps
// fileMark.
const completeVerb = "__complete"

// fileMark tells the script to complete the names of files.
const fileMark = ":file"

// What a word can be.
const (
	wordName          = "name"
	wordCandidate     = "name[/candidate]"
	wordOnlyCandidate = "name/candidate"
	wordState         = "state"
	wordType          = "type"
	wordLevel         = "level"
	wordShell         = "shell"
	wordFile          = "file"
)

// completeTime bounds how long somebody who pressed a key waits.
var completeTime = 500 * time.Millisecond // tests have more patience

var scripts = map[string]string{
	"bash": `# bash completion for hard: source this file, or install it as
# /usr/share/bash-completion/completions/hard
_hard() {
	local line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n' words
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	local cur=${words[-1]} reply last
	IFS=$'\n' reply=($("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null))
	COMPREPLY=()
	(( ${#reply[@]} )) || return
	last=$((${#reply[@]} - 1))
	if [[ ${reply[last]} == :file ]]; then
		unset "reply[last]"
		(( last )) || compopt -o filenames 2>/dev/null
		IFS=$'\n' COMPREPLY=("${reply[@]}" $(compgen -f -- "$cur"))
		return
	fi
	# readline breaks words at colons, which IPv6 addresses have
	local before=""
	[[ $cur == *:* && $COMP_WORDBREAKS == *:* ]] && before=${cur%"${cur##*:}"}
	COMPREPLY=("${reply[@]#"$before"}")
}
complete -F _hard hard
`,
	"zsh": `#compdef hard
# zsh completion for hard: install this file as _hard in a directory of $fpath
_hard() {
	local -a reply
	reply=(${(f)"$(${words[1]} __complete -- ${(@)words[2,CURRENT]} 2>/dev/null)"})
	compadd -- ${reply:#:file}
	[[ $reply[-1] != :file ]] || _files
}
if [[ $funcstack[1] == _hard ]]; then
	_hard
else
	compdef _hard hard
fi
`,
	"fish": `# fish completion for hard: install this file as
# ~/.config/fish/completions/hard.fish
function __hard_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l reply ($words[1] __complete -- $words[2..-1] 2>/dev/null)
	string match -v :file -- $reply
	if contains -- :file $reply
		__fish_complete_path (commandline -ct)
	end
end
complete -c hard -f -a '(__hard_complete)'
`,
}

// completion is hard completion SHELL.
func completion(o *options, stdout, stderr io.Writer) int {
	s, ok := scripts[o.args[0]]
	if !ok {
		fmt.Fprintf(stderr, "hard: completion: bash, zsh or fish, not %q\n", o.args[0])
		return exitUsage
	}
	if _, err := io.WriteString(stdout, s); err != nil {
		return exitFailed
	}
	return exitOK
}

// complete is hard __complete. It never fails: at worst there is nothing to offer.
func complete(o *options, stdout, _ io.Writer) int {
	if len(o.args) == 0 {
		return exitOK
	}
	last := o.args[len(o.args)-1]
	for _, c := range offers(o.args[:len(o.args)-1], last) {
		if c == fileMark || strings.HasPrefix(c, last) {
			fmt.Fprintln(stdout, c)
		}
	}
	return exitOK
}

// offers are the words that may stand behind done, where the next one begins with begun.
func offers(done []string, begun string) []string {
	line, rest, awaits := scan(done)
	switch {
	case awaits != nil:
		return values(line, awaits.words, begun)
	case strings.HasPrefix(begun, "-"):
		return flagsFor(line.verb)
	case line.verb == "" && len(rest) == 0:
		return append(verbNames(), fileMark)
	case line.verb == "":
		return nil
	}
	v := findVerb(line.verb)
	if v == nil || len(rest) >= len(v.words) {
		return nil
	}
	return values(line, v.words[len(rest)], begun)
}

// scan reads the words so far as parse would, forgiving what is not finished: the options that
// matter here, the positionals, and the flag whose value comes next.
func scan(done []string) (o *options, rest []string, awaits *flagDef) {
	o = new(options)
	for i := 0; i < len(done); i++ {
		w := done[i]
		if !strings.HasPrefix(w, "-") || w == "-" {
			if o.verb == "" && len(rest) == 0 && findVerb(w) != nil {
				o.verb = w
				continue
			}
			rest = append(rest, w)
			continue
		}
		name, value, given := strings.Cut(strings.TrimLeft(w, "-"), "=")
		d := findFlag(name)
		if d == nil || d.arg == "" {
			continue
		}
		if !given {
			if i++; i == len(done) {
				return o, rest, d
			}
			value = done[i]
		}
		if to, ok := d.to(o).(*string); ok {
			*to = value
		}
	}
	return o, rest, nil
}

func findFlag(name string) *flagDef {
	for _, d := range flagDefs() {
		if slices.Contains(d.names, name) {
			return &d
		}
	}
	return nil
}

func flagsFor(verb string) []string {
	var out []string
	for _, d := range flagDefs() {
		if len(d.verbs) == 0 || slices.Contains(d.verbs, verb) {
			for _, n := range d.names {
				out = append(out, "-"+n)
			}
		}
	}
	return out
}

func verbNames() []string {
	var out []string
	for _, v := range verbs() {
		if !v.hidden {
			out = append(out, v.name)
		}
	}
	return out
}

// values are the words of one kind.
func values(o *options, kind, begun string) []string {
	switch kind {
	case wordFile:
		return []string{fileMark}
	case wordState:
		return []string{"up", "down", "drain", "auto"}
	case wordType:
		return []string{"A", "AAAA"}
	case wordLevel:
		return []string{"trace", "debug", "info", "warn", "error"}
	case wordShell:
		return []string{"bash", "zsh", "fish"}
	case wordName, wordCandidate, wordOnlyCandidate:
		return names(o, kind, begun)
	}
	return nil
}

// names asks the daemon for names and candidates; a name's candidates only once it is written.
func names(o *options, kind, begun string) []string {
	c, err := newClient(o)
	if err != nil {
		return nil
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	var s admin.Status
	if c.call(ctx, "GET", "/v1/status", nil, &s) != nil {
		return nil
	}
	var out []string
	for i := range s.Names {
		n := &s.Names[i]
		if kind != wordOnlyCandidate {
			out = append(out, n.Name)
		}
		if kind == wordName || kind == wordCandidate && !strings.HasPrefix(begun, n.Name) {
			continue
		}
		for j := range n.Endpoints {
			if w := n.Name + "/" + n.Endpoints[j].Candidate; !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}
