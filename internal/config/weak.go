package config

import (
	"maps"
	"slices"
	"strconv"

	"hard/internal/rank"
)

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
