package handover

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Manager is the service manager that has started us, as its environment variables describe it.
// Its methods may be called by any goroutine, and do nothing where there is no manager.
type Manager struct {
	files    []*os.File
	notify   string        // the path of its socket; empty: none
	watchdog time.Duration // it wants to hear from us this often; 0: it doesn't
	noStore  bool          // it has said that it stores nothing
}

// FromEnvironment reads what the manager says, and removes it from the environment, so that no
// child takes it for itself. It is called once, before anything opens files.
func FromEnvironment() *Manager {
	m := &Manager{files: activation.Files(true), notify: os.Getenv("NOTIFY_SOCKET")}
	m.watchdog, _ = daemon.SdWatchdogEnabled(true) // an error is a malformed variable: as if it weren't set
	m.noStore = os.Getenv("FDSTORE") == "0"        // since systemd 254; before, it can't be known
	for _, name := range []string{"NOTIFY_SOCKET", "FDSTORE", "LISTEN_PIDFDID", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	return m
}

// Sockets are those that the manager passed to us (LISTEN_FDS), those of its store included. They
// are the caller's from then on.
func (m *Manager) Sockets() []*os.File {
	if m == nil {
		return nil
	}
	files := m.files
	m.files = nil
	return files
}

// Present tells whether there is a manager that listens.
func (m *Manager) Present() bool { return m != nil && m.notify != "" }

// Stores tells whether it may keep sockets for us.
func (m *Manager) Stores() bool { return m.Present() && !m.noStore }

// Watchdog is how long the manager waits for Alive before it takes us for dead; 0: it doesn't.
func (m *Manager) Watchdog() time.Duration {
	if !m.Present() {
		return 0
	}
	return m.watchdog
}

// Ready says that we serve, and how in one line.
func (m *Manager) Ready(status string) error {
	return m.send(nil, daemon.SdNotifyReady, "STATUS="+line(status))
}

// Reloading says that we have begun to reload; Ready ends it.
func (m *Manager) Reloading() error {
	return m.send(nil, daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", monotonic()/1000))
}

// Stopping says that we have begun to stop.
func (m *Manager) Stopping(status string) error {
	return m.send(nil, daemon.SdNotifyStopping, "STATUS="+line(status))
}

// Alive feeds the watchdog.
func (m *Manager) Alive() error { return m.send(nil, daemon.SdNotifyWatchdog) }

// StoreName is the name under which the sockets of one address are stored. A colon is not allowed
// there.
func StoreName(a netip.AddrPort) string { return "dns-" + strings.ReplaceAll(a.String(), ":", "_") }

// Store gives duplicates of sockets to the manager, which hands them to the next process of this
// service, however this one ends. Those that it has already it recognises. It closes none of ours
// when we do, so Forget must follow when an address is given up.
func (m *Manager) Store(name string, files []*os.File) error {
	if !m.Stores() {
		return nil
	}
	for len(files) > 0 {
		n := min(len(files), perMessage)
		// FDPOLL=0: the manager must not drop a socket because an error waits on it, such as an ICMP one.
		if err := m.send(files[:n], "FDSTORE=1", "FDNAME="+name, "FDPOLL=0"); err != nil {
			return err
		}
		files = files[n:]
	}
	return nil
}

// Forget has the manager close what was stored under a name.
func (m *Manager) Forget(name string) error {
	if !m.Stores() {
		return nil
	}
	return m.send(nil, "FDSTOREREMOVE=1", "FDNAME="+name)
}

// send sends one message: a datagram, which a manager that doesn't read can't make us wait for long.
func (m *Manager) send(files []*os.File, lines ...string) error {
	if !m.Present() {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(wordTime)); err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	if err := sendmsg(c, []byte(strings.Join(lines, "\n")), oob); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// sendmsg sends one datagram with control messages on a connected socket, which package net doesn't.
func sendmsg(c *net.UnixConn, text, oob []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Write(func(fd uintptr) bool {
		_, err = unix.SendmsgN(int(fd), text, oob, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN)
	})
	if cerr != nil {
		return cerr
	}
	return os.NewSyscallError("sendmsg", err)
}

// line makes a text fit to be a value.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}
