package prober

import (
	"strconv"
	"strings"

	"hard/internal/config"
)

// hiddenLength is from how many octets on a word that a check sends may be a secret. Shorter ones
// are no good as such, and would hide half of what a probe has to tell.
const hiddenLength = 6

// secretsOf lists what may be secret of what a check sends: values of headers, what tcp and tls checks
// send, and the words of both. Candidates may send it back, so it could show up in details, which are
// stored and logged, and in traces. (Arguments of programs are not among it: every user can see
// them in the list of processes, and what a program prints is up to it.)
func secretsOf(c *config.Check) (list []string) {
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) < hiddenLength {
			return
		}
		list = append(list, s)
		if q := strconv.Quote(s); q[1:len(q)-1] != s {
			list = append(list, q[1:len(q)-1])
		}
	}
	texts := []string{c.Send}
	for _, h := range c.Headers {
		texts = append(texts, h.Value)
	}
	for _, s := range texts { // whole ones first: their words are in them
		add(s)
	}
	for _, s := range texts {
		if words := strings.Fields(s); len(words) > 1 {
			for _, w := range words {
				add(w)
			}
		}
	}
	return list
}

// hide takes what may be secret out of a text for people.
func (pr *probe) hide(text string) string {
	if pr.prepared == nil || text == "" {
		return text
	}
	for _, s := range pr.prepared.secrets {
		text = strings.ReplaceAll(text, s, "(hidden)")
	}
	return text
}
