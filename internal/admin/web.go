package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/net/netutil"
)

// contentPolicy allows what we serve ourselves and nothing else: no inline script, no other host,
// no frame around us.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// newWeb makes the server on loopback.
func newWeb(s *Server, address string) *keeper {
	return newKeeper("http", address, s.log, s.webHandler(address), func() (net.Listener, error) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		return netutil.LimitListener(l, maxConns), nil
	})
}

// webHandler is the read-only server. Nobody has to prove who they are here, so there is nothing
// to change and nothing secret: no check's headers, no database's content.
func (s *Server) webHandler(address string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", s.metrics)
	mux.Handle("/status.json", reply(s.getStatus))
	mux.HandleFunc("/healthz", s.healthz)
	mux.HandleFunc("/readyz", s.readyz)
	mux.Handle("/", newPage(s))
	return guarded(address, mux)
}

// guarded lets through what reads and what asked for this host by a name that only this host can
// have: a page of the Internet whose name was made to point at 127.0.0.1 (DNS rebinding) still
// sends its own name.
func guarded(address string, next http.Handler) http.Handler {
	configured, _, _ := net.SplitHostPort(address)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "read only: changes go through the control socket, see \"hard -h\"", http.StatusMethodNotAllowed)
		case !ourHost(r, configured):
			http.Error(w, "the Host header is not an address of this server: use "+address, http.StatusForbidden)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, 0)
			next.ServeHTTP(w, r)
		}
	})
}

// ourHost tells whether a request was for this server: for a loopback name or address, for the
// address as configured, or for the very address that it came to.
func ourHost(r *http.Request, configured string) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || host != "" && host == strings.ToLower(configured) {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if a = a.Unmap(); a.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap().WithZone("") == a.WithZone("")
}
