package resolver

import (
	"os"
	"regexp"
	"runtime"
	"testing"
)

// A seat's thread has a short slice, and afterwards the one that it had.
func TestSlice(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slice := func() string {
		text, err := os.ReadFile("/proc/thread-self/sched")
		if err != nil {
			t.Log(err) // not all kernels have it
		}
		if m := regexp.MustCompile(`(?m)^se\.slice\s*:\s*(\d+)`).FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return "" // before Linux 6.12
	}
	before := slice()
	prompt()
	if got := slice(); got != "" && got != "100000" {
		t.Errorf("slice of %s ns in a seat", got)
	}
	unhurried()
	if got := slice(); got != before {
		t.Errorf("slice of %s ns afterwards, %s before", got, before)
	}
}
