package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

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

// harSection is how har's own file opens a section; TOML has no braces there.
var harSection = regexp.MustCompile(`(?m)^\s*(name|candidate)\s+\S+\s*\{`)

// syntaxProblem translates the library's error. Its columns are off by one line at times, so place
// comes from the byte offset. A key that is there twice is told with the line of the first.
func syntaxProblem(text string, pe toml.ParseError) *Problem {
	offset := min(max(pe.Position.Start, 0), len(text))
	message := strings.TrimPrefix(pe.Message, "toml: ")
	var path []string
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
