package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a killed process left is replaced, anything else is not.
func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "s")
	l, err := Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), path, 0o600); !errors.Is(err, ErrAnswered) {
		t.Errorf("somebody listens: %v", err)
	}
	l.UnixListener.Close() // as a killed process would: the file stays
	if l, err = Listen(t.Context(), path, 0o600); err != nil {
		t.Fatal(err)
	}
	l.UnixListener.Close()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("precious"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), path, 0o600); !errors.Is(err, ErrNotSocket) {
		t.Errorf("a file was taken for a socket: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// The file goes with the listener, unless it is somebody else's by now.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if l, err = Listen(t.Context(), path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_ = l.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("somebody else's is gone: %v", err)
	} else {
		c.Close()
	}
}

// A file of the same number that was made at another time is somebody else's.
func TestCloseNumberTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	later := l.info.ModTime().Add(time.Second)
	if err := os.Chtimes(path, later, later); err != nil { // stands for the file system's reuse
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("somebody else's file is gone: %v", err)
	}
}
