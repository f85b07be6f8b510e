package layers_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ticketgate/tools/layers"
)

const root = "../.."

// TestImports looks at the tree. Run it with -count=1: a cached pass has looked at nothing.
func TestImports(t *testing.T) {
	graph, err := layers.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(graph["engine"]) == 0 || len(graph["cmd/ticketgate"]) == 0 {
		t.Fatalf("the tree is not there: %d packages", len(graph))
	}
	for _, wrong := range layers.Check(graph) {
		t.Error(wrong)
	}
}

// TestCheck: each rule is seen to refuse.
func TestCheck(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"engine", "ticketgate/limiter", ""},
		{"engine", "ticketgate/engine/frame", ""},
		{"engine", "ticketgate/handshake", "room 2 imports only rooms with a lower number, and this is 3"},
		{"engine", "net/http", "rooms 0 to 2 never wait"},
		{"engine", "log/slog", "rooms 0 to 2 never wait"},
		{"engine", "os", "rooms 0 to 2 never wait"},
		{"engine/frame", "net", "rooms 0 to 2 never wait"},
		{"engine/frame", "ticketgate/engine/upgrade", "room 1 imports only rooms with a lower number, and this is 1"},
		{"engine/frame/frametest", "ticketgate/engine/frame", ""},
		{"engine/reactor", "net", ""},
		{"engine/reactor", "github.com/panjf2000/gnet/v2/pkg/netpoll", ""},
		{"engine", "github.com/panjf2000/gnet/v2/pkg/netpoll", "only engine/reactor may"},
		{"limiter", "ticketgate/ticket", ""},
		{"ticket", "ticketgate/limiter", "room 1 imports only"},
		{"store/redis", "ticketgate/store/memory", ""},
		{"store/redis", "github.com/redis/rueidis", ""},
		{"store/redis", "ticketgate/store/storetest", "it is for tests"},
		{"store/redis", "ticketgate/engine", "a store has no sockets"},
		{"handshake", "ticketgate/store/redis", "handshake asks ticket.Store"},
		{"handshake", "ticketgate/feed", "serve.go joins them"},
		{"handshake", "github.com/redis/rueidis", "only store/redis may"},
		{"feed/relay", "ticketgate/feed", ""},
		{"feed/relay", "ticketgate/handshake/auth", "never meet"},
		{"internal/config", "ticketgate/handshake/auth", ""},
		{"internal/admin", "ticketgate/internal/config", "only cmd/ticketgate may"},
		{"tools/exam", "github.com/redis/rueidis", ""},
		{"cmd/ticketgate", "ticketgate/internal/config", ""},
		{"cmd/ticketgate", "ticketgate/tools/rig", "it is for tests"},
		{"cmd/ticketgate", "ticketgate/cellar", "it has no room"},
		{"cellar", "fmt", "cellar has no room"},
	} {
		got := layers.Check(map[string][]string{c.from: {c.to}})
		if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
			t.Errorf("%s imports %s: got %q, want %q", c.from, c.to, got, c.want)
		}
	}
}

// TestRead: tests, hidden folders, testdata and other modules do not count.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	for path, text := range map[string]string{
		"a/a.go":             "package a\nimport (\n\t\"os\"\n\tx \"net\"\n)\n",
		"a/a_test.go":        "package a\nimport \"log\"\n",
		"a/.b/b.go":          "package b\n",
		"a/testdata/b.go":    "package b\n",
		"other/go.mod":       "module other\n",
		"other/inside/in.go": "package inside\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	graph, err := layers.Read(dir)
	if err != nil || len(graph) != 1 || !slices.Equal(graph["a"], []string{"os", "net"}) {
		t.Errorf("got %v, %v", graph, err)
	}
}

// dependenciesMax is how many direct dependencies ticketgate may have.
const dependenciesMax = 25

var row = regexp.MustCompile("^\\| `([^` ]+)` \\| [^|]+\\S[^|]+\\|")

// TestDependencies: docs/dependencies.md gives a reason for every module that our code imports, tests included, and for no
// other; in sections of their own for the modules that are beside ours.
func TestDependencies(t *testing.T) {
	reasons := sections(t)
	direct := required(t, root)
	compare(t, direct, reasons[""])
	if len(direct) > dependenciesMax || len(direct) == 0 {
		t.Errorf("%d direct dependencies, at most %d", len(direct), dependenciesMax)
	}
	compare(t, required(t, root+"/tools/peers"), reasons["tools/peers"])
	compare(t, packages(t, root+"/tools/peers/npmws"), reasons["tools/peers/npmws"])
}

func compare(t *testing.T, direct map[string]bool, reasons []string) {
	t.Helper()
	for module := range direct {
		if !slices.Contains(reasons, module) {
			t.Errorf("docs/dependencies.md has no reason for %s", module)
		}
	}
	for _, module := range reasons {
		if !direct[module] {
			t.Errorf("docs/dependencies.md gives a reason for %s, which nothing imports", module)
		}
	}
}

// sections returns what docs/dependencies.md gives reasons for, by heading.
func sections(t *testing.T) map[string][]string {
	t.Helper()
	found, heading := make(map[string][]string), ""
	for _, line := range lines(t, root+"/docs/dependencies.md", regexp.MustCompile("(.*)")) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			heading = name
		} else if cells := row.FindStringSubmatch(line); cells != nil {
			found[heading] = append(found[heading], cells[1])
		}
	}
	return found
}

// required returns the modules that the code in dir imports.
func required(t *testing.T, dir string) map[string]bool {
	t.Helper()
	modules := lines(t, dir+"/go.mod", regexp.MustCompile(`^(?:require )?\s*(\S+\.\S+/\S+|\S+\.\S+) v\S+`))
	direct := make(map[string]bool)
	for path := range imported(t, dir) {
		if module := longest(modules, path); module != "" {
			direct[module] = true
		} else {
			t.Errorf("no module of go.mod has %s", path)
		}
	}
	return direct
}

// packages returns the npm packages that dir asks for.
func packages(t *testing.T, dir string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(dir + "/package.json")
	var asked struct{ Dependencies map[string]string }
	if err == nil {
		err = json.Unmarshal(text, &asked)
	}
	if err != nil {
		t.Fatal(err)
	}
	direct := make(map[string]bool)
	for name := range asked.Dependencies {
		direct[name] = true
	}
	return direct
}

// lines returns the first group of each line of a file that matches.
func lines(t *testing.T, file string, form *regexp.Regexp) (found []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if parts := form.FindStringSubmatch(in.Text()); parts != nil {
			found = append(found, parts[1])
		}
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// imported is every path with a dot in its first part that a file of the module in dir imports, tests included.
func imported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	graph, err := layers.ReadAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	paths := make(map[string]bool)
	for _, imports := range graph {
		for _, path := range imports {
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") {
				paths[path] = true
			}
		}
	}
	return paths
}

func longest(modules []string, path string) (best string) {
	for _, m := range modules {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}
