package prober

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"hard/internal/config"
	"hard/internal/rank"
)

// Secrets that a check sends, and that a candidate sends back in every way it can, are in no detail
// and in no trace.
func TestSecretsAreHidden(t *testing.T) {
	echo := serve(t, func(c net.Conn) {
		b := make([]byte, 1000)
		n, _ := c.Read(b)
		fmt.Fprintf(c, "%s %.20s...", b[:n], "x")
		untilClosed(c)
	})
	web := serve(t, func(c net.Conn) {
		b := make([]byte, 1000)
		n, _ := c.Read(b)
		_, head, _ := strings.Cut(string(b[:n]), "\r\n")
		io.WriteString(c, "HTTP/1.1 302 "+strings.ReplaceAll(head, "\r\n", " ")+"\r\nLocation: http://SECRETtoken.example/\r\n"+head)
		untilClosed(c)
	})
	for name, check := range map[string]*config.Check{
		"send": {Kind: config.CheckTCP, Host: "x", Port: echo.Port(), Send: "AUTH \"SECRETsend\"\r\n", Expect: "+OK"},
		"headers": {Kind: config.CheckHTTP, Host: "x", Port: web.Port(), Path: "/", Method: http.MethodGet, Redirects: 1,
			Headers: []config.Header{{Name: "Authorization", Value: "Bearer SECRETtoken"}, {Name: "X-Probe", Value: "hard"}}},
		"garbage": {Kind: config.CheckHTTP, Host: "x", Port: echo.Port(), Path: "/", Method: http.MethodGet,
			Headers: []config.Header{{Name: "Cookie", Value: "id=SECRETcookie"}}},
		"arguments": {Kind: config.CheckExec, Command: "/bin/true", Args: []string{"SECRETargument"}},
	} {
		p := newProber(t, Options{})
		timeout := patience
		if name == "send" {
			timeout = 500 * time.Millisecond // what is expected never comes
		}
		s, lines := p.Probe(t.Context(), target(check, timeout), true)
		text := s.Detail
		for _, l := range lines {
			text += "\n" + l.Dir + " " + l.Text
		}
		if strings.Contains(strings.ToLower(text), "secret") || len(lines) == 0 {
			t.Errorf("%s: %s", name, text)
		}
		if name == "headers" && (s.Outcome != rank.Status || !strings.Contains(text, "> X-Probe: hard")) {
			t.Errorf("%s: %v, %s", name, s.Outcome, text)
		}
	}
}
