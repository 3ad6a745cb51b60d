package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// issue is what is wrong with one value; the reader of its table adds the place.
type issue struct {
	message string
	hint    string // what was probably meant, as it would be written in the file
	at      int    // the entry of a list that it is about, counted from 1; 0 = the whole value
	next    *issue // one more about the same key: every entry of a list has its own
}

// and returns a list of issues with one more at its end; either may be nil.
func (i *issue) and(more *issue) *issue {
	if i == nil {
		return more
	}
	last := i
	for last.next != nil {
		last = last.next
	}
	last.next = more
	return i
}

// entry says which entry of a list of several the issues are about.
func (i *issue) entry(n, of int) *issue {
	for p := i; p != nil; p = p.next {
		p.at = n + 1
		if of > 1 {
			p.message = fmt.Sprintf("entry %d: %s", n+1, p.message)
		}
	}
	return i
}

// without drops the issues about entries that other has issues about.
func (i *issue) without(other *issue) *issue {
	var left *issue
	for p := i; p != nil; {
		next := p.next
		p.next = nil
		told := false
		for o := other; o != nil; o = o.next {
			told = told || o.at == p.at
		}
		if !told {
			left = left.and(p)
		}
		p = next
	}
	return left
}

func issuef(format string, args ...any) *issue {
	return &issue{message: fmt.Sprintf(format, args...)}
}

func (i *issue) suggest(hint string) *issue {
	i.hint = hint
	return i
}

// key is one key of a table that is read into a T: its name, its default as it would stand in
// the file (nil = none), and how its value is read and bounded.
type key[T any] struct {
	name string
	def  any
	set  func(v any, into *T) *issue
}

// keyTable is all keys of one table.
type keyTable[T any] struct {
	where string // the table, as a person would write it
	keys  []key[T]
	index map[string]int
	subs  []string // keys that somebody else reads, tables and candidates
}

func newTable[T any](where string, subs []string, keys ...key[T]) *keyTable[T] {
	t := &keyTable[T]{where: where, keys: keys, subs: subs, index: make(map[string]int, len(keys))}
	for i, k := range keys {
		t.index[k.name] = i
	}
	return t
}

// names lists all keys that may stand in the table.
func (t *keyTable[T]) names() []string {
	names := slices.Clone(t.subs)
	for _, k := range t.keys {
		names = append(names, k.name)
	}
	return names
}

// defaults returns a T as an empty file has it.
func (t *keyTable[T]) defaults() T {
	var v T
	for _, k := range t.keys {
		if k.def == nil {
			continue
		}
		if i := k.set(k.def, &v); i != nil {
			panic(fmt.Sprintf("default of %s: %s", k.name, i.message)) // a constant of ours; a test reads all of them
		}
	}
	return v
}

// duration is a key that holds a length of time, lo and hi included.
func duration[T any](name, def string, lo, hi time.Duration, field func(*T) *time.Duration) key[T] {
	set := func(v any, into *T) *issue {
		d, i := parseDuration(v)
		if i != nil {
			if n, ok := v.(int64); ok && n > 0 && n > int64(hi/time.Second) && n <= int64(hi/time.Millisecond) {
				i.suggest(fmt.Sprintf(`"%dms"`, n)) // as seconds it would be out of range
			}
			return i
		}
		if d < lo || d > hi {
			return issuef("%s is out of range: from %s to %s", durationText(d), durationText(lo), durationText(hi))
		}
		*field(into) = d
		return nil
	}
	return key[T]{name, def, set}
}

// integer is a key that holds a whole number, lo and hi included.
func integer[T any](name string, def any, lo, hi int64, set func(*T, int64)) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		n, ok := v.(int64)
		switch {
		case !ok:
			i := issuef("want a whole number, not %s", describe(v))
			if s, ok := v.(string); ok {
				if _, err := strconv.ParseInt(s, 10, 64); err == nil {
					return i.suggest(s)
				}
			}
			return i
		case n < lo || n > hi:
			return issuef("%d is out of range: from %d to %d", n, lo, hi)
		}
		set(into, n)
		return nil
	}}
}

// fraction is a key that holds a number with a decimal point, lo and hi included.
func fraction[T any](name string, def any, lo, hi float64, field func(*T) *float64) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		f, ok := v.(float64)
		if n, isInt := v.(int64); isInt {
			f, ok = float64(n), true
		}
		switch {
		case !ok:
			i := issuef("want a number, not %s", describe(v))
			if s, ok := v.(string); ok {
				if p, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64); err == nil && strings.HasSuffix(s, "%") {
					return i.suggest(strconv.FormatFloat(p/100, 'g', -1, 64))
				}
			}
			return i
		case math.IsNaN(f) || f < lo || f > hi:
			return issuef("%v is out of range: from %v to %v", f, lo, hi)
		}
		*field(into) = f
		return nil
	}}
}

// boolean is a key that holds true or false.
func boolean[T any](name string, def any, field func(*T) *bool) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		b, ok := v.(bool)
		if !ok {
			i := issuef("want true or false, not %s", describe(v))
			switch s, _ := v.(string); strings.ToLower(s) {
			case "true", "yes", "on", "1":
				return i.suggest("true")
			case "false", "no", "off", "0":
				return i.suggest("false")
			}
			return i
		}
		*field(into) = b
		return nil
	}}
}

// enum is a key that holds one of a few words; set gets the index of the word.
func enum[T any](name string, def any, words []string, set func(*T, int)) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		s, i := parseString(v)
		if i != nil {
			return i
		}
		n := slices.Index(words, s)
		if n < 0 {
			hint := oldValues[name][s]
			if hint == "" {
				hint = nearest(s, words)
			}
			return issuef("%s is none of %s", strconv.Quote(s), strings.Join(words, ", ")).suggest(hint)
		}
		set(into, n)
		return nil
	}}
}

// text is a key that holds a string; parse checks and keeps it, and must not keep s itself
// without a copy: it is a part of the whole file.
func text[T any](name string, def any, parse func(s string, into *T) *issue) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		s, i := parseString(v)
		if i != nil {
			return i
		}
		return parse(s, into)
	}}
}

// texts is a key that holds a list of strings.
func texts[T any](name string, def any, parse func(list []string, into *T) *issue) key[T] {
	return key[T]{name, def, func(v any, into *T) *issue {
		list, i := parseStrings(v)
		if list == nil {
			return i
		}
		return i.and(parse(list, into).without(i)) // what is not a string hides nothing about the others
	}}
}

func parseString(v any) (string, *issue) {
	s, ok := v.(string)
	if !ok {
		return "", issuef("want a string in quotes, not %s", describe(v))
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", issuef("the string holds a NUL")
	}
	return s, nil
}

func parseStrings(v any) ([]string, *issue) {
	list, ok := v.([]any)
	if !ok {
		i := issuef("want a list of strings, not %s", describe(v))
		if s, ok := v.(string); ok {
			i.suggest("[" + strconv.Quote(s) + "]")
		}
		return nil, i
	}
	out := make([]string, len(list))
	var issues *issue
	for n, e := range list {
		s, i := parseString(e)
		issues = issues.and(i.entry(n, len(list)))
		out[n] = s
	}
	return out, issues
}

// describe names a TOML value of the wrong type.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + strconv.Quote(shorten(v))
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprintf("%v", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "a date or time"
}

// shorten keeps a message on one line.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

func itoa(n int) string { return strconv.Itoa(n) }
