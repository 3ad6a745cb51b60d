package config

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// A file of thousands of names is mostly sections of a few plain lines:
//
//	[name."www.example.com"]
//	candidates = ["192.0.2.1", "2001:db8::1"]
//
// The TOML library takes two thirds of a start to decode them. So they are cut out of the text and read here, and the
// library gets the rest. It stays the authority: what is read here is what it would make the same of, and wherever the
// two parts could have to do with each other, or anything is wrong, it gets the whole text (TestPlainMatchesLibrary,
// FuzzPlain).

// plainSection is a table [name.KEY] that consists of nothing but lines that plainLine understands, and is the only table
// at or below that key.
type plainSection struct {
	name string // the key
	body string // the lines below the header
	rest bool   // it is no plain one, but the library's
}

// parts is a text that has been cut up.
type parts struct {
	rest   string          // for the library
	order  []plainSection  // every name where it is first seen; one of the rest without body
	others map[string]bool // the names of the rest
	plain  int             // how many of order are plain
}

// decodeParts is decode, but the names that order tells of without rest are not in tree. order is nil if all are.
func decodeParts(text string) (tree map[string]any, meta toml.MetaData, order []plainSection, problem *Problem) {
	if p, ok := partsOf(text); ok && p.plain > 0 {
		tree, meta, problem = decode(p.rest)
		if problem == nil && p.fits(tree) {
			return tree, meta, p.order, nil
		}
	}
	tree, meta, problem = decode(text)
	return tree, meta, nil, problem
}

// read puts into table what the library would make of the section.
func (s *plainSection) read(table map[string]any) {
	for i := 0; i < len(s.body); {
		_, next, ok := plainLine(s.body, i, table)
		if !ok {
			panic("config: a line of a plain section that isn't")
		}
		i = next
	}
}

// onlyList is what the section has to say if that is one list of strings, of a key, appended to list[:0]; most sections
// of a large file are so. False: it says something else.
func (s *plainSection) onlyList(key string, list []string) (_ []string, ok bool) {
	body := s.body
	i := skipSpace(body, 0)
	if !strings.HasPrefix(body[i:], key) {
		return list, false
	}
	i = skipSpace(body, i+len(key))
	if i == len(body) || body[i] != '=' {
		return list, false
	}
	i = skipSpace(body, i+1)
	if i == len(body) || body[i] != '[' {
		return list, false
	}
	list = list[:0]
	end := plainList(body, i, func(text string) { list = append(list, text) })
	for i, ok = lineEnd(body, end); ok && i < len(body); { // empty lines and comments may follow
		i, ok = lineEnd(body, i)
	}
	return list, ok
}

// tableText is one table as it stands in the text.
type tableText struct {
	name      string // of [name.KEY...]; "" = another table, or what stands before the first
	start     int    // of its header
	body, end int
	plain     bool
}

// partsOf cuts the plain sections out of text. False: do not, give the library the whole.
func partsOf(text string) (*parts, bool) {
	list, ok := sectionsOf(text)
	if !ok {
		return nil, false
	}
	p := &parts{others: map[string]bool{}}
	for i := range list {
		if s := &list[i]; s.name != "" && !s.plain {
			p.others[s.name] = true
		}
	}
	var rest strings.Builder
	p.order = make([]plainSection, 0, len(list))
	seen := make(map[string]bool, len(list))
	for i := range list {
		s := &list[i]
		plain := s.plain && !p.others[s.name]
		if !plain {
			rest.WriteString(text[s.start:s.end])
		}
		if s.name == "" {
			continue
		}
		if seen[s.name] {
			if plain {
				return nil, false // there twice: an error, and the library words it
			}
			continue
		}
		seen[s.name] = true
		o := plainSection{name: s.name, rest: !plain}
		if plain {
			p.plain++
			o.body = text[s.body:s.end]
		}
		p.order = append(p.order, o)
	}
	p.rest = rest.String()
	return p, true
}

// fits reports whether the tree of the rest has no other names than those that partsOf saw in it.
func (p *parts) fits(tree map[string]any) bool {
	v, there := tree["name"]
	if !there {
		return len(p.others) == 0
	}
	names, ok := v.(map[string]any)
	if !ok || len(names) != len(p.others) {
		return false
	}
	for name := range names {
		if !p.others[name] {
			return false
		}
	}
	return true
}

// sectionsOf finds all tables of text. False: the text is not TOML, or has a table that may be a name's and whose key
// is not understood here.
func sectionsOf(text string) ([]tableText, bool) {
	if !utf8.ValidString(text) {
		return nil, false
	}
	list := make([]tableText, 1, 2+min(strings.Count(text, "\n["), mostAtOnce))
	var keys []string // of the last section
	for i := 0; i < len(text); {
		last := &list[len(list)-1]
		if at := skipSpace(text, i); at < len(text) && text[at] == '[' {
			last.end = i
			s, ok := headerAt(text, i, at)
			if !ok {
				return nil, false
			}
			list, i, keys = append(list, s), s.body, keys[:0]
			continue
		}
		key, next, ok := plainLine(text, i, nil)
		if ok && (key != "name" || len(list) > 1) {
			last.plain = last.plain && len(keys) < maxPlainKeys && !slices.Contains(keys, key)
			if key != "" {
				keys = append(keys, key)
			}
			i = next
			continue
		}
		last.plain = false
		if i, ok = skipStatement(text, i, len(list) == 1); !ok {
			return nil, false
		}
	}
	list[len(list)-1].end = len(text)
	return list, true
}

// mostAtOnce bounds the room for tables that is made before they are found.
const mostAtOnce = 1 << 16

// maxPlainKeys is more keys than a name has that are no tables.
const maxPlainKeys = 32

// skipStatement passes over the key and value at or behind i, or over what is before the next header. False: it is none,
// or has to do with names although it stands before all tables.
func skipStatement(text string, i int, first bool) (next int, ok bool) {
	w := &walker{s: text, i: i, visit: func(path []string, _ int) bool { return !first || path[0] != "name" }}
	if w.blank(); w.i < len(text) && text[w.i] != '[' {
		w.pair(nil)
		w.skipLine()
	}
	return w.i, !w.done && w.i > i
}

// headerAt reads the table header whose line begins at start and whose bracket is at at. The section ends where it
// begins. False: it may be a name's, but is written in another way than [name.KEY] or [name.KEY.more].
func headerAt(text string, start, at int) (tableText, bool) {
	s := tableText{start: start}
	line := text[at:]
	if end := strings.IndexByte(line, '\n'); end >= 0 {
		line = line[:end+1]
	}
	s.body = at + len(line)
	s.end = s.body
	inner, ok := strings.CutPrefix(line, "[name.")
	if !ok {
		w := &walker{s: line, visit: func([]string, int) bool { return true }}
		w.header()
		return s, !w.done && w.table[0] != "name"
	}
	key, rest, ok := plainKey(inner)
	if !ok || rest == "" {
		return s, false
	}
	s.name = key
	_, s.plain = lineEnd(rest, 1)
	s.plain = s.plain && rest[0] == ']'
	return s, s.plain || rest[0] == '.' || rest[0] == ']'
}

// plainKey cuts a key off that is bare, or in double quotes and without escapes.
func plainKey(s string) (key, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		n := plainString(s, 0)
		if n <= 2 {
			return "", "", false
		}
		return s[1 : n-1], s[n:], true
	}
	n := 0
	for n < len(s) && bareKeyByte(s[n]) {
		n++
	}
	return s[:n], s[n:], n > 0
}

// plainLine reads the line at i if it is empty, a comment, or KEY = VALUE with a bare key and, on this line, a string
// without escapes, a list of such strings, a whole number, true or false. It returns the key, if any, and where the next
// line begins. Unless into is nil it puts what the library would into it.
func plainLine(text string, i int, into map[string]any) (key string, next int, ok bool) {
	i = skipSpace(text, i)
	start := i
	for i < len(text) && bareKeyByte(text[i]) {
		i++
	}
	key = text[start:i]
	if key == "" {
		next, ok = lineEnd(text, i)
		return "", next, ok
	}
	i = skipSpace(text, i)
	if i == len(text) || text[i] != '=' {
		return "", 0, false
	}
	i = skipSpace(text, i+1)
	if i == len(text) {
		return "", 0, false
	}
	switch text[i] {
	case '"':
		end := plainString(text, i)
		if end == 0 {
			return "", 0, false
		}
		if into != nil {
			into[key] = text[i+1 : end-1]
		}
		i = end
	case '[':
		var keep func(string)
		var list []any
		if into != nil {
			list = make([]any, 0, 2)
			keep = func(text string) { list = append(list, text) }
		}
		end := plainList(text, i, keep)
		if end == 0 {
			return "", 0, false
		}
		if into != nil {
			into[key] = list
		}
		i = end
	default:
		end, v := plainWord(text, i)
		if v == nil {
			return "", 0, false
		}
		if into != nil {
			into[key] = v
		}
		i = end
	}
	next, ok = lineEnd(text, i)
	return key, next, ok
}

// plainString returns where the string at i ends; 0: it is not a plain one.
func plainString(text string, i int) int {
	for i++; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i + 1
		case c == '\\' || control(c):
			return 0
		}
	}
	return 0
}

// plainList gives the strings of the list at i, which ends on this line, to keep, if that is not nil, and returns where
// it ends; 0: it is not one.
func plainList(text string, i int, keep func(string)) (end int) {
	i = skipSpace(text, i+1)
	for i < len(text) && text[i] == '"' {
		end := plainString(text, i)
		if end == 0 {
			return 0
		}
		if keep != nil {
			keep(text[i+1 : end-1])
		}
		if i = skipSpace(text, end); i < len(text) && text[i] == ',' {
			i = skipSpace(text, i+1)
		} else {
			break
		}
	}
	if i < len(text) && text[i] == ']' {
		return i + 1
	}
	return 0
}

// plainWord reads true, false or a whole number without sign; v is nil if it is something else.
func plainWord(text string, i int) (end int, v any) {
	end = i
	for end < len(text) && bareKeyByte(text[end]) {
		end++
	}
	switch word := text[i:end]; {
	case word == "true":
		return end, true
	case word == "false":
		return end, false
	case word == "" || len(word) > 1 && word[0] == '0' || !allDigits(word):
		return end, nil
	default:
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return end, nil
		}
		return end, n
	}
}

// lineEnd passes over white space and a comment up to the beginning of the next line. False: there is something else.
func lineEnd(text string, i int) (next int, ok bool) {
	i = skipSpace(text, i)
	if i < len(text) && text[i] == '#' {
		for i < len(text) && !control(text[i]) {
			i++
		}
	}
	switch {
	case i == len(text):
		return i, true
	case text[i] == '\n':
		return i + 1, true
	}
	if strings.HasPrefix(text[i:], "\r\n") {
		return i + 2, true
	}
	return 0, false
}

func skipSpace(text string, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t') {
		i++
	}
	return i
}

// control reports whether c may stand neither in a string nor in a comment.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }
