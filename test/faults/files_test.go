package faults

import (
	"os"
	"testing"

	"hard/test/faulty"
)

func mustWrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustRename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// needLong skips a test that takes more than a moment.
func needLong(t *testing.T) {
	t.Helper()
	if !faulty.Long() {
		t.Skip("skipped: takes seconds (HARD_LONG=1)")
	}
}
