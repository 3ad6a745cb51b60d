package main

import (
	"strings"
	"testing"
	"time"

	"hard/internal/admin"
)

// FuzzTime: TIME is a time or an error on one line, and RFC 3339 is read as it was written.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"15m", "2d", "2026-11-25 10:00", "2026-11-25T10:00:00Z", "2026-11-25T10:00:00.5+02:00", "-1h", "1e9h", "", "9999999d"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		at, err := admin.ParseTime(s, now)
		if err != nil {
			if text := err.Error(); strings.ContainsAny(text, "\n\r\x1b") {
				t.Fatalf("%q: %q", s, text)
			}
			return
		}
		if text := at.Format(time.RFC3339Nano); at.Year() >= 0 && at.Year() < 10000 {
			again, err := admin.ParseTime(text, now)
			if err != nil || !again.Equal(at) {
				t.Fatalf("%q is %s, which is %v, %v", s, text, again, err)
			}
		}
	})
}

// FuzzArguments: a command line is understood or refused with one line.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{"-check x.toml", "status -json n", "set a/b down -for 30m", "weight a/b 50%", "explain a AAAA -at 15m", "-c\x00x", "--", "-p 53 -b ::1",
		"history -since 1h -plot a", "probe -trace a/b", "replay -with x", "demo -once", "-l loud", "log", "complete - status"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		o, err := parse(strings.Split(line, " "))
		if o == nil && err == nil {
			t.Fatalf("%q: %v, %v", line, o, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\x1b") {
			t.Fatalf("%q: %q", line, err)
		}
	})
}
