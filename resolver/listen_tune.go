package resolver

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// tuneLoopback says for the UDP socket of a loopback address that no reply is ever to be fragmented: what we send fits
// the loopback device many times over, and the kernel then need not draw an IPv4 identification for each reply, an atomic
// operation on a table shared by all processors: 3 % of a query (docs/performance.md). IPv6 has none. An error means that
// it stays as it is.
func tuneLoopback(fd int, addr netip.Addr) {
	if addr.Is4() && addr.IsLoopback() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
}
