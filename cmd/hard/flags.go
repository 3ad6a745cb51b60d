package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

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
	help, version       bool
	once                bool // demo
}

// parse reads the command line. Flags and positionals may be mixed; the first positional that
// equals a verb is the verb.
func parse(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("hard", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&o.check, "check", false, "")
	fs.BoolVar(&o.check, "t", false, "")
	fs.BoolVar(&o.strict, "strict", false, "")
	fs.BoolVar(&o.json, "json", false, "")
	fs.StringVar(&o.config, "config", "", "")
	fs.StringVar(&o.config, "c", "", "")
	fs.StringVar(&o.bind, "b", "", "")
	fs.IntVar(&o.port, "p", -1, "")
	fs.StringVar(&o.level, "l", "", "")
	fs.StringVar(&o.socket, "s", "", "")
	fs.BoolVar(&o.cold, "cold", false, "")
	verbose := fs.Bool("v", false, "")
	fs.BoolVar(&o.version, "V", false, "")
	fs.BoolVar(&o.version, "version", false, "")
	fs.BoolVar(&o.once, "once", false, "")

	var rest []string
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				o.help = true
				return o, nil
			}
			return nil, err
		}
		if args = fs.Args(); len(args) > 0 {
			rest, args = append(rest, args[0]), args[1:]
		}
	}
	if *verbose && o.level == "" {
		o.level = "debug"
	}
	if len(rest) > 0 && !o.check && (findVerb(rest[0]) != nil || slices.Contains(laterVerbs, rest[0])) {
		o.verb, rest = rest[0], rest[1:]
	}
	o.args = rest
	return o, o.validate()
}

// laterVerbs are the contract's verbs that this version does not have. Their names are kept, so
// that none of them is ever taken for a configuration file.
var laterVerbs = []string{"status", "explain", "history", "probe", "set", "weight", "replay", "reload", "log", "stats"}

// validate finds what the flags alone can get wrong.
func (o *options) validate() error {
	if slices.Contains(laterVerbs, o.verb) {
		return fmt.Errorf("%s: this version does not have this verb yet", o.verb)
	}
	if o.once && o.verb != "demo" {
		return errors.New("-once goes with demo")
	}
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
	if o.verb == "" {
		if len(o.args) > 1 {
			return fmt.Errorf("one configuration file, not %d: %s", len(o.args), strings.Join(o.args, " "))
		}
		if len(o.args) == 1 && o.config != "" && o.args[0] != o.config {
			return fmt.Errorf("two configuration files: %s and %s", o.config, o.args[0])
		}
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

// override applies -b, -p and -s to what the file says.
func (o *options) override(c *config.Config) error {
	if o.bind != "" {
		addrs, err := bindAddrs(o.bind, c.Listen.DNS)
		if err != nil {
			return err
		}
		c.Listen.DNS = addrs
	}
	if o.port != -1 {
		out := make([]netip.AddrPort, 0, len(c.Listen.DNS))
		for _, a := range c.Listen.DNS {
			if a = netip.AddrPortFrom(a.Addr(), uint16(o.port)); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
		c.Listen.DNS = out
	}
	if o.socket != "" {
		c.Listen.Control = o.socket
	}
	return nil
}

// bindAddrs reads -b: addresses, comma-separated, each with or without a port. One without a
// port keeps the ports of the file.
func bindAddrs(text string, file []netip.AddrPort) ([]netip.AddrPort, error) {
	var ports []uint16
	for _, a := range file {
		if !slices.Contains(ports, a.Port()) {
			ports = append(ports, a.Port())
		}
	}
	if len(ports) == 0 {
		ports = []uint16{53}
	}
	var out []netip.AddrPort
	for t := range strings.SplitSeq(text, ",") {
		t = strings.TrimSpace(t)
		if ap, err := netip.ParseAddrPort(t); err == nil {
			out = append(out, ap)
			continue
		}
		a, err := netip.ParseAddr(strings.Trim(t, "[]"))
		if err != nil {
			return nil, fmt.Errorf("-b: %s is not an IP address", strconv.Quote(t))
		}
		for _, p := range ports {
			out = append(out, netip.AddrPortFrom(a, p))
		}
	}
	return out, nil
}
