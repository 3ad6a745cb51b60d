package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"hard/internal/unixsock"
)

// socketMode lets the group ask and change everything: see docs/api.md.
const socketMode = 0o660

// listenUnix listens on the control socket.
func listenUnix(path string) (net.Listener, error) {
	l, err := unixsock.Listen(context.Background(), path, socketMode)
	switch {
	case errors.Is(err, unixsock.ErrNotSocket):
		return nil, fmt.Errorf("%w: remove it, or set [listen].control to another path", err)
	case errors.Is(err, unixsock.ErrAnswered):
		return nil, fmt.Errorf("%w: stop it, or set [listen].control to another path", err)
	case err != nil:
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // the umask has had its say, too
		return nil, errors.Join(err, l.Close())
	}
	return netutil.LimitListener(&peerListener{l}, maxConns), nil
}

// peerListener gives each connection its peer's identity as its remote address.
type peerListener struct{ *unixsock.Listener }

// Accept is net.Listener's.
func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return peerConn{c, peerOf(c)}, nil
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
