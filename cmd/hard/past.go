package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"hard/internal/admin"
	"hard/internal/engine"
	"hard/internal/past"
	"hard/internal/rank"
	"hard/store"
)

// defaultStore is where the history is when no configuration says so.
const defaultStore = "/var/lib/hard/hard.db"

// openStore opens the history that the configuration names. A configuration that is not valid is
// good enough for that.
func openStore(o *options) (*store.Reader, error) {
	var file struct{ Store struct{ Path *string } }
	path := defaultStore
	if _, err := toml.DecodeFile(o.file(), &file); err == nil && file.Store.Path != nil {
		path = *file.Store.Path
	} else if err != nil && o.config != "" && errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if path == "" {
		return nil, fmt.Errorf("no history is kept: [store].path is empty in %s", o.file())
	}
	r, err := store.OpenReader(path)
	if err != nil {
		return nil, fmt.Errorf("the history cannot be read: %w", err)
	}
	return r, nil
}

// parseTime reads TIME: RFC 3339, local "YYYY-MM-DD HH:MM", with seconds too, or an age.
func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if d, err := admin.ParseFor(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time: RFC 3339, YYYY-MM-DD HH:MM, or an age such as 15m", text)
}

// sinceTime reads -since.
func (o *options) sinceTime(now time.Time, otherwise time.Duration) (time.Time, error) {
	if o.since == "" {
		return now.Add(-otherwise), nil
	}
	t, err := parseTime(o.since, now)
	if err != nil {
		return t, fmt.Errorf("-since: %w", err)
	}
	return t, nil
}

// covering lists the names of the history that a name may stand for: itself, and the wildcards above it,
// the longest first.
func covering(text string) []string {
	name := admin.Canonical(text)
	list := []string{name}
	for _, parent, ok := strings.Cut(name, "."); ok && name[0] != '*'; _, parent, ok = strings.Cut(parent, ".") {
		list = append(list, "*."+parent)
	}
	return list
}

// explainAt is hard explain -at: the decision of then, rebuilt from the history.
func explainAt(o *options, stdout, stderr io.Writer) int {
	at, err := parseTime(o.at, time.Now())
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
	x, err := h.Explain(ctx, admin.Canonical(o.args[0]), at)
	for _, name := range covering(o.args[0])[1:] {
		if !errors.Is(err, engine.ErrNotFound) {
			break
		}
		if y, cerr := h.Explain(ctx, name, at); cerr == nil {
			x, err = y, nil
		}
	}
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
