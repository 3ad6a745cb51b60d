package admin

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

const (
	alertsFile    = "../../contrib/prometheus/alerts.yml"
	dashboardFile = "../../contrib/grafana/hard.json"
)

// knownMetrics are the names of all our metrics, from their descriptions.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	known := make(map[string]bool)
	for _, d := range allDescs {
		m := name.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("no name in %v", d)
		}
		known[m[1]] = true
	}
	return known
}

// TestContribKnowsOurMetrics: no alert and no panel rests on a metric that does not exist.
func TestContribKnowsOurMetrics(t *testing.T) {
	known := knownMetrics(t)
	word := regexp.MustCompile(`\bhard_[a-z0-9_]+`)
	for _, file := range []string{alertsFile, dashboardFile} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := word.FindAllString(string(b), -1)
		if len(used) < 10 {
			t.Errorf("%s: %d metrics", file, len(used))
		}
		for _, m := range used {
			base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(m, "_bucket"), "_count"), "_sum")
			if !known[m] && !known[base] {
				t.Errorf("%s: %s is no metric of ours", file, m)
			}
		}
	}
}

// TestContractListsMetrics: docs/contract.md has each metric with its labels and its help, and no other.
func TestContractListsMetrics(t *testing.T) {
	b, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^[|] `hard_.*$").FindAllString(string(b), -1) {
		listed[row] = true
	}
	parts := regexp.MustCompile(`fqName: "([^"]+)", help: "([^"]+)", .*variableLabels: {([^}]*)}`)
	for _, d := range allDescs {
		m := parts.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("not understood: %v", d)
		}
		name := m[1]
		if m[3] != "" {
			name += "{" + m[3] + "}"
		}
		row := "| `" + name + "` | " + strings.TrimSuffix(m[2], ".") + " |"
		if !listed[row] {
			t.Errorf("missing: %s", row)
		}
		delete(listed, row)
	}
	for row := range listed {
		t.Errorf("of no metric: %s", row)
	}
}

// TestDashboard: valid JSON, every panel with its own id and place.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ X, Y, W, H int }
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos place
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			if q.Expr == "" {
				t.Errorf("%s: an empty query", p.Title)
			}
		}
	}
}

// TestPromtool has Prometheus' own tool check the alerts, their firing in trouble and their silence
// otherwise, and every query of the dashboard as if it were a rule.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("skipped: promtool is not installed (Debian: prometheus)")
	}
	if out, err := exec.Command(promtool, "check", "rules", alertsFile).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command(promtool, "test", "rules", "testdata/alerts_test.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expr, _ := json.Marshal(strings.ReplaceAll(q.Expr, "$__rate_interval", "5m")) // JSON strings are YAML
			rules.WriteString("  - record: dashboard:query\n    expr: " + string(expr) + "\n")
		}
	}
	file := t.TempDir() + "/dashboard.yml"
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", "--lint=none", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
