package daemon_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPageInBrowser looks at the status page with a real Chromium (test/browser/page.mjs): no
// console message, no request to elsewhere, contrast, the keyboard, and a failover that is on the
// page at once. HARD_SCREENSHOTS names a directory that keeps what it saw.
func TestPageInBrowser(t *testing.T) {
	if os.Getenv("HARD_BROWSER") == "" {
		t.Skip("skipped: a real browser is asked for with HARD_BROWSER=1 (it needs Chromium, Node, and \"npm ci\" in test/browser)")
	}
	text, near, _ := twoCandidates(t, "31")
	text = strings.NewReplacer(`interval = "50ms"`, `interval = "500ms"`, `fast_interval = "20ms"`, `fast_interval = "100ms"`).Replace(text)
	w := watch(t, text)
	w.answers("api.example", 1, "127.0.31.1")
	w.call("POST", "/v1/set", `{"name": "*.wild.example", "state": "up", "for": "30m", "why": "<b>disk</b> swap"}`, nil)
	shots := os.Getenv("HARD_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}

	cmd := exec.Command("node", "page.mjs", "http://"+w.HTTPAddr()+"/", "api.example", "127.0.31.1", "127.0.31.2", shots)
	cmd.Dir = filepath.Join("..", "..", "test", "browser")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(4*patience, func() { _ = cmd.Process.Kill() }).Stop()
	failover := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		switch {
		case line == "kill":
			near.kill()
			fmt.Fprintln(in, "done")
		case strings.HasPrefix(line, "problem "):
			t.Error(line)
		default:
			t.Log(line)
			_, _ = fmt.Sscanf(line, "failover %d", &failover)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the browser's part: %v", err)
	}
	if failover < 0 {
		t.Error("the failover was not seen on the page")
	}
}
