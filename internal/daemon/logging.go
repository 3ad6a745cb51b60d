package daemon

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hard/internal/config"
)

// NewLogger writes records of at least level to w, in the format of [log].format: auto is text.
// level may be changed at any time.
//
// It never waits for who reads the log: where w is a file that can't take a line now, the line is
// lost and counted (LogDropped). A warning that repeats itself is written once and then counted.
// Where w is the journal, lines carry their priority and leave the time to it.
func NewLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	out := newLogWriter(w)
	journal := isJournal(w, os.Getenv("JOURNAL_STREAM"))
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return nameTrace(groups, a)
	}}
	make := func(w io.Writer) slog.Handler {
		if format == "json" {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	var h slog.Handler
	if journal {
		h = newPriorityHandler(out, make)
	} else {
		h = make(out)
	}
	return slog.New(newRepeatHandler(h, out))
}

// LogDropped is how many lines of a logger made by NewLogger were lost because nobody took them.
func LogDropped(log *slog.Logger) uint64 {
	if h, ok := log.Handler().(*repeatHandler); ok {
		return h.out.dropped.Load()
	}
	return 0
}

// isJournal tells whether w is the stream that systemd connected to the journal. stream is
// $JOURNAL_STREAM, "device:inode" (systemd.exec(5)): it is inherited by programs whose output
// goes elsewhere, so it must be compared.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	dev, inode, _ := strings.Cut(stream, ":")
	return dev == strconv.FormatUint(uint64(st.Dev), 10) && inode == strconv.FormatUint(st.Ino, 10)
}

// priorityHandler puts "<N>" before each line, which the journal takes for its priority
// (sd-daemon(3)).
type priorityHandler struct {
	by [4]slog.Handler // by priority class
}

// The journal's priorities (syslog(3)): err, warning, info, debug.
var priorities = [4]string{"<3>", "<4>", "<6>", "<7>"}

func newPriorityHandler(w io.Writer, make func(io.Writer) slog.Handler) *priorityHandler {
	h := new(priorityHandler)
	for i, p := range priorities {
		h.by[i] = make(prefixWriter{w, p})
	}
	return h
}

func (h *priorityHandler) class(l slog.Level) slog.Handler {
	switch {
	case l >= slog.LevelError:
		return h.by[0]
	case l >= slog.LevelWarn:
		return h.by[1]
	case l >= slog.LevelInfo:
		return h.by[2]
	}
	return h.by[3]
}

// Enabled, Handle, WithAttrs and WithGroup are slog.Handler's.
func (h *priorityHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.by[0].Enabled(ctx, l)
}

// Handle is slog.Handler's.
func (h *priorityHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.class(r.Level).Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (h *priorityHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(s slog.Handler) slog.Handler { return s.WithAttrs(attrs) })
}

// WithGroup is slog.Handler's.
func (h *priorityHandler) WithGroup(name string) slog.Handler {
	return h.each(func(s slog.Handler) slog.Handler { return s.WithGroup(name) })
}

func (h *priorityHandler) each(f func(slog.Handler) slog.Handler) slog.Handler {
	out := new(priorityHandler)
	for i := range h.by {
		out.by[i] = f(h.by[i])
	}
	return out
}

// prefixWriter writes each line with a prefix, in one piece.
type prefixWriter struct {
	w      io.Writer
	prefix string
}

func (p prefixWriter) Write(b []byte) (int, error) {
	line := make([]byte, 0, len(p.prefix)+len(b))
	if _, err := p.w.Write(append(append(line, p.prefix...), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// nameTrace gives our lowest level its name.
func nameTrace(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.LevelKey && len(groups) == 0 {
		if l, ok := a.Value.Any().(slog.Level); ok && l == config.LevelTrace {
			a.Value = slog.StringValue("TRACE")
		}
	}
	return a
}

// Level is the log level in force: the command line's, then $LOG_LEVEL, then the file's. A bad
// $LOG_LEVEL is no reason not to start; it is returned for a warning.
func Level(flag string, c *config.Config) (l slog.Level, ignored string) {
	if flag != "" {
		if l, err := config.ParseLevel(flag); err == nil {
			return l, ""
		}
	}
	if env := os.Getenv("LOG_LEVEL"); env != "" {
		l, err := config.ParseLevel(env)
		if err == nil {
			return l, ""
		}
		return c.Log.Level, env
	}
	return c.Log.Level, ""
}
