package admin

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

//go:embed page/*.html page/static
var pageFiles embed.FS

// statusPage serves / and /name/{name}: HTML made here from the same values as the API's, and
// complete without a script. The one script there is fetches the page again and puts the new one
// in the old one's place; without it the page reloads itself.
type statusPage struct {
	// immutable
	server *Server
	host   string // this machine's name
	mux    *http.ServeMux
	past   past
}

var pageFuncs = template.FuncMap{"ms": formatMS, "size": formatSize, "utc": formatUTC, "plus1": func(i int) int { return i + 1 }}

var (
	overviewTemplate = parsePage("overview.html")
	nameTemplate     = parsePage("name.html")
	errorTemplate    = parsePage("error.html")
)

func parsePage(file string) *template.Template {
	return template.Must(template.New("layout.html").Funcs(pageFuncs).ParseFS(pageFiles, "page/layout.html", "page/"+file))
}

func newPage(s *Server) http.Handler {
	p := &statusPage{server: s, mux: http.NewServeMux()}
	p.host, _ = os.Hostname()
	static, err := fs.Sub(pageFiles, "page/static")
	if err != nil {
		panic(err) // an invalid path: not at run time
	}
	p.mux.HandleFunc("/{$}", p.overview)
	p.mux.HandleFunc("/name/{name}", p.name)
	p.mux.Handle("/static/{file}", http.StripPrefix("/static/", http.FileServerFS(static)))
	return p.mux
}

// frame is what every page has around it.
type frame struct {
	Title   string
	Host    string
	Refresh int // seconds to the next look
	At      time.Time
}

func (p *statusPage) frame(title string, refresh int) frame {
	return frame{Title: title, Host: p.host, Refresh: refresh, At: time.Now()}
}

func (p *statusPage) overview(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := bounded(r)
	defer cancel()
	st, err := p.server.Status(ctx, "")
	if err != nil {
		p.fail(w, err)
		return
	}
	p.past.seed(ctx, p.server)
	p.render(w, http.StatusOK, overviewTemplate, p.newOverview(&st))
}

// spans are the hours that a name's chart may show.
var spans = []int{1, 6, 24, 48}

func (p *statusPage) name(w http.ResponseWriter, r *http.Request) {
	hours := spans[0]
	if text := r.URL.Query().Get("hours"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > spans[len(spans)-1] {
			p.fail(w, &statusError{http.StatusBadRequest, Error{Message: "hours is not a number from 1 to 48"}})
			return
		}
		hours = n
	}
	ctx, cancel := bounded(r)
	defer cancel()
	v, err := p.newNamePage(ctx, r.PathValue("name"), hours)
	if err != nil {
		p.fail(w, err)
		return
	}
	p.render(w, http.StatusOK, nameTemplate, v)
}

// fail shows an error as a page.
func (p *statusPage) fail(w http.ResponseWriter, err error) {
	code, e := http.StatusInternalServerError, Error{Message: err.Error()}
	var s *statusError
	switch {
	case errors.As(err, &s):
		code, e = s.status, s.body
	case errors.Is(err, context.DeadlineExceeded):
		code = http.StatusServiceUnavailable
	}
	p.render(w, code, errorTemplate, struct {
		frame
		Error
	}{p.frame(http.StatusText(code), 10), e})
}

// render makes the whole page before it sends any of it, so that an error is not half a page.
func (p *statusPage) render(w http.ResponseWriter, code int, t *template.Template, data any) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		p.server.log.Error("status page", "error", err)
		http.Error(w, "the page could not be made; the log says why", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// formatMS is a number of milliseconds, with as many digits as a reader wants.
func formatMS(ms float64) string {
	switch {
	case ms <= 0:
		return "–"
	case ms < 10:
		return strconv.FormatFloat(ms, 'f', 2, 64)
	case ms < 100:
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}

func formatSize(n int64) string {
	if n < 1<<20 {
		return strconv.FormatInt((n+1023)>>10, 10) + " KiB"
	}
	return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MiB"
}

func formatUTC(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// formatAge is a time span in its one or two largest units.
func formatAge(d time.Duration) string {
	day := 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < time.Hour:
		return d.Truncate(time.Second).String()
	case d < day:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return strconv.Itoa(int(d/day)) + "d" + strconv.Itoa(int(d%day/time.Hour)) + "h"
}
