package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// keysOf lists the keys that walkKeys finds, without those inside the tables of a list, which
// the library does not tell apart from others.
func keysOf(text string) (keys []string, offsets []int) {
	walkKeys(text, func(path []string, offset int) bool {
		keys = append(keys, toml.Key(path).String())
		offsets = append(offsets, offset)
		return true
	})
	return keys, offsets
}

// libraryKeys lists the keys of the library, or false if it rejects the text.
func libraryKeys(text string) ([]string, bool) {
	_, meta, problem := decode(text)
	if problem != nil {
		return nil, false
	}
	keys := meta.Keys()
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.String()
	}
	return out, true
}

// TestKeysMatchLibrary holds the walk over the text to the library's own list of keys.
func TestKeysMatchLibrary(t *testing.T) {
	n := 0
	for _, dir := range []string{"bad", "good"} {
		for _, file := range inputs(t, dir, 5) {
			_, _, data := parseFile(t, file)
			text := stripBOM(string(data))
			want, ok := libraryKeys(text)
			if !ok {
				continue
			}
			n++
			if got, _ := keysOf(text); !slices.Equal(got, want) {
				t.Errorf("%s:\ngot  %q\nwant %q", filepath.Base(file), got, want)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d files compared", n)
	}
}

// TestKeyPositions holds lines and columns to hand-counted ones.
func TestKeyPositions(t *testing.T) {
	const text = "a = 1\r\n" +
		"\t\"b.c\" = 2\n" +
		" [x . 'y']\n" +
		"é = 0\n" + // not TOML 1.0; the walk ends here
		""
	want := "a 1:1|\"b.c\" 2:2|x.y 3:2"
	check := func(text, want string) {
		t.Helper()
		keys, offsets := keysOf(text)
		lines := lineStarts(text)
		var got []string
		for i, k := range keys {
			p := lines.position(offsets[i])
			got = append(got, fmt.Sprintf("%s %d:%d", k, p.line, p.col))
		}
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, s, want)
		}
	}
	check(text, want)
	check("k = { a = [ { b = 1 } ], c.d = '}' } # e = 2\nf = 1", "k 1:1|k.a 1:7|k.a.b 1:15|k.c.d 1:26|f 2:1")
	check("k = [\n  1, # ]\n  2,\n]\nz = \"\"\"\n x = \"\"\"\"\"\nq = 1", "k 1:1|z 5:1|q 7:1")
	check("\"\\u00e9\\\"\" = 1\n", "\"é\\\"\" 1:1")
	check("ü = 1", "")
	check("a = \"\\", "a 1:1")
	check("a", "")
	check("[", "")
	check("a = [", "a 1:1")
}

// TestSyntaxPosition holds positions of syntax errors, which the library gets wrong at the start of a line.
func TestSyntaxPosition(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1\n\n= 2\n":                         "3:1",
		"a = 1\nb = \"\xff\"\n":                  "2:6",
		"a = 1\n# caf\xe9\n":                     "2:6",
		"a = 1\n\x00":                            "2:1",
		"a = 1\r\nb = 'x\x7f'\r\n":               "2:7",
		"a = 1\rb = 2\n":                         "1:6",
		"a = 1\r\n\tb == 2\r\n":                  "2:5",
		"[a]\nb = 1\n  [a]\n":                    "3:3",
		"a = {b = 1, b = 2}\n":                   "1:13",
		"a = \"\"\"\nx\n\"\"\"\na=1\n":           "4:1",
		"a = " + strings.Repeat("{ a = ", 10000): "1:389",
		"a = [ # [\n" + strings.Repeat("[", 64) + strings.Repeat("]", 64): "2:64",
		"\ufeff= 1": "1:1",
	} {
		_, r := Parse("x", []byte(text))
		if len(r.Problems) != 1 {
			t.Errorf("%q: %v", text, r.Problems)
			continue
		}
		if got := fmt.Sprintf("%d:%d", r.Problems[0].Line, r.Problems[0].Col); got != want {
			t.Errorf("%q: at %s, want %s: %s", text, got, want, r.Problems[0].Message)
		}
	}
}
