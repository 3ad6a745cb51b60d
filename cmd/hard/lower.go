package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"hard/internal/config"
	"hard/internal/handover"
	"hard/internal/privilege"
	"hard/internal/unixsock"
	"hard/resolver"
	"hard/store"
)

// defaultUser is whom root becomes where nobody else is named, if there is such a user.
const defaultUser = "hard"

// lower returns what gives up root's rights once the sockets are bound; nil where there is nothing to
// give up, or nobody to become.
func lower(o *options, c *config.Config, log *slog.Logger) (func([]resolver.Socket) error, error) {
	if os.Geteuid() != 0 {
		if o.user != "" {
			return nil, errors.New("-user: only root can become somebody else")
		}
		return nil, nil
	}
	name := o.user
	if name == "" {
		name = defaultUser
	}
	u, err := privilege.Lookup(name)
	if err != nil && o.user == "" {
		log.Warn("running as root, with all its rights: make a user named hard, or name one by -user; -user root is silent")
		return nil, nil
	}
	if err != nil || u.Root() {
		return nil, err
	}
	return func(sockets []resolver.Socket) error { return become(u, sockets, c, log) }, nil
}

// become makes u the owner of what has to be written, and the process u's.
func become(u privilege.User, sockets []resolver.Socket, c *config.Config, log *slog.Logger) error {
	for _, s := range sockets {
		// The kernel lets sockets of one user share a port, no others: a reload or a successor may want more.
		if err := s.File.Chown(u.UID, u.GID); err != nil {
			log.Warn("a socket stays root's", "address", s.Addr.String(), "error", err)
		}
	}
	own(u, c, log)
	if err := privilege.Drop(u); err != nil {
		return err
	}
	log.Info("root's rights are given up", "user", u.Name, "uid", u.UID, "gid", u.GID, "kept", "CAP_NET_BIND_SERVICE")
	if !privilege.Readable(c.File) {
		log.Warn("a reload will fail: the configuration can't be read by the user", "file", c.File, "user", u.Name)
	}
	if dir := filepath.Dir(c.Store.Path); c.Store.Path != "" && !privilege.Writable(dir) {
		log.Warn("no history will be written: the directory is not the user's", "directory", dir, "user", u.Name)
	}
	return nil
}

// own gives the user the database and the place for the control socket.
func own(u privilege.User, c *config.Config, log *slog.Logger) {
	note := func(err error) {
		if err != nil {
			log.Warn("not given to the user", "user", u.Name, "error", err)
		}
	}
	db, control := c.Store.Path, c.Listen.Control
	ours := func(name string) bool {
		return db != "" && strings.HasPrefix(name, filepath.Base(db)) ||
			control != "" && (name == filepath.Base(control) || name == filepath.Base(handover.Path(control)))
	}
	if db != "" {
		note(u.MakeDir(filepath.Dir(db), store.DirMode))
		for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
			note(u.Own(db+suffix, nil))
		}
		note(u.Own(filepath.Dir(db), ours))
	}
	if control != "" {
		note(u.MakeDir(filepath.Dir(control), unixsock.DirMode))
		note(u.Own(filepath.Dir(control), ours))
	}
}
