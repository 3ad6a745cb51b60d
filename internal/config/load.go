package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"hard/internal/rank"
)

// Load reads and checks a configuration file. The report holds everything there is to say about it;
// the Config is nil if any of that is an error. Load changes nothing and uses no network: besides the
// file it reads the certificates that the file names, and looks at the permissions of the paths in it.
func Load(file string) (*Config, Report) {
	text, err := readConfig(file)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // the path is in front already
		}
		r := Report{File: file, Problems: []Problem{{Message: "cannot be read: " + err.Error()}}}
		return nil, r
	}
	return parse(file, text, &realHost{config: file})
}

// Parse checks the text of a configuration; name is what messages call it. It is pure: files
// named in the text are not looked at, so that checks with a ca_file have another Fingerprint than
// from Load.
func Parse(name string, data []byte) (*Config, Report) {
	return parse(name, string(data), nil)
}

func parse(file, whole string, host fileSystem) (*Config, Report) {
	hash := make(chan string, 1)
	go func() { hash <- hashOf(whole) }() // beside the rest: it takes a twentieth of the time
	text := stripBOM(whole)
	tree, meta, order, syntax := decodeParts(text)
	if syntax != nil {
		return nil, Report{File: file, Problems: []Problem{*syntax}}
	}
	l := newLoader(host, meta)
	l.order = order
	c := l.config(tree)
	c.File = strings.Clone(file)
	c.Hash, c.Text = <-hash, whole
	report := Report{File: c.File}
	if len(l.problems) > 0 {
		report.Problems = locate(text, l.problems)
	}
	if l.errors > 0 {
		return nil, report
	}
	return c, report
}

// hashOf is Config.Hash of a text.
func hashOf(text string) string {
	h := sha256.New()
	var piece [8 << 10]byte // a text of thousands of names is not copied as a whole
	for len(text) > 0 {
		n := copy(piece[:], text)
		h.Write(piece[:n])
		text = text[n:]
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// loader turns the decoded tree into a Config, collecting problems. It lives for one parse.
type loader struct {
	meta     toml.MetaData
	order    []plainSection // the names in file order; nil: as in meta
	host     fileSystem     // nil: no file may be looked at
	problems []found
	told     map[string]bool // problems already there, so that an inherited one is told once
	errors   int
	text     arena
	policies map[rank.Policy]*rank.Policy
	paces    map[rank.Pace]*rank.Pace
	checks   checkBuilder
	defaults inherited
	names    map[string]string // canonical name -> the key as written
	slabs    slabs
}

func newLoader(host fileSystem, meta toml.MetaData) *loader {
	l := &loader{
		host: host, meta: meta, told: map[string]bool{},
		policies: map[rank.Policy]*rank.Policy{}, paces: map[rank.Pace]*rank.Pace{},
	}
	l.checks = checkBuilder{l: l, equal: map[string]*Check{}, caSums: map[string]uint64{}}
	return l
}

// errorf adds an error about the key at path and returns it for a hint.
func (l *loader) errorf(path []string, format string, args ...any) *found {
	return l.add(found{severity: Error, path: path, message: fmt.Sprintf(format, args...)})
}

// warnf adds a warning.
func (l *loader) warnf(path []string, format string, args ...any) *found {
	return l.add(found{severity: Warning, path: path, message: fmt.Sprintf(format, args...)})
}

func (l *loader) add(f found) *found {
	if f.severity == Error {
		l.errors++
	}
	id := pathKey(f.path) + "\x00\x00" + f.message
	if l.told[id] {
		return &f
	}
	l.told[id] = true
	f.path = slices.Clone(f.path)
	l.problems = append(l.problems, f)
	return &l.problems[len(l.problems)-1]
}

// suggest adds what was probably meant.
func (f *found) suggest(hint string) *found {
	f.hint = hint
	return f
}

// report adds the issues of one value, if any.
func (l *loader) report(path []string, issues *issue) {
	for i := issues; i != nil; i = i.next {
		l.errorf(path, "%s", i.message).suggest(i.hint)
	}
}

// join appends one key to a path, without sharing.
func join(path []string, key string) []string {
	return append(path[:len(path):len(path)], key)
}

// readTable reads the keys of one table into a T and reports the ones it does not know.
func readTable[T any](l *loader, path []string, table map[string]any, keys *keyTable[T], into *T) {
	for name, v := range table {
		if n, ok := keys.index[name]; ok {
			if i := keys.keys[n].set(v, into); i != nil {
				l.report(join(path, name), i)
			}
		} else if !slices.Contains(keys.subs, name) {
			l.unknown(join(path, name), keys.names(), keys.where)
		}
	}
}

// unknown reports a key that nobody reads.
func (l *loader) unknown(path, known []string, where string) {
	key := path[len(path)-1]
	switch elsewhere := homes[key]; {
	case oldKeys[key] != "":
		l.errorf(path, "unknown key: har's %s is now %s", key, oldKeys[key])
	case where == listenKeys.where && (key == "port" || key == "address"):
		l.errorf(path, "unknown key: addresses and ports stand together, in dns and http, as IP:port")
	case nearest(key, known) != "":
		what := "unknown key"
		if where == "" {
			what = "unknown table or key"
		}
		l.errorf(path, "%s", what).suggest(nearest(key, known))
	case elsewhere != "":
		l.errorf(path, "unknown key here: it belongs in %s", elsewhere)
	case where == "":
		l.errorf(path, "unknown table or key")
	default:
		l.errorf(path, "unknown key in %s", where)
	}
}

// homes tells for every key which table it belongs in.
var homes = func() map[string]string {
	m := map[string]string{}
	put := func(where string, names []string) {
		for _, n := range names {
			if m[n] == "" {
				m[n] = where
			}
		}
	}
	put(nameKeys.where, nameKeys.names())
	put(candidateKeys.where, candidateKeys.names())
	put("the table form of check", checkKeys.names())
	put(listenKeys.where, listenKeys.names())
	put(upstreamKeys.where, upstreamKeys.names())
	put(cacheKeys.where, cacheKeys.names())
	put(storeKeys.where, storeKeys.names())
	put(logKeys.where, logKeys.names())
	put(hooksKeys.where, hooksKeys.names())
	return m
}()

// subtable returns the table at key, or nil; anything else there is an error.
func (l *loader) subtable(path []string, v any) map[string]any {
	table, ok := v.(map[string]any)
	if !ok {
		if _, many := v.([]map[string]any); many {
			l.errorf(path, "want one table, in single brackets, not an array of tables")
		} else {
			l.errorf(path, "want a table, not %s", describe(v))
		}
		return nil
	}
	// The library lets x = 1 behind x.y = 2 pass, and forgets it.
	if t := l.meta.Type(path...); t != "" && t != "Hash" {
		l.errorf(path, "is there twice, as a table and as a value")
	}
	return table
}

// section reads one of the tables that stand alone, with its defaults.
func section[T any](l *loader, tree map[string]any, name string, keys *keyTable[T]) T {
	v := keys.defaults()
	if t, ok := tree[name]; ok {
		path := []string{name}
		if table := l.subtable(path, t); table != nil {
			readTable(l, path, table, keys, &v)
		}
	}
	return v
}

// config reads the whole tree.
func (l *loader) config(tree map[string]any) *Config {
	for name := range tree {
		if !slices.Contains(topNames, name) {
			l.unknown([]string{name}, topNames, "")
		}
	}
	c := &Config{
		Listen:   section(l, tree, "listen", listenKeys),
		Upstream: section(l, tree, "upstream", upstreamKeys),
		Cache:    section(l, tree, "cache", cacheKeys),
		Store:    section(l, tree, "store", storeKeys),
		Log:      section(l, tree, "log", logKeys),
		Hooks:    section(l, tree, "hooks", hooksKeys),
	}
	l.listenProblems(c)
	l.upstreamProblems(c)
	c.Routes = l.routes(tree["route"], c.Listen.DNS)
	l.hostProblems(c)
	l.readDefaults(tree["defaults"])
	if t, ok := tree["name"].(map[string]any); len(l.order) == 0 && (tree["name"] == nil || ok && len(t) == 0) {
		l.errorf(nil, "no names: a file has at least one [name.\"...\"] with candidates")
	}
	c.Names = l.readNames(tree["name"])
	return c
}

// routes reads [route], longest suffix first. listen is what no server may be.
func (l *loader) routes(v any, listen []netip.AddrPort) []Route {
	if v == nil {
		return nil
	}
	table := l.subtable([]string{"route"}, v)
	routes := make([]Route, 0, len(table))
	first := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(table)) {
		path := []string{"route", key}
		t := l.subtable(path, table[key])
		if t == nil {
			continue
		}
		var r Route
		readTable(l, path, t, routeKeys, &r)
		if _, ok := t["servers"]; !ok {
			l.errorf(path, "servers is missing")
		}
		l.selfProblems(join(path, "servers"), r.Servers, listen)
		suffix, i := routeSuffix(key)
		l.report(path, i)
		if i != nil {
			continue
		}
		if other, ok := first[suffix]; ok {
			l.duplicate([]string{"route", other}, path, "the suffix "+strconv.Quote(suffix))
			continue
		}
		first[suffix] = key
		if special(suffix) != nil {
			l.warnf(path, "queries for %s are answered here and never forwarded", strconv.Quote(suffix))
		}
		r.Suffix = strings.Clone(suffix)
		routes = append(routes, r)
	}
	slices.SortFunc(routes, func(a, b Route) int {
		if d := len(b.Suffix) - len(a.Suffix); d != 0 {
			return d
		}
		return strings.Compare(a.Suffix, b.Suffix)
	})
	return routes
}

// duplicate reports that two keys mean the same thing. Which one is the second is settled
// when their places are known.
func (l *loader) duplicate(first, second []string, what string) {
	l.add(found{severity: Error, path: second, first: first, message: what + " is there twice, first on {line}"})
}

// listenProblems are about how the listeners go together.
func (l *loader) listenProblems(c *Config) {
	path := []string{"listen", "dns"}
	for _, a := range c.Listen.DNS {
		if a.IsValid() && !a.Addr().IsLoopback() {
			l.warnf(path, "%s is not a loopback address: other hosts can ask us, and use us to flood third parties", a)
		}
	}
	http, err := netip.ParseAddrPort(c.Listen.HTTP)
	if err != nil {
		return
	}
	path = []string{"listen", "http"}
	if !http.Addr().IsLoopback() {
		l.warnf(path, "%s is not a loopback address: the status page and the metrics can be read by other hosts", http)
	}
	if http.Port() != 0 && slices.Contains(c.Listen.DNS, http) {
		l.errorf(path, "%s is a DNS listener too, and both need its TCP port", http)
	}
}

// selfProblems are servers that are ourselves.
func (l *loader) selfProblems(path []string, servers []Server, listen []netip.AddrPort) {
	for _, s := range servers {
		if reaches(listen, s.Addr) {
			l.errorf(path, "%s is one of our own listeners: every query would come back", strconv.Quote(s.Text))
		}
	}
}

// glibcTimeout is how long a program waits for us (resolv.conf(5), RES_TIMEOUT).
const glibcTimeout = 5 * time.Second

// upstreamProblems are about how upstreams and listeners go together.
func (l *loader) upstreamProblems(c *Config) {
	l.selfProblems([]string{"upstream", "servers"}, c.Upstream.Servers, c.Listen.DNS)
	if u := c.Upstream; u.AttemptTimeout > u.TotalTimeout {
		l.warnf([]string{"upstream", "attempt_timeout"}, "%s is above total_timeout = %s: no second server is ever tried",
			durationText(u.AttemptTimeout), durationText(u.TotalTimeout))
	} else if u.TotalTimeout > glibcTimeout {
		l.warnf([]string{"upstream", "total_timeout"}, "%s is longer than glibc waits (5s): programs give up before we answer",
			durationText(u.TotalTimeout))
	}
}
