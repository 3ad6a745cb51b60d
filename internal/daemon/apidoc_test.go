package daemon_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestAPIDoc runs every curl line of docs/api.md.
func TestAPIDoc(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("skipped: curl is not installed")
	}
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := twoCandidates(t, "14")
	w := watch(t, strings.ReplaceAll(text, "api.example", "api.example.com"))
	w.healthy("api.example.com", 2)
	eventually(t, "http listens", func() bool { return w.HTTPAddr() != "" })
	lines := 0
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		lines++
		command := strings.NewReplacer("/run/hard/control.sock", w.socket, "127.0.0.1:8053", w.HTTPAddr()).Replace(line)
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if strings.Contains(line, "?at=") { // what was before the start, or is not written yet, is not explained
			eventually(t, line+"has a past to explain", func() bool {
				out, err = exec.Command("sh", "-c", command).CombinedOutput()
				return err == nil
			})
		}
		switch {
		case err != nil:
			t.Errorf("%s%v: %s", line, err, out)
		case strings.Contains(line, "/metrics"):
			if !strings.Contains(string(out), "hard_endpoint_up{") {
				t.Errorf("%s%.200s", line, out)
			}
		case strings.Contains(line, "readyz"), strings.Contains(line, "healthz"):
			if string(out) != "ok\n" {
				t.Errorf("%s%s", line, out)
			}
		case !json.Valid(out):
			t.Errorf("%s%s", line, out)
		}
	}
	if lines < 18 {
		t.Errorf("only %d lines found", lines)
	}
}
