package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// FuzzParse holds for any input: no panic, a Config or an error but not both, every problem at a place
// inside the file, the walk over the text at one with the library, and a second parse with the same result.
func FuzzParse(f *testing.F) {
	for _, dir := range []string{"bad", "good"} {
		files, _ := os.ReadDir("testdata/" + dir)
		for _, e := range files {
			if strings.HasSuffix(e.Name(), ".toml") {
				data, err := os.ReadFile("testdata/" + dir + "/" + e.Name())
				if err != nil {
					f.Fatal(err)
				}
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, r := Parse("fuzz.toml", data)
		if (c == nil) != (r.Err() != nil) {
			t.Fatalf("config %v, report %v", c != nil, r.Problems)
		}
		text := stripBOM(string(data))
		lines := strings.Split(text, "\n")
		for _, p := range r.Problems {
			if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > len(lines[p.Line-1])+1 {
				t.Fatalf("%d:%d is outside: %s", p.Line, p.Col, r.Text(p))
			}
		}
		if want, ok := libraryKeys(text); ok {
			if got, _ := keysOf(text); !slices.Equal(got, want) {
				t.Fatalf("keys %q, library %q", got, want)
			}
		}
		if c == nil {
			return
		}
		for _, n := range c.Names {
			if again, i := canonicalName(n.Name); i != nil || again != n.Name {
				t.Fatalf("%q is not canonical: %q, %v", n.Name, again, i)
			}
			for _, cand := range n.Candidates {
				if cand.Check == nil || len(cand.Addrs)+len(cand.Hosts) == 0 || cand.Label == "" {
					t.Fatalf("candidate %+v", cand)
				}
			}
		}
		c.Summary()
	})
}
