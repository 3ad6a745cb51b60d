package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// stripBOM removes a UTF-8 byte order mark, which counts in no column.
func stripBOM(text string) string { return strings.TrimPrefix(text, "\ufeff") }

// decode parses text as TOML into plain maps; meta knows all keys in file order. The library decodes
// into any without reflection beyond the top level, which is what makes 10,000 names cheap.
func decode(text string) (tree map[string]any, meta toml.MetaData, problem *Problem) {
	defer func() {
		if r := recover(); r != nil { // the library's own assertions
			problem = &Problem{Line: 1, Col: 1, Message: fmt.Sprintf("cannot be parsed as TOML: %v", r)}
		}
	}()
	if at := tooDeep(text); at >= 0 {
		p := lineStarts(text).position(at)
		return nil, meta, &Problem{Line: p.line, Col: p.col, Message: fmt.Sprintf("lists and tables are nested more than %d deep", maxDepth)}
	}
	meta, err := toml.Decode(text, &tree)
	if err == nil {
		return tree, meta, nil
	}
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return nil, meta, &Problem{Line: 1, Col: 1, Message: err.Error()}
	}
	return nil, meta, syntaxProblem(text, pe)
}

// maxDepth bounds the nesting of lists and inline tables; a configuration needs 5. The library's cost
// grows with the square of it: 10,000 braces in a row, in a file of 40 kB, take it minutes and gigabytes.
const maxDepth = 64

// tooDeep returns the offset of the bracket that is one too many, or -1.
func tooDeep(text string) int {
	w := &walker{s: text}
	for depth := 0; !w.done; {
		n := strings.IndexAny(text[w.i:], "[{]}\"'#")
		if n < 0 {
			return -1
		}
		w.i += n
		switch text[w.i] {
		case '"', '\'':
			w.str()
			continue
		case '#':
			w.skipLine()
			continue
		case '[', '{':
			if depth++; depth > maxDepth {
				return w.i
			}
		default:
			depth--
		}
		w.i++
	}
	return -1
}

// harSection is how har's own file opens a section; TOML has no braces there.
var harSection = regexp.MustCompile(`(?m)^\s*(name|candidate)\s+\S+\s*\{`)

// syntaxProblem translates the library's error. Its columns are off by one line at times, so place
// comes from the byte offset. A key that is there twice is told with the line of the first.
func syntaxProblem(text string, pe toml.ParseError) *Problem {
	offset := min(max(pe.Position.Start, 0), len(text))
	message := strings.TrimPrefix(pe.Message, "toml: ")
	var path []string
	if strings.Contains(message, "UTF-8 byte") || strings.Contains(message, "control character") {
		offset = forbiddenByte(text, offset)
	}
	if key, hide := quotesSecret(text, offset, message); hide && !strings.Contains(message, "already") {
		message, path = hiddenText, key
	}
	if strings.Contains(message, "already") {
		var first int
		if path, first, offset = duplicateKey(text, offset); path != nil {
			message = fmt.Sprintf("is there twice, first on line %d", lineStarts(text).position(first).line)
		}
	}
	if harSection.MatchString(text) {
		message += "; this looks like har's own format, the new one is TOML: [name.\"...\"] and candidates = [...]"
	}
	at := lineStarts(text).position(offset)
	return &Problem{Line: at.line, Col: at.col, Path: pathText(path), Message: message}
}

// forbiddenByte returns the offset of the first byte that may stand nowhere in TOML: no UTF-8, or a
// control character. The library names the place where it began to look.
func forbiddenByte(text string, offset int) int {
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		control := r < ' ' && r != '\t' && r != '\n' && !strings.HasPrefix(text[i:], "\r\n") || r == 0x7f
		if control || r == utf8.RuneError && size == 1 {
			return i
		}
	}
	return offset
}

// duplicateKey finds the key at offset and where it was defined before. path is nil if
// it was not.
func duplicateKey(text string, offset int) (path []string, first, second int) {
	seen := map[string]int{}
	second = offset
	walkKeys(text, func(p []string, at int) bool {
		k := pathKey(p)
		before, again := seen[k]
		if !again {
			seen[k] = at
		}
		for n := 1; n < len(p); n++ { // a.b makes a, which cannot be a value as well
			if k := pathKey(p[:n]); seen[k] == 0 {
				if _, ok := seen[k]; !ok {
					seen[k] = at
				}
			}
		}
		if again && at <= offset {
			path, first, second = slices.Clone(p), before, at
		}
		return at < offset
	})
	if second > offset || offset-second > 2 { // not the one the library means: "[[ " at most
		path, second = nil, offset
	}
	return path, first, second
}
