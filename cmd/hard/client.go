package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"

	"hard/internal/admin"
)

const (
	defaultSocket = "/run/hard/control.sock"
	dialTime      = 5 * time.Second
	callTime      = 70 * time.Second // for a probe or a reload: a little more than the daemon allows a request
	quickTime     = 20 * time.Second // for the others, which the daemon answers or refuses in 5 s
	maxReply      = 1 << 30          // octets; 100,000 names make some 200 MiB
)

// client talks to the daemon through its control socket.
type client struct {
	socket string
	http   *http.Client
}

// errOff is why there is no control socket to talk to.
var errOff = errors.New("the control socket is off: [listen].control is empty")

// newClient finds the socket: -s, else what the configuration says, else the default. A
// configuration that is not valid is good enough for that, one that can't be read is none.
func newClient(o *options) (*client, error) {
	socket := o.socket
	if socket == "" {
		var file struct{ Listen struct{ Control *string } }
		socket = defaultSocket
		if _, err := toml.DecodeFile(o.file(), &file); err == nil && file.Listen.Control != nil {
			socket = *file.Listen.Control
		} else if err != nil && o.config != "" && errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if socket == "" {
			return nil, fmt.Errorf("%w in %s", errOff, o.file())
		}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTime}
		return d.DialContext(ctx, "unix", socket)
	}
	return &client{socket, &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// close ends the idle connection.
func (c *client) close() { c.http.CloseIdleConnections() }

// notRunning is what a verb says when nobody answers.
type notRunning struct {
	socket string
	err    error
}

func (e *notRunning) Error() string {
	return fmt.Sprintf("the daemon is not running: nobody answers on %s (%v)", e.socket, e.err)
}

// refused is what the daemon said instead of doing it.
type refused struct {
	status int
	said   admin.Error
}

func (e *refused) Error() string { return e.said.Message }

// call sends a request and reads the reply into out; in is nil for GET. The status codes in also
// are good ones, too.
func (c *client) call(ctx context.Context, method, path string, in, out any, also ...int) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	limit := quickTime
	if path == "/v1/probe" || path == "/v1/reload" {
		limit = callTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://hard"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err, limit)
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return c.explain(err, limit)
	}
	good := resp.StatusCode == http.StatusOK
	for _, a := range also {
		good = good || resp.StatusCode == a
	}
	if !good {
		e := &refused{status: resp.StatusCode}
		if json.Unmarshal(reply, &e.said) != nil || e.said.Message == "" {
			e.said.Message = "the daemon says " + resp.Status
		}
		return e
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("the daemon's reply is not understood, is it another version? %w", err)
	}
	return nil
}

// explain finds out what an error of the transport means.
func (c *client) explain(err error, limit time.Duration) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in %v: the daemon is there, and stopped or stuck (ps, its log)", c.socket, limit)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &notRunning{c.socket, errors.Unwrap(unwrapNet(err))}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: permission denied: use sudo, or join the group of the socket", c.socket)
	}
	return fmt.Errorf("%s: %w", c.socket, unwrapNet(err))
}

// unwrapNet leaves out what the wrappings of an error say twice.
func unwrapNet(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// fail tells of an error and returns the exit code for it.
func fail(stderr io.Writer, err error) int {
	fmt.Fprintln(stderr, "hard:", err)
	var down *notRunning
	var said *refused
	switch {
	case errors.As(err, &down):
		fmt.Fprintln(stderr, "Is it another socket? Name it with -s SOCKET, or its configuration with -c FILE.")
		return exitNotRunning
	case errors.As(err, &said) && said.said.Hint != "":
		fmt.Fprintln(stderr, said.said.Hint)
	}
	return exitFailed
}

// ask is what most verbs are: one request, and its reply shown as JSON or by show. also, where
// there is one, sees the reply in both cases; the HTTP statuses in good mean success, too.
func ask[T any](o *options, stdout, stderr io.Writer, method, path string, in any, show func(*page, *T), also func(*T), good ...int) int {
	c, err := newClient(o)
	if err != nil {
		return fail(stderr, err)
	}
	defer c.close()
	var reply T
	if err := c.call(context.Background(), method, path, in, &reply, good...); err != nil {
		return fail(stderr, err)
	}
	if also != nil {
		also(&reply)
	}
	if o.json {
		return printJSON(stdout, reply)
	}
	p := newPage(stdout)
	show(p, &reply)
	return p.print(stdout)
}

func printJSON(w io.Writer, v any) int {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return exitFailed
	}
	return exitOK
}
