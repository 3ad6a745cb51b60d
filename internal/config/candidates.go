package config

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"

	"hard/internal/rank"
)

// glibcTimeout is how long a program waits for us (resolv.conf(5), RES_TIMEOUT).
const glibcTimeout = 5 * time.Second

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

// readNames reads [name] in file order, which only the list of keys knows.
func (l *loader) readNames(v any, keys []toml.Key) []Name {
	if v == nil {
		return nil
	}
	table := l.subtable([]string{"name"}, v)
	names := make([]Name, 0, len(table))
	l.names = make(map[string]string, len(table))
	labels := map[string][]string{} // of candidates that have tables, in file order
	for _, k := range keys {
		if len(k) >= 4 && k[0] == "name" && k[2] == "candidate" {
			labels[k[1]] = append(labels[k[1]], k[3])
		}
	}
	path := [2]string{"name"}
	done := make(map[string]bool, len(table))
	for _, k := range keys {
		if len(k) < 2 || k[0] != "name" || done[k[1]] {
			continue
		}
		value, ok := table[k[1]]
		if !ok {
			continue
		}
		done[k[1]] = true
		path[1] = k[1]
		if t := l.subtable(path[:], value); t != nil {
			names = append(names, l.readName(path[:], t, labels[k[1]]))
		}
	}
	return names
}

// readName reads one name. path is valid only during the call.
func (l *loader) readName(path []string, table map[string]any, labels []string) Name {
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
	n := Name{Name: canonical, Policy: base.policy, Pace: base.pace}
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
		l: l, path: path, name: &n, base: own,
		short: table["candidates"], tables: table["candidate"], hasTables: hasTables, labels: labels,
	})
	l.nameProblems(path, &n)
	return n
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

// candidateList is what the candidates of one name are read from.
type candidateList struct {
	l         *loader
	path      []string
	name      *Name
	base      *inherited
	short     any
	tables    any
	hasTables bool
	labels    []string
	shared    *Check // of all candidates without a check of their own
	built     bool
}

// readCandidates unites candidates and candidate.LABEL: the list first, then the tables that
// are not in it, both in file order.
func (l *loader) readCandidates(c *candidateList) []Candidate {
	var list []any
	if c.short != nil {
		var ok bool
		if list, ok = c.short.([]any); !ok {
			_, i := parseStrings(c.short)
			l.report(join(c.path, "candidates"), i)
		}
	}
	var tables map[string]any
	if c.hasTables {
		tables = l.subtable(join(c.path, "candidate"), c.tables)
	}
	out := l.slabs.candidates.take(len(list) + len(tables))[:0]
	for n, e := range list {
		if cand, ok := c.fromList(e, n, len(list), out, tables); ok {
			out = append(out, cand)
		}
	}
	for _, label := range c.labels {
		v, ok := tables[label]
		if !ok || slices.ContainsFunc(out, func(o Candidate) bool { return o.Label == label }) {
			continue
		}
		delete(tables, label) // every label once, though the list of keys has it once per key
		if cand, ok := c.fromTable(label, v, nil); ok {
			out = append(out, cand)
		}
	}
	if len(list) == 0 && !c.hasTables {
		if c.short == nil {
			l.errorf(c.path, "no candidates")
		} else if list != nil {
			l.errorf(join(c.path, "candidates"), "the list is empty")
		}
	}
	return c.oncePerAddress(out)
}

// fromList reads one entry of candidates: its text is label and address, and a table of
// the same label adds options.
func (c *candidateList) fromList(e any, n, of int, before []Candidate, tables map[string]any) (Candidate, bool) {
	path := c.path
	s, i := parseString(e)
	if i == nil {
		i = labelIssue(s)
	}
	if i == nil && slices.ContainsFunc(before, func(o Candidate) bool { return o.Label == s }) {
		i = issuef("%s is in the list twice", strconv.Quote(s))
	}
	if i != nil {
		c.l.report(join(path, "candidates"), i.entry(n, of))
		return Candidate{}, false
	}
	if v, ok := tables[s]; ok {
		return c.fromTable(s, v, []string{s})
	}
	cand := Candidate{Label: c.l.text.keep(s), Weight: 100}
	if i := c.addAddress(&cand, cand.Label, 1); i != nil {
		c.l.report(join(path, "candidates"), i.entry(n, of))
		return cand, false
	}
	cand.Check = c.check()
	return cand, true
}

// fromTable reads candidate.LABEL. address is what the short form gave it, or nil.
func (c *candidateList) fromTable(label string, v any, address []string) (Candidate, bool) {
	path := slices.Concat(c.path, []string{"candidate", label})
	table := c.l.subtable(path, v)
	if table == nil {
		return Candidate{}, false
	}
	c.l.report(path, labelIssue(label))
	o := candidateKeys.defaults()
	readTable(c.l, path, table, candidateKeys, &o)
	at := join(path, "address")
	_, written := table["address"]
	switch {
	case address != nil && written:
		c.l.errorf(at, "%s stands in candidates, where its text is the address already; keep one of both", strconv.Quote(label))
	case address != nil:
		o.address, at = address, join(c.path, "candidates")
	case !written:
		f := c.l.errorf(path, "address is missing")
		if a, h, i := candidateAddress(label); i == nil && (a.IsValid() || strings.Contains(h, ".")) {
			f.suggest("address = " + strconv.Quote(label))
		}
	}
	cand := Candidate{Label: c.l.text.keep(label), Tier: o.tier, Weight: o.weight, State: o.state}
	for n, s := range o.address {
		i := c.addAddress(&cand, c.l.text.keep(s), len(o.address))
		c.l.report(at, i.entry(n, len(o.address)))
	}
	if check, ok := table["check"]; ok {
		own, scope := c.base.check, c.base.scope
		c.l.checks.read(inCandidate, join(path, "check"), check, &own, &scope)
		cand.Check = c.l.checks.build(&own, &scope, c.name.Name, path)
	} else {
		cand.Check = c.check()
	}
	return cand, true
}

// addAddress adds one address or host name to a candidate that will have n of them. s is kept.
func (c *candidateList) addAddress(cand *Candidate, s string, n int) *issue {
	addr, host, i := candidateAddress(s)
	switch {
	case i != nil:
		return i
	case addr.IsValid():
		if slices.Contains(cand.Addrs, addr) {
			return issuef("%s is there twice", addr)
		}
		if cand.Addrs == nil {
			cand.Addrs = c.l.slabs.addrs.take(n)[:0]
		}
		cand.Addrs = append(cand.Addrs, addr)
	default:
		if slices.Contains(cand.Hosts, host) {
			return issuef("%s is there twice", strconv.Quote(host))
		}
		if cand.Hosts == nil {
			cand.Hosts = c.l.slabs.hosts.take(n)[:0]
		}
		cand.Hosts = append(cand.Hosts, host)
	}
	return nil
}

// check returns the check of the candidates that have none of their own.
func (c *candidateList) check() *Check {
	if !c.built {
		c.built = true
		c.shared = c.base.shared
		if c.shared == nil || strings.HasPrefix(c.name.Name, "*.") { // a wildcard has more to ask for
			c.shared = c.l.checks.build(&c.base.check, &c.base.scope, c.name.Name, c.path)
		}
	}
	return c.shared
}

// oncePerAddress lets each address be one endpoint of the name: the lowest tier keeps it, then
// file order. Candidates that have none left go.
func (c *candidateList) oncePerAddress(list []Candidate) []Candidate {
	total := 0
	for i := range list {
		total += len(list[i].Addrs) + len(list[i].Hosts)
	}
	if total < 2 {
		return list
	}
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return list[a].Tier - list[b].Tier })
	var owner ownerMap
	lost := false
	for _, i := range order {
		cand := &list[i]
		shadowed := func(what string, by int) {
			lost = true
			c.l.warnf(c.path, "%s is an address of both %s and %s; one address is one endpoint, and %s keeps it",
				what, strconv.Quote(list[by].Label), strconv.Quote(cand.Label), strconv.Quote(list[by].Label))
		}
		cand.Addrs = slices.DeleteFunc(cand.Addrs, func(a netip.Addr) bool {
			by, taken := owner.claim(addrOrHost{addr: a}, i, total)
			if taken {
				shadowed(a.String(), by)
			}
			return taken
		})
		cand.Hosts = slices.DeleteFunc(cand.Hosts, func(h string) bool {
			by, taken := owner.claim(addrOrHost{host: h}, i, total)
			if taken {
				shadowed(h, by)
			}
			return taken
		})
	}
	if !lost {
		return list
	}
	return slices.DeleteFunc(list, func(o Candidate) bool { return len(o.Addrs)+len(o.Hosts) == 0 })
}

// addrOrHost is what can belong to one candidate only.
type addrOrHost struct {
	addr netip.Addr
	host string
}

// ownerMap remembers which candidate has which address: a list for the few that most names
// have, a map beyond.
type ownerMap struct {
	few  [8]addrOrHost
	by   [8]int
	n    int
	many map[addrOrHost]int
}

func (m *ownerMap) claim(what addrOrHost, candidate, total int) (by int, taken bool) {
	if total > len(m.few) {
		if m.many == nil {
			m.many = make(map[addrOrHost]int, total)
		}
		if by, taken = m.many[what]; !taken {
			m.many[what] = candidate
		}
		return by, taken
	}
	if i := slices.Index(m.few[:m.n], what); i >= 0 {
		return m.by[i], true
	}
	m.few[m.n], m.by[m.n] = what, candidate
	m.n++
	return 0, false
}

// maxCandidateLabel bounds a label: it is a column, a metric's label and a word on the command line.
const maxCandidateLabel = 255

func labelIssue(s string) *issue {
	switch {
	case s == "":
		return issuef("a candidate's label is empty")
	case len(s) > maxCandidateLabel:
		return issuef("a candidate's label is longer than %d bytes", maxCandidateLabel)
	}
	for _, r := range s {
		if r <= ' ' || r >= 0x7f && (!unicode.IsPrint(r) || unicode.IsSpace(r)) {
			return issuef("a candidate's label has no spaces and no control characters, %s has", strconv.Quote(shorten(s)))
		}
	}
	return nil
}

// nameProblems warns of what makes a name weaker than it looks.
func (l *loader) nameProblems(path []string, n *Name) {
	list := n.Candidates
	if len(list) == 1 && len(list[0].Addrs)+len(list[0].Hosts) == 1 {
		l.warnf(path, "one single candidate, %s: there is nothing to fail over to", strconv.Quote(list[0].Label))
	}
	literal, usable := 0, false
	for i := range list {
		literal += len(list[i].Addrs)
		usable = usable || list[i].Weight > 0 && list[i].State != rank.Down && list[i].State != rank.Drain
		if c := list[i].Check; c != nil && c.Source.IsValid() {
			l.sourceProblem(path, &list[i])
		}
	}
	if len(list) > 0 && !usable {
		l.warnf(path, "no candidate can ever be selected: each has weight 0 or is down or drained")
	}
	if m := n.Policy.MinHealthy; m > literal && !slices.ContainsFunc(list, func(c Candidate) bool { return len(c.Hosts) > 0 }) && literal > 0 {
		l.warnf(path, "min_healthy = %d is more than the %d addresses there are: the name is always all down", m, literal)
	}
	if !n.Policy.Apart {
		l.familyProblem(path, list)
	}
}

// sourceProblem warns where the address to probe from is of another family than an endpoint.
func (l *loader) sourceProblem(path []string, c *Candidate) {
	for _, a := range c.Addrs {
		if a.Is4() != c.Check.Source.Is4() {
			l.warnf(path, "%s cannot be probed from source = %s, which is of the other family", a, strconv.Quote(c.Check.Source.String()))
		}
	}
}

// familyProblem warns of tiers that lack a family that another has, where both families answer from the
// same tier. What host names have is not known here, so a tier with one lacks nothing.
func (l *loader) familyProblem(path []string, list []Candidate) {
	if !slices.ContainsFunc(list, func(c Candidate) bool { return c.Tier != list[0].Tier }) {
		return
	}
	type families struct{ v4, v6, unknown bool }
	tiers := map[int]families{}
	var any families
	for i := range list {
		if list[i].Weight == 0 {
			continue
		}
		t := tiers[list[i].Tier]
		t.unknown = t.unknown || len(list[i].Hosts) > 0
		for _, a := range list[i].Addrs {
			t.v4, t.v6 = t.v4 || a.Is4(), t.v6 || a.Is6()
		}
		tiers[list[i].Tier] = t
		any.v4, any.v6 = any.v4 || t.v4, any.v6 || t.v6
	}
	for _, tier := range slices.Sorted(maps.Keys(tiers)) {
		t := tiers[tier]
		lacks := func(family, typ string) {
			l.warnf(path, "tier %d has no %s address, another tier has: while it answers, %s gets no data (families = \"apart\" would ask the next tier)",
				tier, family, typ)
		}
		if any.v4 && !t.v4 && !t.unknown {
			lacks("IPv4", "A")
		}
		if any.v6 && !t.v6 && !t.unknown {
			lacks("IPv6", "AAAA")
		}
	}
}
