package prober

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"hard/internal/rank"
)

// maxOutput is how much of a program's output is kept for the detail.
const maxOutput = 1024

// execGrace is how long a killed program's children may hold its output open.
const execGrace = 50 * time.Millisecond

// checkExec runs a program, without a shell, in a process group of its own, which is killed as a
// whole when the probe ends. Exit status 0 is well; the first line of its output is the detail.
func checkExec(pr *probe) {
	ctx, cancel := context.WithDeadline(context.Background(), pr.deadline)
	defer cancel()
	defer context.AfterFunc(pr, cancel)()
	var out boundedBuffer
	cmd := exec.CommandContext(ctx, pr.check.Command, pr.check.Args...)
	cmd.Env = append(os.Environ(),
		"HARD_ADDRESS="+pr.addr.String(), fmt.Sprintf("HARD_PORT=%d", pr.check.Port),
		"HARD_NAME="+pr.name, "HARD_CANDIDATE="+pr.candidate)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
	cmd.WaitDelay = execGrace
	pr.tracef(">", "%s, %d arguments", pr.check.Command, len(pr.check.Args)) // not themselves: see hide.go
	pr.act()
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
		_ = killGroup(cmd) // what it left behind
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	pr.tracef("<", "%s", line)
	endExec(pr, ctx, err, line)
}

// endExec turns the end of a program into a verdict.
func endExec(pr *probe, ctx context.Context, err error, line string) {
	var exit *exec.ExitError
	switch {
	case pr.Err() != nil:
		pr.fail(context.Canceled)
	case ctx.Err() != nil:
		pr.fail(ctx.Err())
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		pr.end(rank.OK, 0, "")
	case errors.As(err, &exit) && exit.Exited():
		if line == "" {
			line = err.Error()
		}
		pr.end(rank.Status, exit.ExitCode(), line)
	case exit != nil:
		pr.end(rank.Status, -1, err.Error()) // by a signal
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		pr.end(rank.Aborted, 0, "skipped, this host is short of resources: "+err.Error())
	default:
		pr.end(rank.Protocol, 0, err.Error()) // can't be run: counted, or nobody would notice
	}
}

// killGroup kills a program with all its children.
func killGroup(cmd *exec.Cmd) error {
	err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if err == syscall.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// boundedBuffer keeps the beginning of what is written and swallows the rest.
type boundedBuffer struct{ buf bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.buf.Write(p[:min(len(p), max(0, maxOutput-b.buf.Len()))])
	return len(p), nil
}

func (b *boundedBuffer) String() string { return b.buf.String() }
