package main

import (
	"strings"
	"testing"

	"hard/internal/admin"
)

// TestCovering: the past is asked for like the present, by any spelling of a name and by names that a
// wildcard covers.
func TestCovering(t *testing.T) {
	for in, want := range map[string]string{
		"API.Example.com.":   "api.example.com *.example.com *.com",
		"bücher.example":     "xn--bcher-kva.example *.example",
		"*.wild.example.com": "*.wild.example.com",
		"x.y.example":        "x.y.example *.y.example *.example",
		"localhost":          "localhost",
		"":                   "",
		".":                  "",
	} {
		if got := strings.Join(admin.Covering(in), " "); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
