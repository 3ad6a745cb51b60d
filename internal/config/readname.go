package config

import (
	"slices"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"hard/internal/rank"
)

// inherited is what a name starts from.
type inherited struct {
	options options
	check   checkOptions
	scope   scope
	policy  *rank.Policy
	pace    *rank.Pace
	shared  *Check // the check of every name that says nothing of its own; nil = depends on the name
}

// readDefaults reads [defaults].
func (l *loader) readDefaults(v any) {
	d := &l.defaults
	d.options, d.check = nameKeys.defaults(), checkKeys.defaults()
	path := []string{"defaults"}
	if v != nil {
		if table := l.subtable(path, v); table != nil {
			l.readOptions(path, table, &d.options)
			for _, key := range []string{"candidates", "candidate"} {
				if _, ok := table[key]; ok {
					l.errorf(join(path, key), "candidates belong to a name, they have no default")
				}
			}
			if check, ok := table["check"]; ok {
				l.checks.read(inDefaults, join(path, "check"), check, &d.check, &d.scope)
			}
		}
	}
	d.policy, d.pace = l.share(d.options)
	if d.check.from[urlKey] != builtIn && !d.check.dependsOnName() && !d.check.lacksPort() {
		d.shared = l.checks.build(&d.check, &d.scope, "", path)
	}
}

// readOptions reads the options of [defaults] or of a name over what o holds, and warns of what does
// not go together, where at least one of it was written in this table.
func (l *loader) readOptions(path []string, table map[string]any, o *options) {
	readTable(l, path, table, nameKeys, o)
	has := func(key string) bool { _, ok := table[key]; return ok }
	p := &o.pace
	above := func(keyA, keyB string, a, b time.Duration, what string) {
		key := keyA
		if !has(keyA) {
			key = keyB
		}
		if a > b && (has(keyA) || has(keyB)) {
			l.warnf(join(path, key), "%s = %s is above %s = %s: %s", keyA, durationText(a), keyB, durationText(b), what)
		}
	}
	above("timeout", "interval", p.Timeout, p.Interval, "probes of one endpoint never overlap, so a slow one delays the next")
	if has("fast_interval") {
		above("fast_interval", "interval", p.FastInterval, p.Interval, "interval is used")
	}
	if has("backoff_max") {
		above("interval", "backoff_max", p.Interval, p.BackoffMax, "there is no back-off")
	}
	if o.idleAfter > 0 {
		above("interval", "idle_interval", p.Interval, p.IdleInterval, "an idle name is probed more often than a busy one")
	}
}

// share returns the shared policy and pace of a name with the options o. fast_interval never slows a
// verdict down, nor does back-off quicken a probe: a name that sets interval alone need not know them.
func (l *loader) share(o options) (*rank.Policy, *rank.Pace) {
	o.pace.FastInterval = min(o.pace.FastInterval, o.pace.Interval)
	o.pace.BackoffMax = max(o.pace.BackoffMax, o.pace.Interval)
	policy, ok := l.policies[o.policy]
	if !ok {
		p := o.policy
		policy = &p
		l.policies[p] = policy
	}
	pace, ok := l.paces[o.pace]
	if !ok {
		p := o.pace
		pace = &p
		l.paces[p] = pace
	}
	return policy, pace
}

// readNames reads [name] in file order.
func (l *loader) readNames(v any) []Name {
	if v == nil && len(l.order) == 0 {
		return nil
	}
	var table map[string]any
	if v != nil {
		table = l.subtable([]string{"name"}, v)
	}
	keys := l.meta.Keys()
	labels := map[string][]string{} // of candidates that have tables, in file order
	for _, k := range keys {
		if len(k) >= 4 && k[0] == "name" && k[2] == "candidate" {
			labels[k[1]] = append(labels[k[1]], k[3])
		}
	}
	order := l.order
	if order == nil {
		order = namesOf(keys, table)
	}
	names := make([]Name, 0, len(order))
	l.names = make(map[string]string, len(order))
	path := [2]string{"name"}
	plain, list := map[string]any{}, []string(nil) // used again and again
	for i := range order {
		s := &order[i]
		path[1] = s.name
		names = append(names, Name{})
		n := &names[len(names)-1]
		if s.rest {
			if t := l.subtable(path[:], table[s.name]); t != nil {
				l.readName(n, path[:], t, nil, labels[s.name])
			} else {
				names = names[:len(names)-1]
			}
			continue
		}
		var only bool
		if list, only = s.onlyList("candidates", list); only && len(list) > 0 {
			l.readName(n, path[:], nil, list, nil)
			continue
		}
		clear(plain)
		s.read(plain)
		l.readName(n, path[:], plain, nil, nil)
	}
	return names
}

// namesOf lists the names in table in file order, which only the list of keys knows.
func namesOf(keys []toml.Key, table map[string]any) []plainSection {
	order := make([]plainSection, 0, len(table))
	seen := make(map[string]bool, len(table))
	for _, k := range keys {
		if len(k) < 2 || k[0] != "name" || seen[k[1]] {
			continue
		}
		seen[k[1]] = true
		if _, ok := table[k[1]]; ok {
			order = append(order, plainSection{name: k[1], rest: true})
		}
	}
	return order
}

// readName reads one name into n: its table, or, where that has nothing but candidates, their list. path and list are
// valid only during the call.
func (l *loader) readName(n *Name, path []string, table map[string]any, list, labels []string) {
	canonical, i := canonicalName(path[1])
	if i != nil {
		l.report(path, i)
		canonical = "name.example" // stands in, so that the rest is checked too
	} else if first, ok := l.names[canonical]; ok {
		l.duplicate([]string{"name", first}, slices.Clone(path), "the name "+strconv.Quote(canonical))
	} else {
		canonical = l.text.keep(canonical)
		l.names[canonical] = path[1]
	}
	base := &l.defaults
	before := l.errors
	*n = Name{Name: canonical, Policy: base.policy, Pace: base.pace}
	own := base
	_, hasCheck := table["check"]
	_, hasList := table["candidates"]
	_, hasTables := table["candidate"]
	o := &base.options
	if known := count(hasCheck, hasList, hasTables); len(table) > known {
		mine := base.options
		l.readOptions(path, table, &mine)
		n.Policy, n.Pace = l.share(mine)
		o = &mine
	}
	n.IdleAfter, n.Idle, n.TTL, n.Warm = o.idleAfter, n.Pace.IdleInterval, o.ttl, o.warm
	n.Watch, n.SVCB = o.watch, o.svcb
	if hasCheck {
		mine := *base
		mine.shared = nil
		l.checks.read(inName, join(path, "check"), table["check"], &mine.check, &mine.scope)
		own = &mine
	}
	n.Candidates = l.readCandidates(&candidateList{
		l: l, path: path, name: n, base: own,
		list: list, short: table["candidates"], tables: table["candidate"], hasTables: hasTables, labels: labels,
	})
	if l.errors == before { // what is weak about a broken name is not known
		l.nameProblems(path, n)
	}
}

func count(bs ...bool) int {
	n := 0
	for _, b := range bs {
		if b {
			n++
		}
	}
	return n
}
