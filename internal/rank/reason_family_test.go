package rank

import (
	"strings"
	"testing"
)

// TestApartReasonNamesNoTier: where each family has its own tiers, there is none that the other answers from.
func TestApartReasonNamesNoTier(t *testing.T) {
	lines := []string{"10.0.0.1 healthy 3ms", "2001:db8::1 unhealthy"}
	for _, apart := range []bool{false, true} {
		p := defaults()
		p.Apart = apart
		n := newName(t, p, lines...)
		d := Decide(p, n.eps, nil, at(0))
		got := d.Answers[V6].Reason.String()
		if d.Answers[V6].Kind != Empty || strings.Contains(got, "tier") == apart || !strings.Contains(got, "no eligible endpoint of this family") {
			t.Errorf("apart %v: %v %q", apart, d.Answers[V6].Kind, got)
		}
	}
}
