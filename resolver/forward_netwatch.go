package resolver

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	netSettle   = 200 * time.Millisecond // a change comes as a burst of messages
	resumeCheck = 2 * time.Second
	resumeGap   = 3 * time.Second // more than this between two checks: we were stopped or suspended
)

// watchNetwork tries all upstreams again when the network changes (a route, an
// address or a link, by netlink) or the host has been asleep. It owns its
// socket and its reader.
func (f *forwarder) watchNetwork() {
	defer f.wg.Done()
	changes := make(chan struct{}, 1)
	if sock, err := openNetlink(); err != nil {
		f.log.Warn("cannot watch the network for changes", "error", err)
	} else {
		done := make(chan struct{})
		go readNetlink(sock, changes, done)
		defer func() {
			sock.Close()
			<-done
		}()
	}
	check := time.NewTicker(resumeCheck)
	defer check.Stop()
	last := sinceBoot()
	for {
		select {
		case <-f.done:
			return
		case <-changes:
			f.settle(changes)
			f.guard(func() int64 { f.retryAll("network change"); return 0 })
		case <-check.C:
			now := sinceBoot()
			if now-last > resumeCheck+resumeGap {
				f.guard(func() int64 { f.retryAll("resumed after " + (now - last).String()); return 0 })
			}
			last = now
		}
	}
}

// settle waits until no change has come for netSettle, but not for ever.
func (f *forwarder) settle(changes <-chan struct{}) {
	end := time.After(5 * netSettle)
	for {
		select {
		case <-changes:
		case <-time.After(netSettle):
			return
		case <-end:
			return
		case <-f.done:
			return
		}
	}
}

// sinceBoot counts the time asleep too, unlike Go's monotonic clock.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	sa := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR |
		unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// readNetlink turns messages into events. What they say does not matter, nor
// whether some were lost (ENOBUFS).
func readNetlink(sock *os.File, changes chan<- struct{}, done chan<- struct{}) {
	defer close(done)
	buf := make([]byte, 8192)
	for {
		if _, err := sock.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		select {
		case changes <- struct{}{}:
		default:
		}
	}
}
