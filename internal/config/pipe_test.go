package config

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPipeWithoutWriter: os.Open would wait for a writer, for ever.
func TestPipeWithoutWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "har.toml")
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Skip("no named pipes here: ", err)
	}
	_, report := Load(file)
	if len(report.Problems) != 1 || !strings.Contains(report.Problems[0].Message, "no names") {
		t.Errorf("%+v", report.Problems)
	}
	if data, err := new(realHost).readFile(file); err != nil || len(data) != 0 {
		t.Errorf("as ca_file: %q, %v", data, err)
	}
}
