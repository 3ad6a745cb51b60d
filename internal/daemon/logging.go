package daemon

import (
	"io"
	"log/slog"
	"os"

	"hard/internal/config"
)

// NewLogger writes records of at least level to w, in the format of [log].format: auto is text.
// level may be changed at any time.
func NewLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: nameTrace}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
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
