package prober

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// The headers of a check, which may be secret, follow a redirect only to where the check itself goes: not
// from HTTPS to plain HTTP, not to another port, and not back from there. The redirect is followed all the same.
func TestHeadersStayWithTheirOrigin(t *testing.T) {
	a := newAuthority(t)
	good := a.issue(t, "www.example.com", -time.Hour, time.Hour, false)
	for _, tt := range []struct {
		name string
		tls  [2]bool                          // the check's own server, the other one
		hops func(own, other string) []string // where each request is sent on to
		sent []bool                           // whether each request has the headers
	}{
		{"same origin", [2]bool{}, func(own, _ string) []string { return []string{"/two", "three", own + "/four"} }, []bool{true, true, true, true}},
		{"same origin, TLS", [2]bool{true}, func(own, _ string) []string { return []string{"/two", own + "/three"} }, []bool{true, true, true}},
		{"other port", [2]bool{}, func(_, other string) []string { return []string{other + "/two"} }, []bool{true, false}},
		{"https to http", [2]bool{true, false}, func(_, other string) []string { return []string{other + "/two", "/three"} }, []bool{true, false, false}},
		{"http to https", [2]bool{false, true}, func(_, other string) []string { return []string{other + "/two"} }, []bool{true, false}},
		{"there and back", [2]bool{true, false}, func(own, other string) []string { return []string{"/two", other + "/three", own + "/four"} }, []bool{true, true, false, false}},
		{"the address itself", [2]bool{}, func(own, _ string) []string {
			return []string{strings.Replace(own, "www.example.com", "127.0.0.1", 1) + "/two"}
		}, []bool{true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var hops []string
			var sent []bool
			server := func(c net.Conn) {
				text := strings.Join(request(c), "\n")
				mu.Lock()
				defer mu.Unlock()
				if text == "" {
					return // no request: a failed handshake
				}
				sent = append(sent, strings.Contains(text, "Authorization: Bearer s3cret") && strings.Contains(text, "X-Token: s3cret"))
				if strings.Contains(text, "s3cret") != sent[len(sent)-1] || !strings.Contains(text, "\nUser-Agent: hard/test") {
					t.Errorf("some of the headers:\n%s", text)
				}
				if len(sent) > len(hops) {
					io.WriteString(c, okReply)
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n", hops[len(sent)-1])
			}
			start := func(secure bool) (uint16, string) {
				f, scheme := server, "http"
				if secure {
					f, scheme = overTLS(good, server), "https"
				}
				port := serve(t, f).Port()
				return port, fmt.Sprintf("%s://www.example.com:%d", scheme, port)
			}
			port, own := start(tt.tls[0])
			_, other := start(tt.tls[1])
			mu.Lock()
			hops = tt.hops(own, other)
			mu.Unlock()
			check := httpCheck(port)
			if tt.tls[0] {
				check.Kind = config.CheckHTTPS
			}
			check.CAFile, check.Redirects = a.file, 5
			check.Headers = []config.Header{{Name: "Authorization", Value: "Bearer s3cret"}, {Name: "X-Token", Value: "s3cret"}}
			wantOutcome(t, probeOnce(t, check, 20*time.Second), rank.OK, "")
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(sent) != fmt.Sprint(tt.sent) {
				t.Errorf("headers sent: %v, want %v", sent, tt.sent)
			}
		})
	}
}
