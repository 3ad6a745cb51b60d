package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the program as a person would: testdata/script/*.txtar. Each script has two
// candidates and an upstream of its own on loopback.
//
// Beyond testscript's own, there are the commands
//
//	up CONFIG          start hard with it, and wait until it is asked and answers
//	exits CODE ARG...  run hard, which must end with that code
//	until TEXT ARG...  run hard again and again until its output, or its message where it fails, has the text
//	watch N TEXT ARG...  run hard until N lines began with the text, then interrupt it
//	fits               no line of the last output is wider than 80 columns
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: scriptWorld,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "until": until, "fits": fits, "up": up, "watch": watch,
		},
	})
}

// scriptWorld starts the candidates and writes the configuration har.toml. DNS, HTTP and
// databases of parallel scripts don't meet: ports are picked by the system, files are below $WORK.
func scriptWorld(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "hard") // $WORK may be too long for a socket
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.3.1:0")
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	far, err := net.Listen("tcp", "127.0.3.2:"+port)
	if err != nil {
		l.Close()
		return err
	}
	for l, delay := range map[net.Listener]time.Duration{l: 0, far: 40 * time.Millisecond} {
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(delay) // the candidate's latency
			io.WriteString(w, "fine")
		})}
		go func() { _ = srv.Serve(l) }()
		env.Defer(func() { srv.Close() })
	}
	env.Setenv("PORT", port)
	env.Setenv("ESC", "\x1b") // what a terminal would obey
	env.Setenv("SOCKET", dir+"/control.sock")
	env.Setenv("HARD_CONFIG", "")
	env.Setenv("LOG_LEVEL", "")
	env.Setenv("GORACE", "atexit_sleep_ms=0") // under the race detector each run would last a second longer
	text := strings.NewReplacer("PORT", port, "SOCKET", dir+"/control.sock", "WORK", env.WorkDir).Replace(scriptConfig)
	return os.WriteFile(env.WorkDir+"/har.toml", []byte(text), 0o644)
}

const scriptConfig = `[listen]
dns     = ["127.0.0.1:0"]
http    = ""
control = "SOCKET"
[upstream]
servers = ["127.0.3.53:9"]
[store]
path = "WORK/hard.db"
[defaults]
check = "http://www.example.com:PORT/healthz"
interval = "100ms"
fast_interval = "20ms"
timeout = "100ms"
[name."www.example.com"]
candidates = ["192.0.2.99"]
check = "static:"
[name."api.example.com".candidate.near]
address = "127.0.3.1"
[name."api.example.com".candidate.far]
address = "127.0.3.2"
weight = 80
`

// up starts hard in the background; the end of the script stops it.
func up(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: up CONFIG")
	}
	hard, err := exec.LookPath("hard")
	ts.Check(err)
	log, err := os.Create(ts.MkAbs("log"))
	ts.Check(err)
	cmd := exec.Command(hard, args[0])
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), log, log
	cmd.Env = append(os.Environ(), "HARD_CONFIG=", "LOG_LEVEL=", "GORACE=atexit_sleep_ms=0")
	ts.Check(cmd.Start())
	log.Close()
	ts.Defer(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			ts.Logf("hard: %v\n%s", err, ts.ReadFile("log"))
		}
	})
	until(ts, false, []string{"endpoint", "-s", ts.Getenv("SOCKET"), "status"})
}

// until runs hard until its standard output has a text, or where it fails its standard error.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT ARG...")
	}
	deadline := time.Now().Add(patience)
	for {
		err := ts.Exec("hard", args[1:]...)
		says := "stdout"
		if err != nil {
			says = "stderr"
		}
		if strings.Contains(ts.ReadFile(says), args[0]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("never %q: %v\n%s\n%s", args[0], err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
		time.Sleep(10 * time.Millisecond) // the poll's pace
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended *exec.ExitError
	switch err := ts.Exec("hard", args[1:]...); {
	case errors.As(err, &ended):
		got = ended.ExitCode()
	case err != nil:
		ts.Fatalf("hard %v: %v", args[1:], err)
	}
	if got != want {
		ts.Fatalf("hard %v: exit code %d, want %d\n%s%s", args[1:], got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func watch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: watch N TEXT ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	hard, err := exec.LookPath("hard")
	ts.Check(err)
	cmd := exec.Command(hard, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { _ = cmd.Process.Kill() })
	seen := 0
	for lines := bufio.NewScanner(out); seen < want && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), args[1]) {
			seen++
		}
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil || seen < want {
		ts.Fatalf("%v, %d times %q", err, seen, args[1])
	}
}

func fits(ts *testscript.TestScript, neg bool, _ []string) {
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > pageWidth || strings.HasSuffix(line, " ") {
			ts.Fatalf("%d columns, or blanks at the end: %q", utf8.RuneCountInString(line), line)
		}
	}
}
