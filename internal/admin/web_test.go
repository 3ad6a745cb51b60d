package admin

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"hard/internal/config"
	"hard/internal/engine"
	"hard/internal/rank"
)

// TestHost: by which names the server may be asked for, on loopback and elsewhere.
func TestHost(t *testing.T) {
	for _, c := range []struct {
		listen, local, host string
		want                bool
	}{
		{"127.0.0.1:8053", "127.0.0.1:8053", "127.0.0.1:8053", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "LOCALHOST.", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "[::1]", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "[::ffff:127.0.0.1]:1", true},
		{"127.0.0.1:8053", "127.0.0.1:8053", "", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "localhost.example", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "notlocalhost", false},
		{"127.0.0.1:8053", "127.0.0.1:8053", "10.0.0.5", false},
		{"10.0.0.5:8053", "10.0.0.5:8053", "10.0.0.5:8053", true},
		{"10.0.0.5:8053", "10.0.0.5:8053", "10.0.0.6:8053", false},
		{"0.0.0.0:8053", "10.0.0.5:8053", "10.0.0.5", true},
		{"0.0.0.0:8053", "10.0.0.5:8053", "rebound.example", false},
		{"[::]:8053", "[2001:db8::1]:8053", "[2001:db8::1]:8053", true},
		{"[::]:8053", "[::ffff:10.0.0.5]:8053", "10.0.0.5", true},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		local := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.local))
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
		r.Host = c.host
		w := httptest.NewRecorder()
		guarded(c.listen, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		if got := w.Code == http.StatusOK; got != c.want {
			t.Errorf("listening on %s, asked as %q: %d", c.listen, c.host, w.Code)
		}
	}
}

// sick is a Backend whose DNS listener is dead and which is not ready.
type sick struct {
	fake
	dns netip.AddrPort
}

func (s *sick) Info() Info { return Info{DNS: []netip.AddrPort{s.dns}} }

func TestNotHealthy(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	pc.Close()
	h := New(Options{Backend: &sick{fake: *someNames(1), dns: dead}}).webHandler("127.0.0.1:8053")
	for path, want := range map[string]string{"/healthz": dead.String(), "/readyz": "not ready"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestPage: the page is what is not ours, behind the Host check and with the headers set.
func TestPage(t *testing.T) {
	f := someNames(1)
	h := New(Options{Backend: f}).webHandler("127.0.0.1:8053")
	get := func(host, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for path, want := range map[string]string{
		"/": f.config.Names[0].Name, "/name/" + f.config.Names[0].Name: "east", "/static/page.css": "{", "/metrics": "hard_build_info",
	} {
		w := get("localhost", path)
		if w.Code != 200 || w.Header().Get("Content-Security-Policy") == "" || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %v %.200s", path, w.Code, w.Header(), w.Body)
		}
		if w := get("rebound.example", path); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), want) {
			t.Errorf("%s for another host: %d %.200s", path, w.Code, w.Body)
		}
	}
}

// TestFind: a name is found as a query would find it.
func TestFind(t *testing.T) {
	f := &fake{config: &config.Config{File: "har.toml"}}
	for _, n := range []string{"example.com", "*.example.com", "*.deep.example.com", "xn--bcher-kva.example"} {
		f.config.Names = append(f.config.Names, config.Name{Name: n, Policy: &rank.Policy{}})
		f.snapshot.Names = append(f.snapshot.Names, engine.NameView{Name: n})
	}
	s := New(Options{Backend: f})
	for text, want := range map[string]string{
		"example.com": "example.com", " Example.COM. ": "example.com", "a.example.com": "*.example.com",
		"a.b.example.com": "*.example.com", "deep.example.com": "*.example.com", "a.deep.example.com": "*.deep.example.com",
		"*.example.com": "*.example.com", "Bücher.example": "xn--bcher-kva.example",
		"com": "", "": "", "example.org": "", "xexample.com": "",
	} {
		n, err := s.find(text)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q: found %s", text, n.Name)
		case want != "" && (err != nil || n.Name != want):
			t.Errorf("%q: %v %v, want %s", text, n, err, want)
		}
	}
}
