package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	runTime     = 10 * time.Second // one run of the program
	killWait    = time.Second      // for its output to end after the kill
	outputLimit = 500              // octets of its output that are kept for the log
	postTime    = 5 * time.Second  // one attempt
	postTries   = 5                // after the first one
	postTotal   = 2 * time.Minute  // all attempts together
)

// program runs a command without a shell, with the change on its standard input. It is killed
// with all it has started after runTime.
func program(command []string) func(context.Context, []byte) error {
	return func(ctx context.Context, text []byte) error {
		ctx, cancel := context.WithTimeout(ctx, runTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdin = bytes.NewReader(append(text, '\n'))
		out := new(head)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = killWait
		cmd.Dir = "/"
		err := cmd.Run()
		switch {
		case ctx.Err() == context.DeadlineExceeded:
			return fmt.Errorf("killed, it ran longer than %v", runTime)
		case err != nil && len(out.b) > 0:
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(strings.ToValidUTF8(string(out.b), "?")))
		}
		return err
	}
}

// head keeps the beginning of what is written to it.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), outputLimit-len(h.b))]...)
	return len(p), nil
}

// shown is what logs tell of a webhook: its path and its query are passwords as a rule.
func shown(webhook string) string {
	u, err := url.Parse(webhook)
	if err != nil {
		return "(a URL)"
	}
	return u.Scheme + "://" + u.Host + "/..."
}

// withoutURL takes the URL off an error of package net/http.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// post sends changes to a URL, again where that may help: no connection, 429, or 5xx.
// closeIdle ends the connections it keeps.
func post(target string) (deliver func(context.Context, []byte) error, closeIdle func()) {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax = postTries
	c.RetryWaitMin, c.RetryWaitMax = 500*time.Millisecond, 30*time.Second
	c.HTTPClient.Timeout = postTime
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler // its own errors quote the URL
	c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	deliver = func(ctx context.Context, text []byte) error {
		ctx, cancel := context.WithTimeout(ctx, postTotal)
		defer cancel()
		req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, target, text)
		if err != nil {
			return errors.New("the URL can't be used")
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", "hard")
		resp, err := c.Do(req)
		if err != nil {
			return withoutURL(err)
		}
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is kept
		if resp.StatusCode/100 != 2 {
			return fmt.Errorf("status %s", resp.Status)
		}
		return nil
	}
	return deliver, c.HTTPClient.CloseIdleConnections
}
