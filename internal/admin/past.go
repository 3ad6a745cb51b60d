package admin

import (
	"hard/internal/engine"
	"hard/internal/rank"
)

// ExplainView is an Explain made of a snapshot of one name, of the present or the past; types are
// those wanted, none means both.
func ExplainView(snap *engine.Snapshot, policy *rank.Policy, types ...rank.Family) Explain {
	v := nameView(&snap.Names[0])
	if len(types) == 1 {
		onlyType(&v, types[0].String())
	}
	return Explain{
		At: snap.At, LocalFault: snap.LocalFault, Policy: policyView(policy), Next: snap.Names[0].Decision.Next,
		Name: v, Overrides: overridesView(snap.Overrides),
	}
}
