package admin

import (
	"fmt"
	"strings"

	"golang.org/x/net/idna"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
)

// find returns the configured name that answers for what an operator wrote: itself, or the
// longest wildcard above it, as for a query.
func (s *Server) find(text string) (*config.Name, error) {
	c := s.o.Backend.Config()
	text = Canonical(text)
	var best *config.Name
	for i := range c.Names {
		n := &c.Names[i]
		if n.Name == text {
			return n, nil
		}
		suffix, wildcard := strings.CutPrefix(n.Name, "*")
		if wildcard && len(text) > len(suffix) && strings.HasSuffix(text, suffix) && (best == nil || len(n.Name) > len(best.Name)) {
			best = n
		}
	}
	if best == nil {
		return nil, notFound(text, c)
	}
	return best, nil
}

// candidate checks that a name has a candidate of that label.
func candidate(n *config.Name, label string) (*config.Candidate, error) {
	labels := make([]string, len(n.Candidates))
	for i := range n.Candidates {
		if n.Candidates[i].Label == label {
			return &n.Candidates[i], nil
		}
		labels[i] = n.Candidates[i].Label
	}
	return nil, &statusError{404, Error{
		Message: fmt.Sprintf("%s has no candidate %q", n.Name, label),
		Hint:    "its candidates: " + strings.Join(labels, " "),
	}}
}

func notFound(name string, c *config.Config) error {
	hint := "no name is configured in " + c.File
	if len(c.Names) > 0 {
		names := make([]string, 0, 8)
		for i := range c.Names {
			if i == cap(names) {
				names = append(names, "...")
				break
			}
			names = append(names, c.Names[i].Name)
		}
		hint = "configured: " + strings.Join(names, " ")
	}
	return &statusError{404, Error{Message: fmt.Sprintf("%q is not configured", name), Hint: hint}}
}

// Canonical is a name as the configuration keeps it: lower case, A-labels, no final dot.
func Canonical(name string) string {
	name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
	for i := 0; i < len(name); i++ {
		if name[i] >= 0x80 {
			if a, err := idna.Lookup.ToASCII(name); err == nil {
				return a
			}
			break
		}
	}
	return name
}

// endpoints are the endpoints of a name, or of one candidate of it.
func endpoints(n *engine.NameView, label string) []rank.Key {
	var keys []rank.Key
	for i := range n.Endpoints {
		if k := n.Endpoints[i].Key; label == "" || k.Candidate == label {
			keys = append(keys, k)
		}
	}
	return keys
}
