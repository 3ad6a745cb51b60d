package config

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library keeps the positions of keys to itself, and what it keeps is where a value
// starts, not its key; inside dotted keys and inline tables it is neither. So the keys of a file
// are found again here, by a walk over text that the library has accepted, and only when
// there is something to report. TestKeysMatchLibrary holds the walk to the library's own list
// of keys.

// position is a place in a file, counted from 1, in bytes. The zero value is "nowhere".
type position struct{ line, col int }

// found is a problem before its place is known.
type found struct {
	severity Severity
	path     []string // nil = the file as a whole
	first    []string // where the same thing was said first; its line is added to the message
	message  string
	hint     string
}

func (f *found) problem(at position) Problem {
	return Problem{
		Line: at.line, Col: at.col, Severity: f.severity,
		Path: pathText(f.path), Message: f.message, Suggestion: f.hint,
	}
}

// pathText writes a key as TOML would.
func pathText(path []string) string { return toml.Key(path).String() }

// pathKey is path as a map key. No part can hold the separator unless the file spells it out,
// and then two problems at worst swap places.
func pathKey(path []string) string { return strings.Join(path, "\x00") }

// locate gives every problem its place in text, and sorts them.
func locate(text string, problems []found) []Problem {
	wanted := make(map[string]place, 2*len(problems))
	want := func(path []string) {
		for n := len(path); n > 0; n-- { // parents too: the nearest one stands in for what is missing
			k := pathKey(path[:n])
			if _, ok := wanted[k]; ok {
				return
			}
			wanted[k] = place{}
		}
	}
	for i := range problems {
		want(problems[i].path)
		want(problems[i].first)
	}
	walkKeys(text, func(path []string, offset int) bool {
		for n := 1; n <= len(path); n++ {
			k := pathKey(path[:n])
			p, ok := wanted[k]
			explicit := n == len(path)
			if ok && (!p.known || explicit && !p.explicit) {
				wanted[k] = place{offset, true, explicit}
			}
		}
		return true
	})
	lines := lineStarts(text)
	where := func(path []string) position {
		for n := len(path); n > 0; n-- {
			if p := wanted[pathKey(path[:n])]; p.known {
				return lines.position(p.offset)
			}
		}
		return position{1, 1}
	}
	out := make([]Problem, len(problems))
	for i := range problems {
		f := problems[i]
		if f.first != nil {
			if a, b := where(f.path), where(f.first); b.line > a.line || b.line == a.line && b.col > a.col {
				f.path, f.first = f.first, f.path
			}
			f.message = strings.ReplaceAll(f.message, "{line}", "line "+itoa(where(f.first).line))
		}
		out[i] = f.problem(where(f.path))
	}
	sortProblems(out)
	return out
}

// place is where a wanted key was seen. A definition of its own beats a mention as a part of a
// longer key.
type place struct {
	offset          int
	known, explicit bool
}

func sortProblems(p []Problem) {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// starts are the byte offsets at which the lines of a text begin.
type starts []int

func lineStarts(text string) starts {
	s := starts{0}
	for i := 0; ; {
		n := strings.IndexByte(text[i:], '\n')
		if n < 0 {
			return s
		}
		i += n + 1
		s = append(s, i)
	}
}

func (s starts) position(offset int) position {
	line := sort.SearchInts(s, offset+1)
	return position{line, offset - s[line-1] + 1}
}

// walkKeys calls visit for every key in text, in file order: path is the whole key, offset is
// that of its first byte as written (for a table header, of its bracket). path is valid only during the
// call. visit returns false to end the walk. On text that is not TOML it visits what it makes
// of it, and ends.
func walkKeys(text string, visit func(path []string, offset int) bool) {
	w := &walker{s: text, visit: visit}
	w.walk()
}

func (w *walker) walk() {
	for !w.done {
		w.blank()
		if w.i >= len(w.s) {
			return
		}
		if w.s[w.i] == '[' {
			w.header()
		} else {
			w.pair(w.table)
		}
		w.skipLine()
	}
}

// walker is the state of walkKeys.
type walker struct {
	s     string
	i     int
	table []string // the header in force
	visit func(path []string, offset int) bool
	depth int // of lists and inline tables
	done  bool
}

// blank skips white space, line ends and comments.
func (w *walker) blank() {
	for w.i < len(w.s) {
		switch w.s[w.i] {
		case ' ', '\t', '\r', '\n':
			w.i++
		case '#':
			w.skipLine()
		default:
			return
		}
	}
}

func (w *walker) skipLine() {
	if n := strings.IndexByte(w.s[w.i:], '\n'); n >= 0 {
		w.i += n + 1
	} else {
		w.i = len(w.s)
	}
}

func (w *walker) space() {
	for w.i < len(w.s) && (w.s[w.i] == ' ' || w.s[w.i] == '\t') {
		w.i++
	}
}

func (w *walker) at(c byte) bool { return w.i < len(w.s) && w.s[w.i] == c }

// header reads [a.b] and [[a.b]].
func (w *walker) header() {
	start := w.i
	for w.at('[') {
		w.i++
	}
	w.table = w.key(nil)
	w.done = w.done || len(w.table) == 0 || !w.visit(w.table, start)
	for w.at(']') {
		w.i++
	}
}

// pair reads key = value below a table.
func (w *walker) pair(table []string) {
	start := w.i
	path := w.key(slices.Clone(table))
	if len(path) == len(table) || !w.at('=') {
		w.done = true
		return
	}
	w.i++
	if w.done = w.done || !w.visit(path, start); !w.done {
		w.space()
		w.value(path)
	}
}

// key reads a dotted key and the space behind it, and appends its parts to path.
func (w *walker) key(path []string) []string {
	for {
		w.space()
		start := w.i
		switch {
		case w.at('"') || w.at('\''):
			w.str()
			path = append(path, unquote(w.s[start:w.i]))
		default:
			for w.i < len(w.s) && bareKeyByte(w.s[w.i]) {
				w.i++
			}
			if w.i == start {
				w.done = true
				return path
			}
			path = append(path, w.s[start:w.i])
		}
		w.space()
		if !w.at('.') {
			return path
		}
		w.i++
	}
}

func bareKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// unquote returns what a quoted key means; the library knows the escapes.
func unquote(literal string) string {
	if len(literal) >= 2 && (literal[0] == '\'' || !strings.Contains(literal, `\`)) {
		return literal[1 : len(literal)-1]
	}
	var v struct{ K string }
	if _, err := toml.Decode("K = "+literal, &v); err != nil {
		return literal
	}
	return v.K
}

// value skips a value, visiting the keys of the inline tables in it.
func (w *walker) value(path []string) {
	switch {
	case w.at('"') || w.at('\''):
		w.str()
	case w.at('['):
		w.i++
		w.list(']', func() { w.value(path) })
	case w.at('{'):
		w.i++
		w.list('}', func() { w.pair(path) })
	default:
		if n := strings.IndexAny(w.s[w.i:], ",]}#\r\n"); n >= 0 {
			w.i += n
		} else {
			w.i = len(w.s)
		}
	}
}

// list reads what stands between commas up to end, comments and line ends included.
func (w *walker) list(end byte, element func()) {
	if w.depth++; w.depth > maxDepth { // only in text that the library has not seen yet, and will not
		w.done = true
	}
	defer func() { w.depth-- }()
	for !w.done {
		w.blank()
		switch {
		case w.i >= len(w.s):
			w.done = true
		case w.at(end):
			w.i++
			return
		case w.at(','):
			w.i++
		default:
			before := w.i
			element()
			w.done = w.done || w.i == before
		}
	}
}

// str skips a string of any of the four kinds.
func (w *walker) str() {
	q := w.s[w.i : w.i+1]
	long := strings.HasPrefix(w.s[w.i:], q+q+q)
	closing := q
	if long {
		closing = q + q + q
	}
	w.i += len(closing)
	for w.i < len(w.s) {
		switch {
		case w.s[w.i] == '\\' && q == `"`:
			w.i += 2
		case strings.HasPrefix(w.s[w.i:], closing):
			w.i += len(closing)
			for n := 0; long && n < 2 && w.at(q[0]); n++ { // """a""""" ends in two quotes of its own
				w.i++
			}
			return
		case w.s[w.i] == '\n' && !long:
			w.done = true
			return
		default:
			w.i++
		}
	}
	w.i = min(w.i, len(w.s))
	w.done = true
}
