package daemon_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// metricNames are those of the contract, section 7.
var metricNames = []string{
	`hard_build_info{`, `hard_dns_requests_total{proto="udp",source="local",type="A"} `, `hard_dns_responses_total{rcode="NOERROR",source="local"} `,
	`hard_dns_request_duration_seconds_count{source="forward"} `, `hard_answers_total{candidate="near",name="api.example"} `,
	`hard_endpoint_up{address="127.0.11.1",candidate="near",name="api.example"} 1`,
	`hard_endpoint_selected{address="127.0.11.1",candidate="near",name="api.example"} 1`,
	`hard_endpoint_latency_seconds{address="127.0.11.2",candidate="far",name="api.example"} 0.0`,
	`hard_endpoint_transitions_total{address="127.0.11.1",candidate="near",name="api.example"} 1`,
	`hard_name_healthy_endpoints{name="api.example"} 2`, `hard_name_all_down_total{name="api.example",policy="last_good"} 0`,
	`hard_probes_total{candidate="near",name="api.example",outcome="ok"} `, `hard_probe_duration_seconds_bucket{phase="connect",le="0.0005"} `,
	`hard_probe_lag_seconds_count `, `hard_upstream_requests_total{rcode="NOERROR",upstream="127.0.11.53:`,
	`hard_upstream_duration_seconds_count{upstream="127.0.11.53:`, `hard_upstream_up{upstream="127.0.11.53:`, `hard_loops_detected_total 0`,
	`hard_store_dropped_rows_total 0`, `hard_store_write_errors_total 0`, `hard_store_size_bytes `,
	`hard_config_last_reload_successful 1`, `hard_config_last_reload_success_timestamp_seconds `, `hard_local_fault 0`,
	`go_goroutines `, `process_cpu_seconds_total `,
}

// TestMetrics: every metric of the contract is there after some traffic, and a name that is asked
// for makes no label.
func TestMetrics(t *testing.T) {
	text, _, far := twoCandidates(t, "11")
	w := watch(t, text)
	w.healthy("api.example", 2)
	for range 3 {
		w.ask("udp", 0, "api.example", dns.TypeA)
		w.ask("udp", 0, "other.example", dns.TypeA)
		w.ask("tcp", 0, "never-heard-of.example", dns.TypeA)
	}
	var body string
	for _, m := range metricNames {
		eventually(t, m, func() bool {
			_, body, _ = w.get("/metrics")
			return strings.Contains(body, m)
		})
	}
	if strings.Contains(body, "never-heard-of") {
		t.Error("a query's name is in a label")
	}
	if n := count(t, body, `hard_answers_total\{candidate="near",name="api.example"\} (\d+)`); n < 3 {
		t.Errorf("hard_answers_total is %d", n)
	}
	far.kill()
	w.healthy("api.example", 1)
	w.call("POST", "/v1/set", `{"name":"api.example","candidate":"near","state":"down","force":true}`, nil)
	_, body, _ = w.get("/metrics")
	for _, m := range []string{
		`hard_name_all_down_total{name="api.example",policy="last_good"} 1`,
		`hard_endpoint_up{address="127.0.11.2",candidate="far",name="api.example"} 0`,
		`hard_endpoint_transitions_total{address="127.0.11.2",candidate="far",name="api.example"} 2`,
		`hard_probes_total{candidate="far",name="api.example",outcome="refused"}`,
	} {
		if !strings.Contains(body, m) {
			t.Errorf("missing: %s", m)
		}
	}
	// The control socket has the same metrics, for hosts without the loopback server.
	r, err := w.unix.Get("http://hard/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); !bytes.Contains(b, []byte("hard_endpoint_up")) {
		t.Error("no metrics on the control socket")
	}
}

func count(t *testing.T, body, pattern string) (n int) {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(body)
	if m == nil {
		return -1
	}
	fmt.Sscan(m[1], &n)
	return n
}

// TestHooks: a program sees changes of endpoints and answers, and not the first answers of a start
// or a reload that changes nothing.
func TestHooks(t *testing.T) {
	text, _, far := twoCandidates(t, "12")
	out := filepath.Join(t.TempDir(), "out")
	program := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncat >>\""+out+"\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := watch(t, text+fmt.Sprintf("\n[hooks]\non_change = [%q]\n", program))
	w.healthy("api.example", 2)
	if err := w.Reload(); err != nil {
		t.Fatal(err)
	}
	far.kill()
	lines := func() []string { b, _ := os.ReadFile(out); return strings.Split(strings.TrimSpace(string(b)), "\n") }
	eventually(t, "the program was told of the death", func() bool {
		return slices.ContainsFunc(lines(), func(l string) bool {
			return strings.Contains(l, `"candidate":"far"`) && strings.Contains(l, `"new":"unhealthy"`)
		})
	})
	answers := 0
	for _, l := range lines() {
		if strings.Contains(l, `"kind":"answer"`) && strings.Contains(l, `"name":"api.example","type":"A"`) {
			answers++
		}
	}
	if answers > 2 { // the wait for first verdicts ends, and perhaps the near one comes second
		t.Errorf("%d changes of an answer:\n%s", answers, strings.Join(lines(), "\n"))
	}
}
