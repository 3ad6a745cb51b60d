package admin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is text in JSON: "30m".
type Duration time.Duration

// MarshalText is encoding.TextMarshaler's.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText is encoding.TextUnmarshaler's.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseFor(string(b))
	*d = Duration(v)
	return err
}

// ParseFor reads how long something shall hold: a Go duration, or whole days as "2d". It must be
// positive; "" is 0.
func ParseFor(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 3650 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf(`%s is not a duration: write 90s, 30m, 12h or 2d`, strconv.Quote(s))
	}
	return d, nil
}

// Weight is a forced weight: a number, a percentage of the configured one, or auto. In JSON it is
// a string, or a number.
type Weight struct {
	N       int // -1: auto, the file's weight holds
	Percent bool
}

// maxWeight is that of the configuration; a percentage may be as high.
const maxWeight = 1000

// ParseWeight reads "50", "50%" or "auto".
func ParseWeight(s string) (Weight, error) {
	if s == "auto" {
		return Weight{N: -1}, nil
	}
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || n > maxWeight {
		return Weight{}, fmt.Errorf("%s is not a weight: write 50, 50%% or auto", strconv.Quote(s))
	}
	return Weight{n, percent}, nil
}

// String is the inverse of ParseWeight.
func (w Weight) String() string {
	switch {
	case w.N < 0:
		return "auto"
	case w.Percent:
		return strconv.Itoa(w.N) + "%"
	}
	return strconv.Itoa(w.N)
}

// MarshalJSON is json.Marshaler's.
func (w Weight) MarshalJSON() ([]byte, error) { return json.Marshal(w.String()) }

// UnmarshalJSON is json.Unmarshaler's.
func (w *Weight) UnmarshalJSON(b []byte) error {
	s := string(b)
	if strings.HasPrefix(s, `"`) {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := ParseWeight(s)
	*w = v
	return err
}
