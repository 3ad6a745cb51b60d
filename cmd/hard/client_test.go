package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStuckDaemon: one that takes connections and says nothing is not "not running".
func TestStuckDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip(err) // the path is too long
	}
	defer l.Close()
	c, err := newClient(&options{socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // instead of quickTime
	defer cancel()
	var out struct{}
	if err := c.call(ctx, "GET", "/v1/status", nil, &out); err == nil || !strings.Contains(err.Error(), "stopped or stuck") {
		t.Error(err)
	}
}
