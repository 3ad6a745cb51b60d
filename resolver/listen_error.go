package resolver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listenError says what the operator needs to know when an address cannot be
// had: who has it, or which right is missing.
func listenError(network string, addr netip.AddrPort, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = "another program has this port"
		if who := portHolder(network, addr); who != "" {
			hint = "held by " + who
		}
	case errors.Is(err, syscall.EACCES) && addr.Port() < 1024:
		hint = "ports below 1024 need a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, " +
			"or setcap 'cap_net_bind_service=+ep' on the program, or sysctl net.ipv4.ip_unprivileged_port_start"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = "no interface of this host has this address"
	}
	var op *os.SyscallError
	if errors.As(err, &op) {
		err = op
	}
	if hint == "" {
		return fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return fmt.Errorf("listen %s %s: %w (%s)", network, addr, err, hint)
}

// portHolder finds the process that has addr, as "name (pid 1)"; "" if it
// cannot be found, as for other users' processes without root.
func portHolder(network string, addr netip.AddrPort) string {
	inodes := make(map[string]bool)
	for _, file := range []string{"/proc/net/" + network, "/proc/net/" + network + "6"} {
		socketsAt(file, network, addr, inodes)
	}
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || !inodes[to] {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// socketsAt adds the sockets in one of /proc/net's tables that stand in the way
// of addr, in the form of the links in /proc/PID/fd.
func socketsAt(file, network string, addr netip.AddrPort, inodes map[string]bool) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	const listening = "0A"
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || network == "tcp" && fields[3] != listening {
			continue
		}
		_, hex, ok := strings.Cut(fields[1], ":")
		if !ok {
			continue
		}
		port, err := strconv.ParseUint(hex, 16, 16)
		if err == nil && uint16(port) == addr.Port() && sameOrAny(fields[1], addr.Addr()) {
			inodes["socket:["+fields[9]+"]"] = true
		}
	}
}

// sameOrAny reports whether a local_address of /proc/net is a, or the
// unspecified address. Its words are printed as the processor stores them.
func sameOrAny(local string, a netip.Addr) bool {
	hex, _, _ := strings.Cut(local, ":")
	if strings.Trim(hex, "0") == "" {
		return true
	}
	b := a.Unmap().AsSlice()
	for len(hex) >= 8 && len(b) >= 4 {
		word, err := strconv.ParseUint(hex[:8], 16, 32)
		if err != nil || uint32(word) != binary.NativeEndian.Uint32(b) {
			return false
		}
		hex, b = hex[8:], b[4:]
	}
	return hex == "" && len(b) == 0
}
