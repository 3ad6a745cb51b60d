package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// Some values are secret, or may be: what a check sends to prove who it is (headers, send, args), and
// the webhook's URL, whose path is a password as a rule. They are in the file and in memory, and nowhere
// else: no message quotes them, and what is stored of a file is without them (Redacted).

// isSecret tells whether the value of a key, or of one that it is below, may be secret.
func isSecret(path []string) bool {
	if len(path) > 1 && path[0] == "hooks" {
		return path[1] == "webhook" || path[1] == "on_change"
	}
	check := -1 // where "check" stands: [defaults.check], [name.N.check], [name.N.candidate.L.check]
	switch {
	case len(path) > 2 && path[0] == "defaults" && path[1] == "check":
		check = 1
	case len(path) > 3 && path[0] == "name" && path[2] == "check":
		check = 2
	case len(path) > 5 && path[0] == "name" && path[2] == "candidate" && path[4] == "check":
		check = 4
	}
	return check > 0 && slices.Contains([]string{"headers", "send", "args"}, path[check+1])
}

// hiddenText is what all messages say of the value of a secret key that can't be read.
const hiddenText = "not a valid value (it is not shown, as it may be secret)"

// quotesSecret reports whether the library's message about a place in text may quote a secret, and
// whose. It quotes words without quotes that it can't read, and no more than one octet of others.
func quotesSecret(text string, offset int, message string) (path []string, quotes bool) {
	key := 0
	walkKeys(text, func(p []string, at int) bool {
		if at <= offset {
			path, key = slices.Clone(p), at
		}
		return at < offset
	})
	sameLine := !strings.Contains(text[min(key, offset):offset], "\n")
	return path, isSecret(path) && (sameLine || longQuote.MatchString(message))
}

var longQuote = regexp.MustCompile(`"[^"]{4,}|'[^']{4,}`)

// secret makes a key say nothing of a value of the wrong type but that. Its own messages must not
// quote the value.
func secret[T any](k key[T], valid func(v any) bool, want string) key[T] {
	set := k.set
	k.set = func(v any, into *T) *issue {
		if !valid(v) {
			return issuef("want %s", want)
		}
		return set(v, into)
	}
	return k
}

func isString(v any) bool { _, ok := v.(string); return ok }

func isStrings(v any) bool {
	list, ok := v.([]any)
	return ok && !slices.ContainsFunc(list, func(e any) bool { return !isString(e) })
}

// Redacted returns the text of a valid configuration without its comments and its secrets. It is
// as valid, and decisions made under it would be the same. In place of each
// secret stand 16 bits of its hash, so that two configurations that differ in one still do. What
// is redacted already stays as it is.
func Redacted(text string) string {
	text = stripBOM(text)
	cuts := commentCuts(text)
	if maybeSecrets(text) {
		cuts = append(cuts, secretCuts(text)...)
	}
	if len(cuts) == 0 {
		return text
	}
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(a.from, b.from) })
	var out strings.Builder
	out.Grow(len(text))
	at := 0
	for _, c := range cuts {
		if c.from < at {
			continue // in one that is cut already
		}
		out.WriteString(text[at:c.from])
		out.WriteString(c.with)
		at = c.to
	}
	out.WriteString(text[at:])
	return out.String()
}

// maybeSecrets is false of a text in which no key can be a secret's (isSecret): thousands of names need not be walked
// through then. With a backslash a key can be written without its letters.
func maybeSecrets(text string) bool {
	for _, s := range []string{`\`, "webhook", "on_change", "headers", "send", "args"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// cut is a part of a text that is replaced.
type cut struct {
	from, to int
	with     string
}

// commentCuts are the comments of a text.
func commentCuts(text string) (cuts []cut) {
	for w := (&walker{s: text}); !w.done; {
		n := strings.IndexAny(text[w.i:], "\"'#")
		if n < 0 {
			break
		}
		if w.i += n; text[w.i] != '#' {
			w.str()
			continue
		}
		from := w.i
		w.skipLine()
		to := w.i
		for to > from && (text[to-1] == '\n' || text[to-1] == '\r') {
			to--
		}
		cuts = append(cuts, cut{from: from, to: to})
	}
	return cuts
}

// secretCuts are the secret values of a text.
func secretCuts(text string) (cuts []cut) {
	w := &walker{s: text}
	w.visit = func(path []string, offset int) bool {
		if text[offset] != '[' && isSecret(path) { // a value, not a table's header
			value := &walker{s: text, i: w.i, visit: func([]string, int) bool { return true }}
			value.space()
			cuts = append(cuts, literalCuts(value, path)...)
		}
		return true
	}
	w.walk()
	return cuts
}

// literalCuts are the strings of one secret value: it is one, or a list of them. The keys of an
// inline table come by themselves.
func literalCuts(w *walker, path []string) (cuts []cut) {
	program := len(path) == 2 && path[1] == "on_change" // its first word is no secret
	literal := func() {
		from := w.i
		w.str()
		if !program {
			cuts = append(cuts, cut{from, w.i, `"` + mask(path, w.s[from:w.i]) + `"`})
		}
		program = false
	}
	switch {
	case w.at('"') || w.at('\''):
		literal()
	case w.at('['):
		w.i++
		w.list(']', func() {
			if w.at('"') || w.at('\'') {
				literal()
			} else {
				w.value(path)
			}
		})
	}
	return cuts
}

// masked is a string that is a mask.
var masked = regexp.MustCompile(`^"(redacted:|https://redacted\.invalid/)[0-9a-f]{4}"$`)

// mask is what stands for a secret: a value that its key takes.
func mask(path []string, literal string) string {
	if literal == `""` || literal == `''` || masked.MatchString(literal) {
		return literal[1 : len(literal)-1]
	}
	sum := sha256.Sum256([]byte(literal))
	tag := hex.EncodeToString(sum[:2])
	if path[len(path)-1] == "webhook" {
		return "https://redacted.invalid/" + tag
	}
	return "redacted:" + tag
}

// hasUser reports whether a text that should be a URL names a user, however broken the rest is.
func hasUser(s string) bool {
	_, rest, ok := strings.Cut(s, "//")
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return ok && strings.Contains(rest, "@")
}
