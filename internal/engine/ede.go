package engine

import (
	"hard/internal/answer"
	"hard/internal/rank"
)

// Info codes of Extended DNS Errors (RFC 8914, section 4).
const (
	edeOther       = 0
	edeStaleAnswer = 3
	edeNotReady    = 14
	edeNoReachable = 22
)

// edeOf is the extended error, with a text for who reads it in dig, of one family's answer that is not the normal kind.
// Texts are few and constant, so that entries can share the options that are made of them.
func (n *name) edeOf(d *rank.Decision, f rank.Family) (code int, text string) {
	switch d.Answers[f].Kind {
	case rank.Wait:
		return edeNotReady, "no probe result yet"
	case rank.NotReady:
		return edeNotReady, "no address of a candidate is known"
	case rank.StaleAll:
		return edeStaleAnswer, "all candidates are down: all of them"
	case rank.Stale:
		return edeStaleAnswer, "all candidates are down: the last good ones"
	case rank.Fail:
		return edeNoReachable, "all candidates are down"
	case rank.Empty:
		return n.edeOfNoData(d, f)
	}
	return answer.NoEDE, ""
}

// edeOfNoData tells a family that has no candidate, which is nothing unusual, from one whose candidates are not answered.
func (n *name) edeOfNoData(d *rank.Decision, f rank.Family) (code int, text string) {
	switch {
	case d.AllDown:
		return edeNoReachable, "all candidates are down"
	case len(n.eps) == 0:
		return edeOther, "all addresses of the candidates have left DNS"
	}
	some := false
	for i := range n.eps {
		if ep := &n.eps[i]; ep.addr.Unmap().Is4() != (f == rank.V4) {
			continue
		}
		if some = true; d.Endpoints[i].Eligible {
			return edeOther, "the tier that answers has no address of this family"
		}
	}
	if some {
		return edeNoReachable, "no eligible candidate of this family"
	}
	return answer.NoEDE, ""
}
