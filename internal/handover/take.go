package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// Takeover is a running instance's promise to leave once we serve.
type Takeover struct {
	// Files are the sockets; whoever uses them takes them out of here.
	Files []*os.File
	// State is what the instance's Offer said.
	State []byte

	c *conn
}

// ErrNobody means that there is no instance to take over from.
var ErrNobody = errors.New("no instance answers")

// Take asks the instance that waits on path for its sockets. It goes on serving until Serving is
// called, and for good if Close is called before, or this process ends.
func Take(ctx context.Context, path, version string) (*Takeover, error) {
	d := net.Dialer{Timeout: wordTime}
	nc, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s", ErrNobody, path)
	case err != nil:
		return nil, err
	}
	t := &Takeover{c: newConn(nc.(*net.UnixConn), ofInstance)}
	if err := t.ask(version); err != nil {
		t.Close()
		return nil, fmt.Errorf("take over by %s: %w", path, err)
	}
	return t, nil
}

func (t *Takeover) ask(version string) error {
	cred, err := peer(t.c.UnixConn)
	if err != nil {
		return err
	}
	if me := os.Geteuid(); cred.Uid != 0 && me != 0 && int(cred.Uid) != me {
		return fmt.Errorf("the instance is uid %d's: only that user and root may take over", cred.Uid)
	}
	// One that refuses us at once may be gone by now; what it said is still to be read.
	if err := t.c.send(&message{Hello: &hello{protocol, version, os.Getpid()}}); err != nil && !gone(err) {
		return err
	}
	for {
		m, err := t.c.receive(time.Now().Add(wordTime))
		switch {
		case err != nil:
			return err
		case m.Refused != "":
			return errors.New("refused: " + m.Refused)
		case len(m.Sockets) > 0:
			t.Files = append(t.Files, t.c.take(m.Sockets)...)
		case m.State != nil:
			t.State = m.State
			return nil
		default:
			return errors.New("not understood")
		}
	}
}

// Serving tells the instance that the sockets are read from here, and waits until it has left. An
// error means that it goes on, and we must not. An instance that dies meanwhile has left, too.
func (t *Takeover) Serving() error {
	if err := t.c.send(&message{Serving: true}); err != nil && !gone(err) {
		return err
	}
	for {
		m, err := t.c.receive(time.Now().Add(2 * wordTime))
		switch {
		case err != nil && gone(err):
			return nil
		case err != nil:
			return fmt.Errorf("the instance before us doesn't say that it has left: %w", err)
		case m.Refused != "":
			return errors.New("the instance before us goes on: " + m.Refused)
		case m.Left:
			return nil
		}
	}
}

// gone tells whether the other end is no more.
func gone(err error) bool {
	var n net.Error
	return !errors.As(err, &n) || !n.Timeout()
}

// Released waits until everything is ours: the instance has said so, or is no more, or ctx ends.
func (t *Takeover) Released(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = t.c.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = t.c.receive(time.Time{})
}

// Close ends the conversation. Before Serving it means that we don't take over.
func (t *Takeover) Close() {
	CloseAll(t.Files)
	t.Files = nil
	t.c.close()
}
