package config

import "strings"

// Nearest returns the word that was probably meant by s, or "" where none is near.
func Nearest(s string, words []string) string { return nearest(s, words) }

// nearest returns the word that was probably meant by s, or "" where none is near: at most two
// slips (one in a short word), where swapping two neighbours is one; or a beginning of the other.
func nearest(s string, words []string) string {
	plain := normalize(s)
	best, bestDistance := "", 3
	for _, w := range words {
		limit := 2
		if len(w) <= 4 {
			limit = 1
		}
		if d := editDistance(plain, normalize(w)); d <= limit && d < bestDistance {
			best, bestDistance = w, d
		}
	}
	if best != "" {
		return best
	}
	for _, w := range words { // "warning" for warn, "prio" for priority
		n := normalize(w)
		if len(plain) >= 4 && len(n) >= 4 && (strings.HasPrefix(plain, n) || strings.HasPrefix(n, plain)) {
			return w
		}
	}
	return ""
}

// normalize makes fast-interval, fastInterval and FAST_INTERVAL one word.
func normalize(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(shorten(s)))
}

// editDistance is the optimal string alignment distance of two short words, in bytes.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
