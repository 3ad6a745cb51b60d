package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzControl: whatever comes over the control socket or from loopback, the reply is one JSON object
// with a status that a client can act on, and no error of our own (5xx).
func FuzzControl(f *testing.F) {
	for _, body := range []string{
		`{"name":"a","state":"down","for":"30m","why":"x\u001b[2J"}`, `{"name":"a","candidate":"east","weight":"50%"}`, `{"name":"a","weight":1e9}`,
		`{"name":"a","trace":true}`, `{"level":"debug"}`, `{"level":7}`, `{}`, `[]`, `{"name":"a"}{"name":"b"}`, `{"unknown":1}`, "\xff",
	} {
		for _, path := range []string{"set", "weight", "probe", "log", "names/a"} {
			f.Add(path, body)
		}
	}
	f.Add("explain/x.example?type=AAAA", "")
	f.Add("../v1/set", "{}")
	s := New(Options{Backend: someNames(2)})
	control, web := s.controlHandler(), s.webHandler("127.0.0.1:8053")
	f.Fuzz(func(t *testing.T, path, body string) {
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			req, err := http.NewRequest(method, "http://127.0.0.1:8053/v1/"+path, strings.NewReader(body))
			if err != nil {
				return // no client can send it
			}
			req.RequestURI, req.RemoteAddr = req.URL.RequestURI(), "uid 0 pid 1"
			w := httptest.NewRecorder()
			control.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Fatalf("%s %q %q: %d %s", method, path, body, w.Code, w.Body)
			}
			if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q %q: %s", method, path, body, w.Body)
			}
			w = httptest.NewRecorder()
			web.ServeHTTP(w, req)
			if w.Code >= 500 || method == http.MethodPost && w.Code != http.StatusMethodNotAllowed {
				t.Fatalf("loopback: %s %q: %d", method, path, w.Code)
			}
		}
	})
}
