package rank

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Reason is why, kept as figures: String makes the line for a person only when somebody asks,
// so that thousands of decisions a second pay nothing for it. In JSON it is that line.
type Reason struct {
	code     reasonCode
	state    State
	override Override
	last     Outcome
	anyway   bool // selected by on_all_down although the rest speaks against it
	warm     bool // no result of this run yet
	policy   AllDown
	tier     int32
	other    int32         // another tier, or min_healthy
	count    int32         // failures in a row, or healthy endpoints
	lat      time.Duration // the estimate
	than     time.Duration // the estimate it is compared with
	limit    time.Duration // the setting that decided: max_latency, group_within, switch_min, hold
	ratio    float64       // switch_ratio
	since    time.Time
	addr     netip.Addr
	text     string // of a Reason read back from JSON
}

type reasonCode uint8

const (
	_ reasonCode = iota // no reason given

	// Verdicts: not eligible.
	reasonDown
	reasonNoWeight
	reasonUnhealthy
	reasonUnknown
	reasonTooSlow // max_latency

	// Verdicts: eligible.
	reasonBest      // selected, the first
	reasonFurther   // selected, one of the next (max_answers)
	reasonInGroup   // selected
	reasonHigher    // a lower tier wins
	reasonWaits     // a lower tier waits out hold
	reasonSlower    // not faster than the incumbent
	reasonMargin    // faster by less than switch_min or switch_ratio
	reasonChallenge // faster, waits out hold
	reasonMissing   // faster, but its last probe failed: its hold begins anew
	reasonNoFigure  // no latency to rank by
	reasonOutside   // outside the group
	reasonUnused    // eligible, but min_healthy made it all down

	// Answers.
	reasonFirst      // nothing was selected before
	reasonKept       // the incumbent stays
	reasonTookOver   // a challenger, faster for hold
	reasonEarly      // a challenger, while first verdicts are still to come
	reasonIneligible // the incumbent is not eligible any more
	reasonTierDown   // to a lower tier
	reasonTierUp     // to a higher tier
	reasonGroup
	reasonWait
	reasonNotReady
	reasonNoAddress // looked up, and there never was one
	reasonLeft      // looked up, and there is none any more
	reasonNoFamily  // no endpoint of this family
	reasonNoneHere  // none eligible in the winning tier (together), or at all (apart)
	reasonAllDown
	reasonMinHealthy

	reasonText
)

// String is the line for a person.
func (r Reason) String() string {
	switch {
	case r.code == reasonText:
		return r.text
	case r.code >= reasonFirst:
		return r.answerText()
	}
	s := r.verdictText()
	if r.anyway {
		s += "; selected by on_all_down = " + r.policy.String()
	}
	return s
}

// MarshalText gives the line itself.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText keeps a line as it is.
func (r *Reason) UnmarshalText(b []byte) error {
	*r = Reason{code: reasonText, text: string(b)}
	return nil
}

// verdictText is for one endpoint.
func (r *Reason) verdictText() string {
	switch r.code {
	case reasonDown:
		if r.override == Drain {
			return "drained by operator"
		}
		return "forced down by operator"
	case reasonNoWeight:
		return "weight 0: never selected"
	case reasonUnhealthy:
		return fmt.Sprintf("unhealthy%s: %d failures in a row, the last: %s", sinceText(r.since), r.count, r.last)
	case reasonUnknown:
		return "unknown: no verdict yet"
	}
	return r.stateText() + r.eligibleText()
}

// stateText tells how a healthy endpoint is: "healthy, 3.1 ms, tier 0".
func (r *Reason) stateText() string {
	s := "healthy"
	if r.override == Up {
		s = "forced up by operator"
	}
	if r.warm {
		s += " (stored by an earlier run)"
	}
	if r.lat > 0 {
		s += ", " + ms(r.lat)
	}
	return s + ", tier " + strconv.Itoa(int(r.tier)) + ": "
}

func (r *Reason) eligibleText() string {
	switch r.code {
	case reasonTooSlow:
		return "above max_latency " + ms(r.limit)
	case reasonBest:
		return "selected (best)"
	case reasonFurther:
		return "selected (one of max_answers)"
	case reasonInGroup:
		return fmt.Sprintf("selected (group, best %s)", ms(r.than))
	case reasonHigher:
		return fmt.Sprintf("not needed, tier %d has an eligible endpoint", r.other)
	case reasonWaits:
		return fmt.Sprintf("tier %d waits%s, takes over from tier %d after hold %s", r.tier, sinceText(r.since), r.other, ms(r.limit))
	case reasonMargin:
		return r.marginText()
	case reasonChallenge:
		return fmt.Sprintf("%s faster than the incumbent%s, takes over after hold %s", ms(r.than-r.lat), sinceText(r.since), ms(r.limit))
	case reasonMissing:
		return ms(r.than-r.lat) + " faster than the incumbent, but its last probe failed"
	case reasonNoFigure:
		return "no latency to rank it by"
	case reasonOutside:
		return fmt.Sprintf("%s slower than the best, more than group_within %s", ms(r.lat-r.than), ms(r.limit))
	case reasonUnused:
		return "too few are healthy"
	}
	return "not faster than the incumbent, " + ms(r.than)
}

func (r *Reason) marginText() string {
	s := ms(r.than-r.lat) + " faster than the incumbent, less than "
	if r.than-r.lat < r.limit {
		return s + "switch_min " + ms(r.limit)
	}
	return s + "switch_ratio " + strconv.FormatFloat(r.ratio*100, 'g', 3, 64) + " %"
}

// answerText is for the selection of one family.
func (r *Reason) answerText() string {
	switch r.code {
	case reasonFirst:
		return fmt.Sprintf("best of tier %d, %s", r.tier, ms(r.lat))
	case reasonKept:
		return fmt.Sprintf("tier %d: the incumbent stays, %s", r.tier, ms(r.lat))
	case reasonTookOver:
		return fmt.Sprintf("%s against %s of %s%s: took over after hold %s", ms(r.lat), ms(r.than), r.addr, sinceText(r.since), ms(r.limit))
	case reasonEarly:
		return fmt.Sprintf("%s against %s of %s: took over while first verdicts come in", ms(r.lat), ms(r.than), r.addr)
	case reasonIneligible:
		return fmt.Sprintf("%s is not eligible any more; best of tier %d, %s", r.addr, r.tier, ms(r.lat))
	case reasonTierDown:
		return fmt.Sprintf("tier %d took over from tier %d", r.tier, r.other)
	case reasonTierUp:
		return fmt.Sprintf("tier %d: tier %d has no eligible endpoint", r.tier, r.other)
	case reasonGroup:
		return fmt.Sprintf("tier %d: group of %d within %s of %s", r.tier, r.count, ms(r.limit), ms(r.lat))
	}
	return r.exceptionText()
}

// exceptionText is for answers that are not the normal kind.
func (r *Reason) exceptionText() string {
	switch r.code {
	case reasonWait:
		return "no verdict yet"
	case reasonNotReady:
		return "no address known yet"
	case reasonNoAddress:
		return "DNS has no address of any candidate"
	case reasonLeft:
		return "all addresses have left DNS"
	case reasonNoFamily:
		return "no endpoint of this family"
	case reasonNoneHere:
		if r.tier < 0 { // each family by itself
			return "no eligible endpoint of this family"
		}
		return fmt.Sprintf("no eligible endpoint of this family; tier %d answers with the other", r.tier)
	case reasonAllDown:
		return "no eligible endpoint: on_all_down = " + r.policy.String()
	case reasonMinHealthy:
		return fmt.Sprintf("%d healthy, less than min_healthy %d: on_all_down = %s", r.count, r.other, r.policy)
	}
	return ""
}

func sinceText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// ms is a duration for a person: three digits, in ms, or in s from one second on.
func ms(d time.Duration) string {
	switch a := d.Abs(); {
	case d == 0:
		return "0 ms"
	case a >= 1000*time.Second:
		return d.Round(time.Second).String()
	case a >= time.Second:
		return digits(d.Seconds()) + " s"
	}
	return digits(float64(d)/float64(time.Millisecond)) + " ms"
}

// digits is x with three digits or so, without a useless end.
func digits(x float64) string {
	decimals := 3
	for limit := 1.0; decimals > 0 && math.Abs(x) >= limit; limit *= 10 {
		decimals--
	}
	s := strconv.FormatFloat(x, 'f', decimals, 64)
	if decimals > 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
