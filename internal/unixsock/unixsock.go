// Package unixsock listens on unix sockets as a daemon should: the file has its
// mode before anybody can connect, what a killed process left is replaced and
// nothing else ever is, and only our own file is removed. Who connects, and what is
// said, is the callers'.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// What stands in the way of a Listener, besides errors of the system.
var (
	ErrNotSocket = errors.New("exists and is not a socket")
	ErrAnswered  = errors.New("another process answers there")
)

// DirMode is the mode of the directory that Listen makes where there is none.
const DirMode = 0o750

// staleWait is how long somebody who listens on the socket may take to accept.
const staleWait = time.Second

// Listener is a unix listener that owns its socket's file.
type Listener struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the file we made
}

// Listen makes the directory of path, if need be, and listens there. mode is the
// file's. The error is ErrNotSocket or ErrAnswered with the path, or the system's.
func Listen(ctx context.Context, path string, mode uint32) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), DirMode); err != nil {
		return nil, err
	}
	l, err := bind(ctx, path, mode)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = bind(ctx, path, mode)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Listener{UnixListener: l, path: path, info: info}, nil
}

// Close closes the listener and removes its file, unless that is somebody else's by now.
func (l *Listener) Close() error {
	// A file that was removed gives its number to the next one: the time it was made tells them apart.
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) && info.ModTime().Equal(l.info.ModTime()) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// bind sets the mode before the file is there, so that at no moment more may
// connect than shall.
func bind(ctx context.Context, path string, mode uint32) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), mode) })
		return errors.Join(cerr, err)
	}}
	l, err := c.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // Close does it, with a look first
	return u, nil
}

// removeStale removes the socket file of a process that is no more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s %w", path, ErrNotSocket)
	}
	conn, err := net.DialTimeout("unix", path, staleWait)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: %w", path, ErrAnswered)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
