package resolver

import (
	"os"
	"regexp"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A seat's thread has a short slice and, where that is permitted, a lower nice value; afterwards those that it had.
func TestPrompt(t *testing.T) {
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
	niceBefore, err := threadNice()
	if err != nil {
		t.Fatal(err)
	}
	want := niceBefore
	if mayGoTo(niceBefore - ahead) {
		want = max(niceBefore-ahead, -20)
	} else {
		t.Logf("no lower nice value than %d is permitted", niceBefore)
	}
	nice := prompt()
	if got := slice(); got != "" && got != "100000" {
		t.Errorf("slice of %s ns in a seat", got)
	}
	if got, _ := threadNice(); got != want || nice != niceBefore {
		t.Errorf("nice %d in a seat, want %d; prompt said that it was %d, it was %d", got, want, nice, niceBefore)
	}
	unhurried(nice)
	if got := slice(); got != before {
		t.Errorf("slice of %s ns afterwards, %s before", got, before)
	}
	if got, _ := threadNice(); got != niceBefore {
		t.Errorf("nice %d afterwards, %d before", got, niceBefore)
	}
}

// mayGoTo tries a nice value on a thread that ends with it.
func mayGoTo(nice int) bool {
	may := make(chan bool)
	go func() {
		runtime.LockOSThread()
		may <- syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice) == nil
	}()
	return <-may
}

// A scheduling policy that an operator has chosen stays.
func TestPromptKeepsPolicy(t *testing.T) {
	policy := make(chan uint32)
	go func() { // on a thread that ends with it
		defer close(policy)
		runtime.LockOSThread()
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}, 0); err != nil {
			return
		}
		unhurried(prompt())
		if a, err := unix.SchedGetAttr(0, 0); err == nil {
			policy <- a.Policy
		}
	}()
	got, ok := <-policy
	if !ok {
		t.Skip("skipped: no policy may be chosen or seen here")
	}
	if got != unix.SCHED_BATCH {
		t.Errorf("policy %d, want %d", got, unix.SCHED_BATCH)
	}
}
