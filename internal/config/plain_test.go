package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// together is what decodeParts makes of a text, put together again: the tree that the library alone would make, and
// the names in file order.
func together(text string) (tree map[string]any, names []string, plain int, problem *Problem) {
	tree, meta, order, problem := decodeParts(text)
	if problem != nil {
		return nil, nil, 0, problem
	}
	if order == nil {
		table, _ := tree["name"].(map[string]any)
		order = namesOf(meta.Keys(), table)
	}
	for i := range order {
		s := &order[i]
		names = append(names, s.name)
		if s.rest {
			continue
		}
		plain++
		if tree["name"] == nil {
			tree["name"] = map[string]any{}
		}
		table := map[string]any{}
		s.read(table)
		if list, ok := s.onlyList("candidates", []string{"x"}); ok {
			texts, i := parseStrings(table["candidates"])
			if i != nil || len(table) != 1 || !slices.Equal(list, texts) {
				panic(fmt.Sprintf("%q: only the list %q, but the table is %v", s.body, list, table))
			}
			listed++
		}
		tree["name"].(map[string]any)[s.name] = table
	}
	return tree, names, plain, nil
}

// listed counts the sections that had nothing but candidates.
var listed int

// checkPlain fails if the library alone makes something else of text, and returns how many sections it was spared.
func checkPlain(t interface{ Fatalf(string, ...any) }, text string) int {
	want, meta, problem := decode(text)
	got, names, plain, mine := together(text)
	if d := cmp.Diff(problem, mine); d != "" {
		t.Fatalf("%q: problem (-library +parts):\n%s", text, d)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateNaNs()); d != "" {
		t.Fatalf("%q (-library +parts):\n%s", text, d)
	}
	table, _ := want["name"].(map[string]any)
	var order []string
	for _, s := range namesOf(meta.Keys(), table) {
		order = append(order, s.name)
	}
	if !slices.Equal(order, names) {
		t.Fatalf("%q: order %q, library %q", text, names, order)
	}
	return plain
}

// TestPlainMatchesLibrary puts together lines that are plain, that nearly are, and that have to do with each other.
func TestPlainMatchesLibrary(t *testing.T) {
	lines := []string{
		`[name."a.example"]`, `[name."b.example"]`, `[name.c]`, `[name."*.d.example"] # more`, `  [name."e"]  `,
		`[name."a.example".check]`, `[name."b.example".candidate.x]`, `[name.'a.example']`, `[ name . c ]`, `["name".c]`,
		`[name]`, `[[name]]`, `[[name.c]]`, `[name.c] x`, `[name."a\u002eexample"]`, `[name."ü.example"]`, `[name."a.example"`,
		`[defaults]`, `[listen]`, `[route."a.example"]`, `[name."f".check.headers]`, `[name.""]`, `[namely.x]`, `[]`, `[name.]`,
		`ttl = "1s"`, `ttl="2s"`, `weight = 5`, `weight = 05`, `weight = -5`, `weight = 1_0`, `weight = 0`, `ratio = 0.5`,
		`weight = 99999999999999999999`, `watch = true`, `watch = false # yes`, `watch = truely`, `idle = inf`, `at = 1979-05-27`,
		`candidates = ["192.0.2.1", "2001:db8::1"]`, `candidates = []`, `candidates = [ "a" , "b", ]`, `candidates = ["a" "b"]`,
		`candidates = ["a", 5]`, `candidates = [["a"]]`, `candidates = ["a",, "b"]`, `candidates = [,]`, `candidates = ["a"`,
		"candidates = [\n", "  \"a\",", "]", `x = """`, `"""`, `x = '''`, `'''`, "x = \"\"\"a\nb\"\"\"", `x = ""`, `x = 'a'`, `x = "a\tb"`,
		`x = "a` + "\x01" + `"`, `# comment`, `# ünïcode`, "# bad \x01", "# bad \xff", "", "  \t", `"x" = 1`, `x.y = 1`, `check.url = "static:"`,
		`check = { url = "static:" }`, `check = "static:"`, `x = 1 y = 2`, `x =`, `= 1`, `x`, `name = {}`, `name.c.ttl = "1s"`, `name = 1`,
		`c = 1`, "x = 1\r", "\r", `candidate.x.weight = 1`,
	}
	spared := 0
	rapid.Check(t, func(rt *rapid.T) {
		picked := rapid.SliceOfN(rapid.SampledFrom(lines), 1, 12).Draw(rt, "lines")
		text := strings.Join(picked, rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(rt, "end"))
		if rapid.Bool().Draw(rt, "final") {
			text += "\n"
		}
		spared += checkPlain(rt, text)
	})
	if spared == 0 {
		t.Error("no section was plain: nothing was compared")
	}
	for _, dir := range []string{"bad", "good"} {
		for _, file := range inputs(t, dir, 5) {
			_, _, data := parseFile(t, file)
			checkPlain(t, stripBOM(string(data)))
		}
	}
}

// TestPlainSparesTheLibrary: of a large file the library sees only what is not plain.
func TestPlainSparesTheLibrary(t *testing.T) {
	text := string(manyNames(100)) + "[name.\"other\"]\n[name.\"other\".check]\nurl = \"static:\"\n"
	before := listed
	if n := checkPlain(t, text); n != 100 || listed != before+100 {
		t.Errorf("%d plain sections, %d with nothing but candidates", n, listed-before)
	}
	p, ok := partsOf(text)
	if want := "[defaults]\ncheck = \"static:\"\n[name.\"other\"]\n[name.\"other\".check]\nurl = \"static:\"\n"; !ok || p.rest != want {
		t.Errorf("the library gets %q", p.rest)
	}
}

// TestPlainOnlyCandidates: a name that has nothing but its list of candidates is the same, and has the same problems, as
// where the list is read by way of a table, and where the library reads it.
func TestPlainOnlyCandidates(t *testing.T) {
	lists := []string{
		`["192.0.2.1", "2001:db8::1"]`, `["192.0.2.1"]`, `["a.example", "192.0.2.1", "b.example"]`, `[]`, `["192.0.2.1", "192.0.2.1"]`,
		`["192.0.2.1", "192.0.2.1:80"]`, `["http://a.example/"]`, `["", "b"]`, `["a b", "::1%lo"]`, `["192.0.2.1", "::ffff:192.0.2.1"]`,
		`["localhost"]`, `["10.1"]`, `["1/2"]`, `["a..b", "-a", "a-", "` + strings.Repeat("x", 64) + `"]`, `["A.Example."]`,
	}
	for _, list := range lists {
		const head = "[defaults]\ncheck = \"static:\"\n[name.\"n.example\"]\n"
		parse := func(body string) (any, string) {
			c, r := Parse("x", []byte(head+body+"\n"))
			var b strings.Builder
			r.WriteText(&b)
			if c == nil {
				return nil, b.String()
			}
			return c.Names, b.String()
		}
		names, report := parse("candidates = " + list)
		for _, other := range []string{"candidates = " + list + "\nttl = \"1s\"", "\"candidates\" = " + list} {
			n, r := parse(other)
			if d := cmp.Diff(names, n, cmpopts.EquateComparable(netip.Addr{})); d != "" || r != report {
				t.Errorf("%s beside %s (-first +second):\n%s%s%s", list, other, d, report, r)
			}
		}
	}
}

// TestPlainDeep: nesting that would take the library minutes ends here as early.
func TestPlainDeep(t *testing.T) {
	text := "[name.a]\nx = " + strings.Repeat("[", 1<<20)
	if _, ok := partsOf(text); ok {
		t.Error("parted")
	}
	if _, _, _, problem := decodeParts(text); problem == nil || !strings.Contains(problem.Message, "nested") {
		t.Error(problem)
	}
}

// FuzzPlain: whatever the text, the same comes out as from the library alone.
func FuzzPlain(f *testing.F) {
	for _, dir := range []string{"bad", "good"} {
		files, _ := filepath.Glob(filepath.Join("testdata", dir, "*.toml"))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Add("[name.a]\nx=1\n[name.\"b\"]\ny=[\"1\"]\n[name.b.check]\n")
	f.Fuzz(func(t *testing.T, text string) { checkPlain(t, text) })
}
