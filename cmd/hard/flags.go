package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"hard/internal/admin"
	"hard/internal/config"
)

// defaultConfig is read where neither the command line nor $HARD_CONFIG names a file.
const defaultConfig = "/etc/har.toml"

// options is the parsed command line.
type options struct {
	verb string   // "" = serve
	args []string // positionals behind the verb

	check, strict, json bool
	config              string
	bind                string
	port                int
	level               string
	socket              string
	cold                bool
	takeover            bool
	user                string
	help, version       bool
	verbose             bool

	once  bool   // demo
	watch bool   // status
	trace bool   // probe
	at    string // explain
	since string // history, replay
	plot  bool   // history
	csv   bool   // history
	with  string // replay
	why   string // set, weight
	force bool   // set, weight
	until string // set, weight: -for, as written

	holds time.Duration // -for; 0: until taken back
}

// flagDef is one flag: flagDefs is the one table that parsing, help and completion are made from.
type flagDef struct {
	names []string // without the dash; the first is the one that others are told of
	arg   string   // the word for its value; "" = a switch
	help  string
	verbs []string // it goes with these alone; none: it goes with serving and with every verb
	to    func(o *options) any
	words string // what its value is, for completion
}

func flagDefs() []flagDef {
	return []flagDef{
		{names: []string{"c", "config"}, arg: "FILE", help: "the configuration", to: func(o *options) any { return &o.config }, words: wordFile},
		{names: []string{"check", "t"}, help: "validate the configuration and exit: 0 good, 1 not", verbs: serving, to: func(o *options) any { return &o.check }},
		{names: []string{"strict"}, help: "with -check: warnings fail, too", verbs: serving, to: func(o *options) any { return &o.strict }},
		{names: []string{"json"}, help: "machine-readable output", to: func(o *options) any { return &o.json }},
		{names: []string{"b"}, arg: "ADDR[,ADDR]", help: "listen for DNS there (ports are kept, unless given)", verbs: serving, to: func(o *options) any { return &o.bind }},
		{names: []string{"p"}, arg: "PORT", help: "listen for DNS on that port (addresses are kept)", verbs: serving, to: func(o *options) any { return &o.port }},
		{names: []string{"l"}, arg: "LEVEL", help: "trace, debug, info, warn or error; LOG_LEVEL in the environment says the same, this flag wins", verbs: serving, to: func(o *options) any { return &o.level }, words: wordLevel},
		{names: []string{"v"}, help: "the same as -l debug", verbs: serving, to: func(o *options) any { return &o.verbose }},
		{names: []string{"s"}, arg: "SOCKET", help: "the control socket; [listen].control of the configuration otherwise", to: func(o *options) any { return &o.socket }, words: wordFile},
		{names: []string{"cold"}, help: "ignore the state that the last run stored, but for overrides", verbs: serving, to: func(o *options) any { return &o.cold }},
		{names: []string{"takeover"}, help: "serve in place of the running instance, which is found by its control socket, and lose no query", verbs: serving, to: func(o *options) any { return &o.takeover }},
		{names: []string{"user"}, arg: "USER", help: "started by root: the user to become once the ports are bound, NAME or UID, or with :GROUP; hard where there is such a user; root stays root", verbs: serving, to: func(o *options) any { return &o.user }},
		{names: []string{"once"}, help: "tell the story once, check it, exit 0 or 1", verbs: []string{"demo"}, to: func(o *options) any { return &o.once }},
		{names: []string{"watch"}, help: "again every second, in place, until interrupted", verbs: []string{"status"}, to: func(o *options) any { return &o.watch }},
		{names: []string{"trace"}, help: "show what was sent and received", verbs: []string{"probe"}, to: func(o *options) any { return &o.trace }},
		{names: []string{"at"}, arg: "TIME", help: "explain the past: RFC 3339, local YYYY-MM-DD HH:MM, or 15m (ago); the daemon may be down", verbs: []string{"explain"}, to: func(o *options) any { return &o.at }},
		{names: []string{"since"}, arg: "TIME", help: "from then on, written like -at's; 1h (history) or 24h (replay) where not given", verbs: []string{"history", "replay"}, to: func(o *options) any { return &o.since }},
		{names: []string{"plot"}, help: "draw latency and state over time", verbs: []string{"history"}, to: func(o *options) any { return &o.plot }},
		{names: []string{"csv"}, help: "every probe as comma-separated values", verbs: []string{"history"}, to: func(o *options) any { return &o.csv }},
		{names: []string{"with"}, arg: "NEW.toml", help: "the other configuration", verbs: []string{"replay"}, to: func(o *options) any { return &o.with }, words: wordFile},
		{names: []string{"for"}, arg: "DURATION", help: "how long it holds: 90s, 30m, 12h, 2d; without it until taken back", verbs: []string{"set", "weight"}, to: func(o *options) any { return &o.until }},
		{names: []string{"why"}, arg: "TEXT", help: "the reason, for status and history", verbs: []string{"set", "weight"}, to: func(o *options) any { return &o.why }},
		{names: []string{"force"}, help: "even if no healthy endpoint is left", verbs: []string{"set", "weight"}, to: func(o *options) any { return &o.force }},
		{names: []string{"V", "version"}, help: "print the version", verbs: serving, to: func(o *options) any { return &o.version }},
	}
}

// serving marks the flags of hard without a verb. They are let through with a verb: -l debug may
// stand in somebody's alias.
var serving = []string{""}

// parse reads the command line. Flags and positionals may be mixed; the first positional that
// equals a verb is the verb.
func parse(args []string) (*options, error) {
	o, err := parseArguments(args)
	if err != nil {
		return o, printable{err}
	}
	return o, nil
}

// printable is an error whose text quotes what the user typed: control characters
// are shown as escapes, so that none reaches a terminal or forges a second line.
type printable struct{ error }

func (p printable) Error() string {
	var b strings.Builder
	for _, r := range p.error.Error() {
		if unicode.IsPrint(r) || r == '\n' {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

func (p printable) Unwrap() error { return p.error }

func parseArguments(args []string) (*options, error) {
	o := &options{port: -1}
	fs := flag.NewFlagSet("hard", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	defs := flagDefs()
	for _, d := range defs {
		for _, n := range d.names {
			switch to := d.to(o).(type) {
			case *bool:
				fs.BoolVar(to, n, *to, "")
			case *int:
				fs.IntVar(to, n, *to, "")
			case *string:
				fs.StringVar(to, n, *to, "")
			}
		}
	}
	rest, err := mixed(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		o.help, err = true, nil
	}
	if err != nil {
		return nil, err
	}
	if o.verbose && o.level == "" {
		o.level = "debug"
	}
	if len(rest) > 0 && findVerb(rest[0]) != nil {
		o.verb, rest = rest[0], rest[1:]
	}
	o.args = rest
	if o.help {
		return o, nil
	}
	fs.Visit(func(f *flag.Flag) {
		if err == nil {
			err = o.belongs(f.Name, defs)
		}
	})
	if err != nil {
		return nil, err
	}
	return o, o.validate()
}

// mixed parses flags among positionals, which it returns, -- included as the end of flags.
func mixed(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 {
		before := len(args)
		if err := fs.Parse(args); err != nil {
			return rest, err
		}
		ended := before > fs.NArg() && args[before-fs.NArg()-1] == "--"
		if args = fs.Args(); ended {
			return append(rest, args...), nil
		}
		if len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	return rest, nil
}

// belongs tells whether a flag goes with the verb.
func (o *options) belongs(name string, defs []flagDef) error {
	for _, d := range defs {
		if !slices.Contains(d.names, name) || len(d.verbs) == 0 || d.verbs[0] == "" || slices.Contains(d.verbs, o.verb) {
			continue
		}
		return fmt.Errorf("-%s goes with %s", name, strings.Join(d.verbs, " and "))
	}
	return nil
}

// validate finds what the command line alone can get wrong.
func (o *options) validate() error {
	if err := o.combined(); err != nil {
		return err
	}
	if err := o.valued(); err != nil {
		return err
	}
	if v := findVerb(o.verb); v != nil {
		return v.arity(o.args)
	}
	return o.oneFile()
}

// combined finds flags that don't go together, or not with the verb.
func (o *options) combined() error {
	switch {
	case o.check && o.verb != "":
		return fmt.Errorf("-check goes with no verb, and %s is one; a configuration of that name is ./%s", o.verb, o.verb)
	case o.strict && !o.check:
		return errors.New("-strict goes with -check")
	case o.json && !o.check && o.verb == "":
		return errors.New("-json goes with -check and with verbs")
	case o.verb == "replay" && o.with == "":
		return errors.New("replay: -with NEW.toml is missing: the configuration to try on the past")
	case o.csv && (o.json || o.plot) || o.json && o.plot:
		return errors.New("history: one of -json, -csv and -plot")
	}
	return nil
}

// valued finds flags whose value is none, and reads -for.
func (o *options) valued() (err error) {
	if o.level != "" {
		if _, err := config.ParseLevel(o.level); err != nil {
			return fmt.Errorf("-l: %w", err)
		}
	}
	if o.port != -1 && (o.port < 0 || o.port > 65535) {
		return fmt.Errorf("-p: %d is not a port", o.port)
	}
	if o.bind != "" {
		if _, err := bindAddrs(o.bind, nil); err != nil {
			return err
		}
	}
	if o.holds, err = admin.ParseFor(o.until); err != nil {
		return fmt.Errorf("-for: %w", err)
	}
	return nil
}

// oneFile finds what is wrong with the configuration files that are named.
func (o *options) oneFile() error {
	switch {
	case len(o.args) > 1:
		return fmt.Errorf("one configuration file, not %d: %s", len(o.args), strings.Join(o.args, " "))
	case len(o.args) == 1 && o.args[0] == "":
		return errors.New("the name of the configuration file is empty: an unset variable, perhaps?")
	case len(o.args) == 1 && o.config != "" && o.args[0] != o.config:
		return fmt.Errorf("two configuration files: %s and %s", o.config, o.args[0])
	}
	return nil
}

// file is the configuration file to read.
func (o *options) file() string {
	switch {
	case o.config != "":
		return o.config
	case o.verb == "" && len(o.args) == 1:
		return o.args[0]
	}
	if f := os.Getenv("HARD_CONFIG"); f != "" {
		return f
	}
	return defaultConfig
}

// noVerb tells somebody whose configuration does not exist that its name is no verb either; "" where
// that is not what happened.
func (o *options) noVerb() string {
	if o.verb != "" || len(o.args) != 1 || strings.ContainsAny(o.args[0], "./") {
		return ""
	}
	if _, err := os.Stat(o.args[0]); !errors.Is(err, os.ErrNotExist) {
		return ""
	}
	var names []string
	for _, v := range verbs() {
		if !v.hidden {
			names = append(names, v.name)
		}
	}
	if near := config.Nearest(o.args[0], names); near != "" {
		return fmt.Sprintf("hard: %s is neither a file nor a verb (did you mean %q?)", config.Visible(o.args[0]), near)
	}
	return fmt.Sprintf("hard: %s is neither a file nor a verb. Run \"hard -h\" for help.", config.Visible(o.args[0]))
}
