package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// candidateList is what the candidates of one name are read from.
type candidateList struct {
	l         *loader
	path      []string
	name      *Name
	base      *inherited
	list      []string // the short form as texts
	short     any      // the short form as decoded; only one of both is there
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
	out := l.slabs.candidates.take(len(c.list) + len(list) + len(tables))[:0]
	for n, s := range c.list {
		if cand, ok := c.fromList(s, nil, n, len(c.list), out, nil); ok {
			out = append(out, cand)
		}
	}
	for n, e := range list {
		s, i := parseString(e)
		if cand, ok := c.fromList(s, i, n, len(list), out, tables); ok {
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
	if len(c.list)+len(list) == 0 && !c.hasTables {
		if c.short == nil {
			l.errorf(c.path, "no candidates")
		} else if list != nil {
			l.errorf(join(c.path, "candidates"), "the list is empty")
		}
	}
	return c.oncePerAddress(out)
}

// fromList reads one entry of candidates: its text is label and address, and a table of
// the same label adds options. i: it is none.
func (c *candidateList) fromList(s string, i *issue, n, of int, before []Candidate, tables map[string]any) (Candidate, bool) {
	path := c.path
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
	if total < 2 || total <= fewAddresses && allDiffer(list) {
		return list
	}
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return list[a].Tier - list[b].Tier })
	owner := make(map[addrOrHost]int, total)
	lost := false
	for _, i := range order {
		cand := &list[i]
		taken := func(what addrOrHost, text string) bool {
			by, taken := owner[what]
			if !taken {
				owner[what] = i
				return false
			}
			lost = true
			c.l.warnf(c.path, "%s is an address of both %s and %s; one address is one endpoint, and %s keeps it",
				text, strconv.Quote(list[by].Label), strconv.Quote(cand.Label), strconv.Quote(list[by].Label))
			return true
		}
		cand.Addrs = slices.DeleteFunc(cand.Addrs, func(a netip.Addr) bool { return taken(addrOrHost{addr: a}, a.String()) })
		cand.Hosts = slices.DeleteFunc(cand.Hosts, func(h string) bool { return taken(addrOrHost{host: h}, h) })
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

// fewAddresses is up to how many comparing each with each is cheaper than a map. Most names have two
// or three.
const fewAddresses = 8

// allDiffer reports whether no address and no host name is in two candidates.
func allDiffer(list []Candidate) bool {
	for i := range list {
		for j := range list[:i] {
			for _, a := range list[i].Addrs {
				if slices.Contains(list[j].Addrs, a) {
					return false
				}
			}
			for _, h := range list[i].Hosts {
				if slices.Contains(list[j].Hosts, h) {
					return false
				}
			}
		}
	}
	return true
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
