//go:build linux

package mmsg

import "syscall"

// Try makes one attempt to send the datagrams from number at on through the
// connected socket fd, and returns how many left. They stay in s until Clear.
// It is for callers, like the forwarder, to whom a pending ICMP error is news
// and who want to know which datagrams it kept back; others use Flush.
func (s *Sender) Try(fd, at int) (n int, errno syscall.Errno) {
	n, errno = s.send(fd, at)
	if errno != 0 {
		return 0, errno
	}
	return n, 0
}

// Clear empties s without sending.
func (s *Sender) Clear() { s.n = 0 }
