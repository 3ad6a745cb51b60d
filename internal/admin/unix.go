package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

const (
	socketMode = 0o660 // the group may ask and change everything: see docs/api.md
	dirMode    = 0o750
	staleWait  = time.Second // how long somebody who listens on the socket may take to accept
)

// listenUnix listens on a unix socket of mode 0660 and makes its directory. A socket file that
// nobody answers on is what a killed process left, and is replaced; nothing else ever is.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return nil, err
	}
	l, err := bindUnix(path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, err
		}
		l, err = bindUnix(path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return netutil.LimitListener(&peerListener{UnixListener: l, path: path, info: info}, maxConns), nil
}

// bindUnix binds and listens. The mode is set before the file is there, so that at no moment more
// may connect than shall.
func bindUnix(path string) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // peerListener does it, with a look first
	return u, nil
}

// removeStale removes the socket file of a process that is no more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: remove it, or set [listen].control to another path", path)
	}
	conn, err := net.DialTimeout("unix", path, staleWait)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: another process answers there: stop it, or set [listen].control to another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// peerListener gives each connection its peer's identity as its remote address.
type peerListener struct {
	*net.UnixListener
	path string
	info os.FileInfo // of the socket file we made
}

// Accept is net.Listener's.
func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return peerConn{c, peerOf(c)}, nil
}

// Close closes the listener and removes its file, unless that is somebody else's by now.
func (l *peerListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

type peerConn struct {
	*net.UnixConn
	peer peer
}

// RemoteAddr is who is at the other end. It becomes http.Request.RemoteAddr.
func (c peerConn) RemoteAddr() net.Addr { return c.peer }

// peer is who connected, by SO_PEERCRED: the kernel's word, at the time of the connect.
type peer string

// Network is net.Addr's.
func (peer) Network() string  { return "unix" }
func (p peer) String() string { return string(p) }

func peerOf(c *net.UnixConn) peer {
	raw, err := c.SyscallConn()
	if err != nil {
		return "unknown"
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cerr != nil {
		return "unknown"
	}
	return peer("uid " + strconv.Itoa(int(cred.Uid)) + " pid " + strconv.Itoa(int(cred.Pid)))
}
