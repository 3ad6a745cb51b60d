package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// fileSystem is what Load may look at besides the configuration itself, and Parse may not.
type fileSystem interface {
	readFile(path string) ([]byte, error)
	stat(path string) (fs.FileInfo, error)
	access(path string, mode uint32) error
	configPath() string
}

// realHost is this host.
type realHost struct{ config string }

func (h *realHost) readFile(path string) ([]byte, error) {
	text, err := readConfig(path)
	return []byte(text), err
}

func (h *realHost) stat(path string) (fs.FileInfo, error) { return os.Stat(path) }
func (h *realHost) access(path string, mode uint32) error { return unix.Access(path, mode) }
func (h *realHost) configPath() string                    { return h.config }

// othersWrite is the permission that nobody needs on what we trust.
const othersWrite = 0o002

// hostProblems warns of what this host would make of the configuration.
func (l *loader) hostProblems(c *Config) {
	if l.host == nil {
		return
	}
	if info, err := l.host.stat(l.host.configPath()); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&othersWrite != 0 {
		l.warnf(nil, "every user of this host can write to this file")
	}
	l.storeProblem([]string{"store", "path"}, c.Store.Path)
	if len(c.Hooks.OnChange) > 0 {
		l.executable([]string{"hooks", "on_change"}, c.Hooks.OnChange[0])
	}
}

// storeProblem warns of a database that could not be written. A directory that is missing is no
// problem while it can be made: the service manager or the store does that.
func (l *loader) storeProblem(path []string, file string) {
	if info, err := l.host.stat(file); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&othersWrite != 0 {
		l.warnf(path, "every user of this host can write to the database %s, and so say what is answered after a start", strconv.Quote(file))
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		info, err := l.host.stat(dir)
		switch {
		case os.IsNotExist(err) && dir != filepath.Dir(dir):
			continue
		case err != nil:
			l.warnf(path, "%v", err)
		case !info.IsDir():
			l.warnf(path, "%s is not a directory", strconv.Quote(dir))
		case info.Mode().Perm()&othersWrite != 0 && info.Mode()&fs.ModeSticky == 0:
			l.warnf(path, "every user of this host can write to the directory %s", strconv.Quote(dir))
		case dir == filepath.Dir(file) && l.host.access(dir, unix.W_OK) != nil:
			l.warnf(path, "the user who runs this check cannot write to the directory %s", strconv.Quote(dir))
		}
		return
	}
}

// executable warns of a program that could not be run.
func (l *loader) executable(path []string, program string) {
	if l.host == nil {
		return
	}
	info, err := l.host.stat(program)
	switch {
	case err != nil:
		l.warnf(path, "%v", err)
	case info.IsDir() || l.host.access(program, unix.X_OK) != nil:
		l.warnf(path, "%s cannot be run by the user who runs this check", strconv.Quote(program))
	}
}
