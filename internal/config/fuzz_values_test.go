package config

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzTarget: check URLs, upstreams, names, durations and sizes. What is taken is canonical, means
// the same when it is read again, and agrees with net/url; what is not has a message on one line.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"https://www.example.com:8443/healthz?x=1", "http://[2001:db8::1]:80/", "tcp://:5432", "tls://host", "dns:example.com/SOA",
		"dns:./TYPE65", "exec:/usr/bin/check", "static:", "https://münchen.example/", "https://u:p@host/", "HTTP://X.EXAMPLE./a%2fb",
		"192.0.2.53", "[2001:db8::53]:5353", "fe80::1%eth0", "tcp://192.0.2.53", "tls://192.0.2.53:853#dns.example",
		"https://dns.example/dns-query#192.0.2.53", "resolv.conf:/run/x", "1500ms", "30d", "512MiB", "*.api.example.com", "xn--mnchen-3ya.example",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		oneLine := func(i *issue) {
			for ; i != nil; i = i.next {
				if strings.ContainsAny(i.message, "\n\r\x1b\x00") || i.message == "" {
					t.Fatalf("%q: message %q", s, i.message)
				}
			}
		}
		target, i := parseTarget(s)
		oneLine(i)
		if i == nil {
			checkTarget(t, s, &target)
		}
		server, i := parseServer(s)
		oneLine(i)
		if i == nil && (server.Text != s || server.Kind != ServerResolvConf && (!server.Addr.IsValid() || server.Addr.Port() == 0)) {
			t.Fatalf("%q: %+v", s, server)
		}
		if name, i := canonicalName(s); i == nil {
			if again, i := canonicalName(name); i != nil || again != name {
				t.Fatalf("%q is %q, which is %q, %v", s, name, again, i)
			}
		} else {
			oneLine(i)
		}
		if d, i := parseDuration(s); i == nil {
			if again, i := parseDuration(durationText(d)); i != nil || again != d {
				t.Fatalf("%q is %v, written %s, which is %v, %v", s, d, durationText(d), again, i)
			}
		} else {
			oneLine(i)
		}
		if n, i := parseSize(s); i == nil && n < 0 {
			t.Fatalf("%q is %d bytes", s, n)
		}
	})
}

func checkTarget(t *testing.T, s string, target *target) {
	t.Helper()
	again, i := parseTarget(target.text)
	if i != nil || again != *target {
		t.Fatalf("%q: %+v, read again %+v, %v", s, target, again, i)
	}
	if target.host != "" {
		if h, i := serverName(target.host); i != nil || h != target.host {
			t.Fatalf("%q: the host %q is %q, %v", s, target.host, h, i)
		}
	}
	if target.kind > CheckTLS {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Fragment != "" {
		t.Fatalf("%q was taken: %v", s, err)
	}
	if strings.ContainsAny(target.path, " \r\n") || target.kind <= CheckHTTPS && !strings.HasPrefix(target.path, "/") {
		t.Fatalf("%q: the request would be for %q", s, target.path)
	}
}
