package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors is docs/design.md's picture of the house: which of our packages each package may import.
// Imports go down only, and siblings don't know each other.
var floors = map[string][]string{
	"hard/internal/wire":     {},
	"hard/internal/rank":     {},
	"hard/internal/mmsg":     {},
	"hard/internal/bug":      {},
	"hard/internal/procs":    {},
	"hard/internal/unixsock": {},
	"hard/internal/answer":   {"hard/internal/wire"},
	"hard/internal/config":   {"hard/internal/rank"},
	"hard/resolver":          {"hard/internal/bug", "hard/internal/procs", "hard/internal/answer", "hard/internal/wire", "hard/internal/mmsg"},
	"hard/prober":            {"hard/internal/bug", "hard/internal/procs", "hard/internal/config", "hard/internal/rank", "hard/internal/mmsg"},
	"hard/store":             {"hard/internal/bug", "hard/internal/rank"},
	"hard/internal/hook":     {"hard/internal/bug"},

	"hard/internal/handover":  {"hard/internal/bug", "hard/internal/unixsock"},
	"hard/internal/privilege": {},

	"hard/internal/engine": {"hard/internal/bug", "hard/internal/answer", "hard/internal/config", "hard/internal/rank"},
	"hard/internal/past":   {"hard/internal/engine", "hard/store", "hard/internal/config", "hard/internal/rank"},
	"hard/internal/admin": {"hard/internal/bug", "hard/internal/unixsock", "hard/internal/engine", "hard/resolver", "hard/prober", "hard/store",
		"hard/internal/config", "hard/internal/rank"},
	"hard/internal/daemon": {"hard/internal/bug", "hard/internal/procs", "hard/internal/admin", "hard/internal/past", "hard/internal/hook",
		"hard/internal/handover", "hard/internal/engine", "hard/resolver", "hard/prober", "hard/store", "hard/internal/config", "hard/internal/rank"},
	"hard/cmd/hard": {"hard/internal/daemon", "hard/internal/handover", "hard/internal/privilege", "hard/internal/unixsock", "hard/internal/past", "hard/internal/admin",
		"hard/resolver", "hard/store", "hard/internal/config", "hard/internal/rank"},
	"hard/test/faulty": {"hard/internal/admin"}, // what the tests of test/faults are made with
	"hard/test/faults": {},
}

// foreign is which floors may use which modules outside the standard library; nil means none.
var foreign = map[string][]string{
	"hard/internal/wire":     nil,
	"hard/internal/rank":     nil,
	"hard/internal/mmsg":     {"golang.org/x/sys/unix"},
	"hard/internal/answer":   nil,
	"hard/internal/bug":      nil,
	"hard/internal/engine":   nil,
	"hard/internal/procs":    nil,
	"hard/internal/unixsock": nil,
}

func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "hard/...").Output()
	if err != nil {
		t.Skipf("skipped: go list does not work here: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		pkg := w[0]
		allowed, known := floors[pkg]
		if !known {
			t.Errorf("%s stands on no floor: give it one here and in docs/design.md", pkg)
			continue
		}
		seen++
		for _, may := range allowed {
			if !slices.Contains(w[1:], may) {
				t.Errorf("%s may import %s and does not: take it out here and in docs/design.md", pkg, may)
			}
		}
		for _, imp := range w[1:] {
			switch {
			case strings.HasPrefix(imp, "hard/"):
				if !slices.Contains(allowed, imp) {
					t.Errorf("%s must not import %s", pkg, imp)
				}
			case strings.Contains(strings.SplitN(imp, "/", 2)[0], "."):
				if f, limited := foreign[pkg]; limited && !slices.Contains(f, imp) {
					t.Errorf("%s must not import %s", pkg, imp)
				}
			case imp == "unsafe" && pkg != "hard/internal/mmsg":
				t.Errorf("%s imports unsafe: only internal/mmsg may", pkg)
			}
		}
	}
	if seen < 11 {
		t.Errorf("only %d packages seen", seen)
	}
}
