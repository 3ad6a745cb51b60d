package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads "500ms", "2s", "1h30m", "1.5s", "30d" and "1d12h". A day has 24 hours.
func parseDuration(v any) (time.Duration, *issue) {
	switch v := v.(type) {
	case int64:
		return 0, issuef("a duration needs a unit and quotes, not %s", describe(v)).suggest(fmt.Sprintf(`"%ds"`, v))
	case float64:
		i := issuef("a duration needs a unit and quotes, not %s", describe(v))
		if ms := v * 1000; ms == math.Trunc(ms) && ms >= 1 && ms < 1e9 {
			i.suggest(fmt.Sprintf(`"%dms"`, int64(ms)))
		}
		return 0, i
	}
	s, ok := v.(string)
	if !ok {
		return 0, issuef("want a duration such as \"2s\", not %s", describe(v))
	}
	bad := issuef("%s is not a duration: numbers with units ms, s, m, h, d", strconv.Quote(shorten(s)))
	if _, err := strconv.ParseUint(s, 10, 32); err == nil {
		return 0, bad.suggest(`"` + s + `s"`)
	}
	days, rest, hasDays := strings.Cut(s, "d")
	var total time.Duration
	if hasDays {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n >= 0 && n <= 36500) || strings.ContainsAny(days, "+-eExX_iInN") {
			return 0, bad
		}
		total = time.Duration(n * float64(24*time.Hour))
	} else {
		rest = s
	}
	if rest != "" || !hasDays {
		d, err := time.ParseDuration(rest)
		if err != nil {
			if n := strings.ReplaceAll(strings.ToLower(s), " ", ""); n != s {
				if _, i := parseDuration(n); i == nil {
					bad.suggest(`"` + n + `"`)
				}
			}
			return 0, bad
		}
		total += d
	}
	if total < 0 {
		return 0, issuef("%s is negative", strconv.Quote(shorten(s)))
	}
	return total, nil
}

// durationText writes a duration as the file would: the shortest form that parseDuration reads.
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// sizeUnits are the units of sizes, in bytes.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// parseSize reads "512MiB" into bytes.
func parseSize(v any) (int64, *issue) {
	if n, ok := v.(int64); ok {
		i := issuef("a size needs a unit and quotes, not %s", describe(v))
		switch {
		case n >= 1<<20 && n%(1<<20) == 0:
			i.suggest(fmt.Sprintf(`"%dMiB"`, n>>20))
		case n > 0 && n < 1<<20:
			i.suggest(fmt.Sprintf(`"%dMiB"`, n))
		}
		return 0, i
	}
	s, i := parseString(v)
	if i != nil {
		return 0, i
	}
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseUint(number, 10, 62)
			if err != nil {
				break
			}
			if n > uint64(math.MaxInt64/u.bytes) {
				return 0, issuef("%s is too large", strconv.Quote(s))
			}
			return int64(n) * u.bytes, nil
		}
	}
	i = issuef("%s is not a size: a whole number with KiB, MiB, GiB or TiB", strconv.Quote(shorten(s)))
	digits := strings.TrimRight(s, " kKmMgGtTiIbB")
	unit := strings.ToUpper(strings.TrimSpace(s[len(digits):]))
	if _, err := strconv.ParseUint(digits, 10, 32); err == nil && unit != "" && unit[0] != 'B' && unit[0] != 'I' {
		i.suggest(`"` + digits + unit[:1] + `iB"`)
	}
	return 0, i
}
