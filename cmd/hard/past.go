package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"hard/internal/admin"
	"hard/internal/past"
	"hard/internal/rank"
	"hard/store"
)

// defaultStore is where the history is when no configuration says so.
const defaultStore = "/var/lib/hard/hard.db"

// openStore opens the history.
func openStore(o *options) (*store.Reader, error) {
	path, err := storePath(o)
	if err != nil {
		return nil, err
	}
	r, err := store.OpenReader(path)
	if err != nil {
		return nil, fmt.Errorf("the history cannot be read: %w", err)
	}
	return r, nil
}

// storePath is where the history is: where the configuration has it, or, with -s and without -c, the daemon there, if it
// runs.
func storePath(o *options) (string, error) {
	if o.socket != "" && o.config == "" {
		path, err := daemonStore(o)
		if down := (*notRunning)(nil); !errors.As(err, &down) {
			return path, err
		}
	}
	return fileStore(o)
}

// fileStore is where the configuration has the history. One that is not valid is good enough for that.
func fileStore(o *options) (string, error) {
	var file struct{ Store struct{ Path *string } }
	_, err := toml.DecodeFile(o.file(), &file)
	switch {
	case err == nil && file.Store.Path != nil && *file.Store.Path == "":
		return "", fmt.Errorf("no history is kept: [store].path is empty in %s", o.file())
	case err == nil && file.Store.Path != nil:
		return *file.Store.Path, nil
	case err != nil && o.config != "" && errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return defaultStore, nil
}

// daemonStore asks the daemon at -s where it has the history.
func daemonStore(o *options) (string, error) {
	c, err := newClient(o)
	if err != nil {
		return "", err
	}
	defer c.close()
	var s admin.Stats
	if err := c.call(context.Background(), "GET", "/v1/stats", nil, &s); err != nil {
		return "", err
	}
	switch path := s.Store.Path; {
	case path == "":
		return "", fmt.Errorf("no history is kept by the daemon at %s: its [store].path is empty", o.socket)
	case !filepath.IsAbs(path): // and nobody tells where the daemon was started
		return "", fmt.Errorf("the daemon at %s has its history at %s, a relative path: name its configuration with -c", o.socket, path)
	default:
		return path, nil
	}
}

// sinceTime reads -since.
func (o *options) sinceTime(now time.Time, otherwise time.Duration) (time.Time, error) {
	if o.since == "" {
		return now.Add(-otherwise), nil
	}
	t, err := admin.ParseTime(o.since, now)
	if err != nil {
		return t, fmt.Errorf("-since: %w", err)
	}
	return t, nil
}

// explainAt is hard explain -at: the decision of then, rebuilt from the history.
func explainAt(o *options, stdout, stderr io.Writer) int {
	at, err := admin.ParseTime(o.at, time.Now())
	if err != nil {
		fmt.Fprintln(stderr, "hard: explain: -at:", err)
		return exitUsage
	}
	var types []rank.Family
	if len(o.args) == 2 {
		f, _ := rank.ParseFamily(strings.ToUpper(o.args[1])) // explain has looked at it
		types = append(types, f)
	}
	r, err := openStore(o)
	if err != nil {
		return fail(stderr, err)
	}
	defer r.Close()
	ctx := context.Background()
	h, err := past.Open(ctx, r)
	if err != nil {
		return fail(stderr, err)
	}
	x, err := h.ExplainFirst(ctx, admin.Covering(o.args[0]), at)
	if err != nil {
		return fail(stderr, err)
	}
	view := admin.ExplainView(&x.Snapshot, x.Policy, types...)
	if o.json {
		return printJSON(stdout, view)
	}
	p := newPage(stdout)
	p.line(dim, "as of %s", view.At.Local().Format("2006-01-02 15:04:05.000"))
	showExplain(p, &view)
	for _, a := range x.Recorded {
		if a != nil && (len(types) == 0 || types[0].String() == a.Type) {
			p.line(dim, "  recorded %s: %s %s", a.At.Local().Format("2006-01-02 15:04:05.000"), a.Type, orDash(addrList(a.Addresses)))
		}
	}
	return p.print(stdout)
}
