package faults

import (
	"os/exec"
	"syscall"
)

// maxRSS is the most memory that an ended program had, KiB.
func maxRSS(cmd *exec.Cmd) int64 {
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss
	}
	return 0
}
