package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Severity tells what refuses a configuration from what does not.
type Severity uint8

// The severities. One Error makes a configuration invalid; a Warning does not, unless the
// caller is strict.
const (
	Error Severity = iota
	Warning
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText is String, for JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is one thing to be said about a configuration file.
type Problem struct {
	// Line and Col are those of the key the problem is about, or of the header of the table in
	// which something is missing. Both count from 1; Col counts bytes, as compilers do. A byte
	// order mark is not counted. Both are 0 where the file could not be read at all.
	Line       int      `json:"line"`
	Col        int      `json:"col"`
	Severity   Severity `json:"severity"`
	Path       string   `json:"path,omitempty"` // dotted, quoted where TOML needs quotes; "" = the file
	Message    string   `json:"message"`
	Suggestion string   `json:"suggestion,omitempty"` // what was probably meant
}

// Report is everything there is to say about one file, in file order.
type Report struct {
	File     string
	Problems []Problem
}

// Text is the line that a person, an editor or a CI log reads:
// file:line:col: severity: path: message (did you mean "x"?)
func (r Report) Text(p Problem) string {
	var b strings.Builder
	b.WriteString(Visible(r.File))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	fmt.Fprintf(&b, ": %s: ", p.Severity)
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Suggestion != "" {
		b.WriteString(" (did you mean " + quote(p.Suggestion) + "?)")
	}
	return b.String()
}

// Visible is a text on one line: what is not printable is shown as an escape, so that no name of a file
// reaches a terminal as a command, or forges a second line.
func Visible(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	q := strconv.Quote(text)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// quote puts a suggested word between quotes, but leaves a value, which is suggested as TOML writes it,
// as it is: it can be pasted.
func quote(s string) string {
	if strings.ContainsAny(s[:1], `"[{0123456789`) || strings.Contains(s, " = ") || s == "true" || s == "false" {
		return s
	}
	return `"` + s + `"`
}

// WriteText writes one line per problem.
func (r Report) WriteText(w io.Writer) error {
	for _, p := range r.Problems {
		if _, err := fmt.Fprintln(w, r.Text(p)); err != nil {
			return err
		}
	}
	return nil
}

// Count returns the number of problems of one severity.
func (r Report) Count(s Severity) int {
	n := 0
	for _, p := range r.Problems {
		if p.Severity == s {
			n++
		}
	}
	return n
}

// Err returns all errors as one, a line each, or nil where there are at most warnings.
func (r Report) Err() error {
	var errs []error
	for _, p := range r.Problems {
		if p.Severity == Error {
			errs = append(errs, errors.New(r.Text(p)))
		}
	}
	return errors.Join(errs...)
}

// reportJSON is a Report for machines.
type reportJSON struct {
	File     string    `json:"file"`
	OK       bool      `json:"ok"` // no errors
	Problems []Problem `json:"problems"`
}

func (r Report) json() reportJSON {
	return reportJSON{r.File, r.Count(Error) == 0, append([]Problem{}, r.Problems...)}
}

// MarshalJSON returns {"file": ..., "ok": ..., "problems": [...]}.
func (r Report) MarshalJSON() ([]byte, error) { return json.Marshal(r.json()) }

// Warn appends a warning that only a caller can know of, e.g. that no resolv.conf names an
// upstream. path are the parts of the key it is about. Its position is looked up in the file,
// which is read once more for it; where that fails the warning has none.
func (r *Report) Warn(message string, path ...string) {
	f := found{severity: Warning, path: path, message: message}
	var problems []Problem
	if text, err := readConfig(r.File); err == nil {
		problems = locate(stripBOM(text), []found{f})
	} else {
		problems = []Problem{f.problem(position{})}
	}
	r.Problems = append(r.Problems, problems...)
	sortProblems(r.Problems)
}

// maxFile bounds the size of a configuration file, in bytes: six times what 100,000 names need. It
// is there for a path that names something endless.
const maxFile = 64 << 20

// maxWait bounds the time that a pipe's writer may take, process substitution for one. A reload that
// waits for ever could not be ended, not even by the signal to stop.
const maxWait = 5 * time.Second

// readConfig reads a whole file, a configuration or what one names. A named pipe that nobody writes to
// is empty (O_NONBLOCK, fifo(7)).
func readConfig(file string) (string, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(maxWait)) // refused for regular files, which don't need it
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return "", errors.New("is a directory")
	}
	tooLarge := fmt.Errorf("is larger than %d MiB", maxFile>>20)
	if info.Size() > maxFile {
		return "", tooLarge
	}
	var text strings.Builder // which, other than io.ReadAll, makes a string without a second copy
	text.Grow(int(info.Size()))
	n, err := io.Copy(&text, io.LimitReader(f, maxFile+1))
	if n > maxFile {
		return "", tooLarge
	}
	if err != nil {
		return "", err
	}
	return text.String(), nil
}
