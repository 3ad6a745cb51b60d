package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	"hard/internal/engine"
	"hard/internal/rank"
)

const (
	maxBody   = 64 << 10        // octets of a request's body
	askTime   = 5 * time.Second // for the engine and the disk to answer one request
	maxProbes = 16              // that operators run at one time
	maxWhy    = 500             // characters of a reason
)

// newControl makes the server on the unix socket.
func newControl(s *Server, path string) *keeper {
	return newKeeper("control socket", path, s.log, s.controlHandler(), func() (net.Listener, error) { return listenUnix(path) })
}

// controlHandler is the control API. Who may connect may do everything here: the socket's mode is
// the permission.
func (s *Server) controlHandler() http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":         s.getStatus,
		"GET /v1/names/{name}":   s.getName,
		"GET /v1/explain/{name}": s.getExplain,
		"GET /v1/stats":          s.getStats,
		"POST /v1/set":           s.postSet,
		"POST /v1/weight":        s.postWeight,
		"POST /v1/probe":         s.postProbe,
		"POST /v1/reload":        s.postReload,
		"POST /v1/log":           s.postLog,
	} {
		mux.Handle(pattern, reply(f))
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(path, otherMethod(method))
	}
	mux.Handle("GET /metrics", s.metrics)
	mux.Handle("/", reply(func(r *http.Request) (any, error) {
		return nil, &statusError{404, Error{
			Message: r.Method + " " + r.URL.Path + " does not exist",
			Hint:    "GET /v1/status, /v1/names/{name}, /v1/explain/{name}, /v1/stats, /metrics; POST /v1/set, /v1/weight, /v1/probe, /v1/reload, /v1/log",
		}}
	}))
	return mux
}

// otherMethod refuses what is asked by a method that its path does not have.
func otherMethod(method string) http.Handler {
	refuse := reply(func(r *http.Request) (any, error) {
		return nil, &statusError{http.StatusMethodNotAllowed, Error{Message: r.Method + " " + r.URL.Path + " does not exist", Hint: "it is " + method}}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", method)
		refuse.ServeHTTP(w, r)
	})
}

// statusError is an error with the HTTP status it is told with.
type statusError struct {
	status int
	body   Error
}

// Error is the error interface's.
func (e *statusError) Error() string { return e.body.Message }

// reply makes a handler of a function that returns what to say, or an error.
func reply(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r)
		status := http.StatusOK
		if err != nil {
			var e Error
			status, e = tell(err)
			v = e
		}
		if x, ok := v.(withStatus); ok {
			status, v = x.status, x.v
		}
		writeJSON(w, status, v)
	})
}

// withStatus is a reply that is not an error and yet not 200.
type withStatus struct {
	status int
	v      any
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client left
}

// tell finds the status and the words for an error.
func tell(err error) (int, Error) {
	var se *statusError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &se):
		return se.status, se.body
	case errors.Is(err, engine.ErrNotFound):
		return http.StatusNotFound, Error{Message: err.Error()}
	case errors.Is(err, engine.ErrLastHealthy):
		return http.StatusConflict, Error{
			Message: err.Error(),
			Hint:    `it would be all down then; if that is meant: -force, or "force": true`,
		}
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, Error{Message: fmt.Sprintf("the request is longer than %d octets", large.Limit)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, Error{Message: "no answer in time, or stopping", Hint: "try again"}
	}
	return http.StatusInternalServerError, Error{Message: err.Error()}
}

func badRequest(format string, args ...any) error {
	return &statusError{http.StatusBadRequest, Error{Message: fmt.Sprintf(format, args...), Hint: "docs/api.md has an example of each request"}}
}

// decode reads a body strictly: one JSON object, known fields only.
func decode(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return err
		}
		if errors.Is(err, io.EOF) {
			return badRequest("the body is empty, JSON was expected")
		}
		return badRequest("%s", jsonProblem(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("something follows the JSON object")
	}
	return nil
}

// jsonProblem tells what is wrong with a body in words of JSON, not of Go.
func jsonProblem(err error) string {
	var te *json.UnmarshalTypeError
	switch {
	case errors.As(err, &te) && te.Field == "":
		return fmt.Sprintf("a JSON object was expected, not %s", jsonKind(te.Value))
	case errors.As(err, &te):
		want := "a string"
		switch te.Type.Kind() {
		case reflect.Bool:
			want = "true or false"
		case reflect.Int, reflect.Int64, reflect.Float64:
			want = "a number"
		}
		return fmt.Sprintf("%s: %s was expected, not %s", te.Field, want, jsonKind(te.Value))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the JSON ends too early"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// jsonKind puts an article before what encoding/json calls a value.
func jsonKind(value string) string {
	switch kind, _, _ := strings.Cut(value, " "); kind { // "number 5" says what the number is
	case "bool":
		return "true or false"
	case "array", "object":
		return "an " + kind
	default:
		return "a " + value
	}
}

// bounded is the request's context with the time that one answer may take.
func bounded(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), askTime)
}

func (s *Server) getStatus(r *http.Request) (any, error) {
	ctx, cancel := bounded(r)
	defer cancel()
	return orError(s.Status(ctx, ""))
}

func (s *Server) getName(r *http.Request) (any, error) {
	ctx, cancel := bounded(r)
	defer cancel()
	return orError(s.Status(ctx, r.PathValue("name")))
}

func (s *Server) getStats(*http.Request) (any, error) { return s.Stats(), nil }

func (s *Server) getExplain(r *http.Request) (any, error) {
	ctx, cancel := bounded(r)
	defer cancel()
	q := r.URL.Query()
	var types []rank.Family
	if t := q.Get("type"); t != "" {
		f, err := rank.ParseFamily(strings.ToUpper(t))
		if err != nil {
			return nil, badRequest("type is A or AAAA, not %q", t)
		}
		types = []rank.Family{f}
	}
	if q.Has("at") {
		return s.getPast(r, types)
	}
	return orError(s.Explain(ctx, r.PathValue("name"), types...))
}

// orError keeps a value that comes with an error from being shown.
func orError[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
