package rank

import "fmt"

// The words of the contract for each enumeration, by value. Every type below has String, a Parse
// function for exactly these words, and text marshalling, so that JSON and TOML carry words too.
var (
	outcomeWords = []string{
		"ok", "timeout", "refused", "reset", "unreachable", "dns", "tls", "status", "body", "protocol", "aborted",
	}
	stateWords    = []string{"unknown", "healthy", "unhealthy"}
	overrideWords = []string{"auto", "up", "down", "drain"}
	familyWords   = []string{"A", "AAAA"}
	latencyWords  = []string{"total", "connect", "first_byte"}
	selectWords   = []string{"best", "group"}
	allDownWords  = []string{"last_good", "all", "forward", "nodata", "servfail"}
	kindWords     = []string{"normal", "wait", "stale_all", "stale", "forward", "nodata", "servfail", "not_ready"}
	phaseWords    = []string{"calm", "doubt", "fault"}
)

// word is the word for v; a value that has none is shown as a number.
func word[T ~uint8](words []string, v T) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// parse finds the value of a word.
func parse[T ~uint8](what string, words []string, text string) (T, error) {
	for i, w := range words {
		if w == text {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q", what, text)
}

// unmarshal is parse for an UnmarshalText method.
func unmarshal[T ~uint8](v *T, what string, words []string, text []byte) error {
	got, err := parse[T](what, words, string(text))
	if err == nil {
		*v = got
	}
	return err
}

// Soft tells whether the outcome may be the fault of this host's own network: timeout,
// unreachable and dns (contract, section 5.7).
func (o Outcome) Soft() bool { return o == Timeout || o == Unreachable || o == DNS }

// Proof tells whether the outcome shows that this host's own network works: somebody out there
// did something, good or bad.
func (o Outcome) Proof() bool { return !o.Soft() && o != Aborted }

func (o Outcome) String() string                { return word(outcomeWords, o) }
func (o Outcome) MarshalText() ([]byte, error)  { return []byte(o.String()), nil }
func (o *Outcome) UnmarshalText(b []byte) error { return unmarshal(o, "outcome", outcomeWords, b) }

// ParseOutcome is the inverse of Outcome.String.
func ParseOutcome(s string) (Outcome, error) { return parse[Outcome]("outcome", outcomeWords, s) }

func (s State) String() string                { return word(stateWords, s) }
func (s State) MarshalText() ([]byte, error)  { return []byte(s.String()), nil }
func (s *State) UnmarshalText(b []byte) error { return unmarshal(s, "state", stateWords, b) }

// ParseState is the inverse of State.String.
func ParseState(s string) (State, error) { return parse[State]("state", stateWords, s) }

func (o Override) String() string                { return word(overrideWords, o) }
func (o Override) MarshalText() ([]byte, error)  { return []byte(o.String()), nil }
func (o *Override) UnmarshalText(b []byte) error { return unmarshal(o, "state", overrideWords, b) }

// ParseOverride is the inverse of Override.String.
func ParseOverride(s string) (Override, error) { return parse[Override]("state", overrideWords, s) }

// String is the type of the family's address records, A or AAAA.
func (f Family) String() string                { return word(familyWords, f) }
func (f Family) MarshalText() ([]byte, error)  { return []byte(f.String()), nil }
func (f *Family) UnmarshalText(b []byte) error { return unmarshal(f, "type", familyWords, b) }

// ParseFamily is the inverse of Family.String.
func ParseFamily(s string) (Family, error) { return parse[Family]("type", familyWords, s) }

func (m LatencyMode) String() string                { return word(latencyWords, m) }
func (m LatencyMode) MarshalText() ([]byte, error)  { return []byte(m.String()), nil }
func (m *LatencyMode) UnmarshalText(b []byte) error { return unmarshal(m, "latency", latencyWords, b) }

func (m SelectMode) String() string                { return word(selectWords, m) }
func (m SelectMode) MarshalText() ([]byte, error)  { return []byte(m.String()), nil }
func (m *SelectMode) UnmarshalText(b []byte) error { return unmarshal(m, "select", selectWords, b) }

func (a AllDown) String() string                { return word(allDownWords, a) }
func (a AllDown) MarshalText() ([]byte, error)  { return []byte(a.String()), nil }
func (a *AllDown) UnmarshalText(b []byte) error { return unmarshal(a, "on_all_down", allDownWords, b) }

func (k Kind) String() string                { return word(kindWords, k) }
func (k Kind) MarshalText() ([]byte, error)  { return []byte(k.String()), nil }
func (k *Kind) UnmarshalText(b []byte) error { return unmarshal(k, "kind", kindWords, b) }

func (p GuardPhase) String() string                { return word(phaseWords, p) }
func (p GuardPhase) MarshalText() ([]byte, error)  { return []byte(p.String()), nil }
func (p *GuardPhase) UnmarshalText(b []byte) error { return unmarshal(p, "phase", phaseWords, b) }
