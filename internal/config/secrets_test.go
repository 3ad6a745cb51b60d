package config

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// secretFile has a secret wherever one may stand, in every form of TOML.
const secretFile = `# comment with SECRETcomment
[hooks] # SECRETcomment
on_change = ["/usr/lib/notify", "--token", 'SECRETonchange']
webhook = "https://user:SECRETuser@hooks.example/services/SECRETpath?token=SECRETquery"
[defaults.check]
url = "https://www.example.com/healthz"
headers = { Authorization = "Bearer SECRETdefault", "X-Key" = 'SECRETliteral' }
[name."send"]
candidates = ["192.0.2.1", "SECRETless.example.net"] # "SECRETcomment"
[name."www.example.com"]
candidates = ["192.0.2.1", "192.0.2.2"]
[name."www.example.com".check.headers]
Authorization = """
Bearer SECRETlong"""
Cookie = "a=\"SECRETescaped\"; b=#no comment"
[name."tcp.example.com"]
candidates = ["192.0.2.1", "192.0.2.2"]
check = { url = "tcp://:6379", send = "AUTH SECRETsend\r\n", expect = "+OK" }
[name."exec.example.com"]
check.url = "exec:/usr/lib/check"
check.args = [
  "-p", # SECRETcomment
  "SECRETargs",
]
[name."exec.example.com".candidate.a]
address = "192.0.2.1"
check = { args = ["SECRETcandidate"] }
`

func leaks(text string) string {
	text = strings.ReplaceAll(text, "SECRETless", "")
	if i := strings.Index(text, "SECRET"); i >= 0 {
		return text[max(0, i-30):min(len(text), i+30)]
	}
	return ""
}

// TestRedacted: what is stored of a configuration has no secret in it, and means the same otherwise.
func TestRedacted(t *testing.T) {
	c, r := Parse("secret.toml", []byte(secretFile))
	if c == nil {
		t.Fatal(r.Err())
	}
	text := Redacted(secretFile)
	if l := leaks(text); l != "" {
		t.Errorf("leaks %q:\n%s", l, text)
	}
	d, r := Parse("redacted.toml", []byte(text))
	if d == nil {
		t.Fatalf("%v:\n%s", r.Err(), text)
	}
	if len(d.Names) != len(c.Names) || d.Hooks.OnChange[0] != c.Hooks.OnChange[0] || len(d.Hooks.OnChange) != 3 {
		t.Errorf("another configuration:\n%s", text)
	}
	for i := range c.Names {
		a, b := c.Names[i].Candidates[0].Check, d.Names[i].Candidates[0].Check
		if a.URL != b.URL || a.Expect != b.Expect || len(a.Headers) != len(b.Headers) || len(a.Args) != len(b.Args) || (a.Send == "") != (b.Send == "") {
			t.Errorf("%s: %+v became %+v", c.Names[i].Name, a, b)
		}
	}
	if again := Redacted(text); again != text {
		t.Errorf("again:\n%s", again)
	}
	other := Redacted(strings.Replace(secretFile, "SECRETdefault", "SECRETother", 1))
	if text == other {
		t.Error("another secret, the same text")
	}
}

// TestRedactedFindsKeys: a secret is found however its key is written.
func TestRedactedFindsKeys(t *testing.T) {
	for _, key := range []string{"headers.X", `"headers"."X"`, `'headers'.X`, `"\u0068eaders".X`, `"h\U00000065aders".X`, "send", `"sen\u0064"`, `"\x73end"`} {
		text := "[name.a.check]\nurl = \"tcp://:1\"\n" + key + " = \"SECRET\"\n"
		if out := Redacted(text); leaks(out) != "" && !strings.Contains(key, `\x`) { // TOML 1.0 has no \x
			t.Errorf("%s:\n%s", key, out)
		}
	}
	const plain = "[name.a]\ncheck = \"static:\"\ncandidates = [\"192.0.2.1\"]\n"
	if out := Redacted("\ufeff" + plain); out != plain {
		t.Errorf("%q", out)
	}
	if n := testing.AllocsPerRun(10, func() { Redacted(plain) }); n > 3 {
		t.Errorf("%v allocations for a text without secrets: it was copied", n)
	}
}

// TestRedactedKeepsAllElse: the files of the other tests lose nothing but comments.
func TestRedactedKeepsAllElse(t *testing.T) {
	for _, file := range inputs(t, "good", 5) {
		c, r, data := parseFile(t, file)
		d, dr := Parse(c.File, []byte(Redacted(string(data))))
		if d == nil {
			t.Errorf("%s: %v", file, dr.Err())
			continue
		}
		if a, b := fmt.Sprint(c.Summary(), len(r.Problems)), fmt.Sprint(d.Summary(), len(dr.Problems)); a != b {
			t.Errorf("%s: %s became %s", file, a, b)
		}
	}
}

// TestReportsHideSecrets breaks a file full of secrets at every place in several ways: whatever is
// said of it, no secret is quoted, nor a part of one.
func TestReportsHideSecrets(t *testing.T) {
	plain := strings.ReplaceAll(secretFile, "SECRETcomment", "comment")
	plain = strings.ReplaceAll(plain, "SECRETless", "none")
	breaks := map[string]func(s string, i int) string{
		"deleted": func(s string, i int) string { return s[:i] + s[i+1:] },
		"quote":   func(s string, i int) string { return s[:i] + `"` + s[i:] },
		"escape":  func(s string, i int) string { return s[:i] + `\u` + s[i:] },
		"control": func(s string, i int) string { return s[:i] + "\x01" + s[i:] },
		"line":    func(s string, i int) string { return s[:i] + "\n" + s[i:] },
		"bare":    func(s string, i int) string { return s[:i] + strings.NewReplacer(`"`, "", `'`, "").Replace(s[i:]) },
		"cut":     func(s string, i int) string { return s[:i] },
		"number":  func(s string, i int) string { return s[:i] + " 7 " + s[i:] },
	}
	told, step := 0, 7
	if os.Getenv("HARD_LONG") != "" {
		step = 1
	}
	for how, f := range breaks {
		for i := len(how) % step; i < len(plain); i += step {
			_, r := Parse("broken.toml", []byte(f(plain, i)))
			var out bytes.Buffer
			r.WriteText(&out)
			told += len(r.Problems)
			if l := leaks(out.String()); l != "" {
				t.Fatalf("%s at %d (%q) tells %q:\n%s", how, i, plain[max(0, i-20):min(len(plain), i+10)], l, out.String())
			}
		}
	}
	if told < 500 {
		t.Errorf("only %d problems were told", told)
	}
}

// TestWrongTypesHideSecrets: values of the wrong type, and bad ones.
func TestWrongTypesHideSecrets(t *testing.T) {
	for _, line := range []string{
		"[hooks]\nwebhook = [\"SECRETa\"]", "[hooks]\nwebhook = \"SECRETb\"", "[hooks]\nwebhook = \"ftp://SECRETc@x/\"",
		"[hooks]\nwebhook = \"https://a b/SECRETd\"", "[hooks]\nwebhook = \"https://x:SECRETe/\"",
		"[hooks]\non_change = \"/bin/sh SECRETf\"", "[hooks]\non_change = [\"curl SECRETg\"]", "[hooks]\non_change = [7, \"SECRETh\"]",
		"[defaults.check]\nheaders = \"SECRETi\"", "[defaults.check]\nheaders = { A = [\"SECRETj\"] }",
		"[defaults.check]\nheaders = { A = \"SECRETk\\u0001\" }", "[defaults.check]\nheaders = { Host = \"SECRETl\" }",
		"[defaults.check]\nsend = [\"SECRETm\"]", "[defaults.check]\nargs = \"SECRETn\"", "[defaults.check]\nargs = [\"SECRETo\", 1]",
		"[defaults.check]\nsend = \"SECRETp\\u0000\"", "[defaults.check]\nargs = [\"SECRETq\\u0000\"]",
		"[defaults]\ncheck = \"https://SECRETr:SECRETs@host/\"", "[defaults]\ncheck = \"htps://u:SECRETt@host/\"",
		"[defaults]\ncheck = \"https://u:SECRET u@host:x/\"", "[defaults]\ncheck = \"exec:/bin/x SECRETv\"",
		"[upstream]\nservers = [\"https://u:SECRETw@dns.example/dns-query#192.0.2.1\"]",
		"[upstream]\nservers = [\"https://u:SECRETx@dns.ex ample/dns-query#192.0.2.1\"]",
	} {
		_, r := Parse("wrong.toml", []byte(line+"\n"))
		var out bytes.Buffer
		r.WriteText(&out)
		b, _ := r.MarshalJSON()
		out.Write(b)
		if l := leaks(out.String()); l != "" {
			t.Errorf("%s tells %q", line, l)
		}
		if r.Err() == nil {
			t.Errorf("%s: no error", line)
		}
	}
}
