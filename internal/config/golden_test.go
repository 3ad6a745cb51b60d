package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with the golden file beside a test's input.
func golden(t *testing.T, input, got string) {
	t.Helper()
	file := strings.TrimSuffix(input, ".toml") + ".golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func inputs(t *testing.T, dir string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
	if err != nil || len(files) < least {
		t.Fatalf("%d files in %s, want %d (%v)", len(files), dir, least, err)
	}
	return files
}

func parseFile(t *testing.T, file string) (*Config, Report, []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, r := Parse(filepath.Base(file), data)
	return c, r, data
}

// TestBad holds every message and every position of broken files.
func TestBad(t *testing.T) {
	for _, file := range inputs(t, "bad", 45) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, r, data := parseFile(t, file)
			if c != nil || r.Err() == nil {
				t.Error("accepted")
			}
			checkPositions(t, data, r)
			var b bytes.Buffer
			if err := r.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(strings.ReplaceAll(b.String(), "\n", ""), "\x1b\r\x00") || strings.Count(b.String(), "\n") != len(r.Problems) {
				t.Errorf("control characters in the output: %q", b.String())
			}
			golden(t, file, b.String())
		})
	}
}

// checkPositions holds every problem to a place inside the file, and its key to the text there.
func checkPositions(t *testing.T, data []byte, r Report) {
	t.Helper()
	lines := strings.Split(stripBOM(string(data)), "\n")
	last := Problem{}
	for _, p := range r.Problems {
		if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > len(lines[p.Line-1])+1 {
			t.Fatalf("%d:%d is outside the file: %s", p.Line, p.Col, r.Text(p))
		}
		if p.Line < last.Line || p.Line == last.Line && p.Col < last.Col {
			t.Errorf("not in file order: %s", r.Text(p))
		}
		last = p
		rest := lines[p.Line-1][p.Col-1:]
		before := strings.TrimSpace(lines[p.Line-1][:p.Col-1])
		if p.Path == "" {
			continue
		}
		if rest == "" || strings.ContainsRune(" \t\r\n=]}", rune(rest[0])) {
			t.Errorf("no key at %d:%d but %q: %s", p.Line, p.Col, rest, r.Text(p))
		}
		if before != "" && !strings.HasSuffix(before, "{") && !strings.HasSuffix(before, ",") {
			t.Errorf("not the first byte of a key at %d:%d, behind %q: %s", p.Line, p.Col, before, r.Text(p))
		}
	}
}

// TestGood holds warnings and the whole effective configuration of valid files.
func TestGood(t *testing.T) {
	for _, file := range inputs(t, "good", 5) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, r, data := parseFile(t, file)
			if c == nil {
				t.Fatal(r.Err())
			}
			checkPositions(t, data, r)
			var b bytes.Buffer
			if err := r.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			if err := c.Summary().WriteText(&b); err != nil {
				t.Fatal(err)
			}
			dump, err := json.MarshalIndent(c, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s\n", dump)
			golden(t, file, b.String())
		})
	}
}
