package daemon_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestDump: the state in lines for people: every endpoint, every upstream, what probes found so far in words.
func TestDump(t *testing.T) {
	near := newCandidate(t, "127.0.92.1", 0, 0)
	up := newUpstream(t, "127.0.92.53")
	h := start(t, fmt.Sprintf(`
UPSTREAM "%s"
[name."dump.example"]
check = "http://:%d/"
interval = "50ms"
candidates = ["127.0.92.1", "127.0.92.2"]
`, up.addr, near.addr.Port()))
	logged := func(from int, want string) {
		t.Helper()
		eventually(t, want, func() bool { return strings.Contains(h.logs.String()[from:], want) })
	}
	logged(0, "candidate=127.0.92.2 address=127.0.92.2 was=unknown")
	h.answers("dump.example", 1, "127.0.92.1")
	mark := len(h.logs.String())
	h.Dump()
	logged(mark, "candidate=127.0.92.1 address=127.0.92.1 state=healthy")
	logged(mark, "candidate=127.0.92.2 address=127.0.92.2 state=unhealthy")
	logged(mark, "msg=upstream upstream="+up.addr.String())
	logged(mark, `outcomes="map[ok:`)
}
