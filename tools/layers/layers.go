// Package layers says who may import whom. Its test is part of "make check".
//
// Only our own import lines count, not what a library reaches behind them: gnet's logger reaches net/http. Tests may import
// what they like.
package layers

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const module = "ticketgate/"

// rooms gives each package its number, the longest prefix first. A room imports only rooms with a lower number, and its own
// parts. ARCHITECTURE.md draws them.
var rooms = map[string]int{
	"internal/mono": 0, "internal/faults": 0, "internal/stat": 0, "internal/unit": 0, "internal/audit": 0, "internal/invariant": 0, "internal/offheap": 0, "internal/porttest": 0, "internal/uring": 0,
	"revoke": 2,
	"ticket": 1, "limiter": 1, "guard": 1, "internal/pressure": 1,
	"engine/upgrade": 1, "engine/frame": 1, "engine/deflate": 1, "engine/reactor": 1, "engine/proxy": 1,
	"engine": 2,
	"store":  3, "handshake": 3, "feed": 3, "bench": 3,
	"internal/certs":  3,
	"internal/config": 4,
	"internal/admin":  5,
	"cmd":             6, "client": 6, "tools": 6,
	"bench/cmd": 6, // measures from inside too, as bench itself does not
}

// meant are imports that a rule would forbid, each with its reason.
var meant = map[edge]string{
	{"handshake", "engine/upgrade"}: "what a host may look like is said once, for both doors",
	{"limiter", "ticket"}:           "Count counts by ticket.Subject, which would be a second name for the same thing",
}

// edge is one package importing another, both without the module's name if they are ours.
type edge struct{ from, to string }

// waiting is what rooms 0 to 2 do not import: nothing there dials, opens files or writes log lines.
var waiting = []string{"database/sql", "log", "log/slog", "net", "net/http", "os", "os/exec"}

// start lists what rooms 0 to 2 need once, before the first byte arrives.
var start = map[edge]string{
	{"engine", "net"}:         "the address that a listener got",
	{"engine/reactor", "net"}: "opens listeners",
	{"engine/secure", "net"}:  "crypto/tls wants a net.Conn, and gets one in memory",
	{"engine/reactor", "os"}:  "cleans up after unix sockets",

	{"engine/upgrade/upgradetest", "net/http"}: "the reader that our parser is compared with, over bytes in memory",
	{"internal/offheap", "os"}:                 "the size of a page",
	{"internal/porttest", "net"}:               "finds free ports, for tests",
	{"internal/uring", "os"}:                   "names the system call in an error",
}

// sole says which packages alone import something, helpers of tests aside: libraries that are easily replaced as long as one
// room knows them, and what only main joins.
var sole = map[string][]string{
	"github.com/panjf2000/gnet/v2":        {"engine/reactor"},
	"github.com/redis/rueidis":            {"store/redis"},
	"github.com/prometheus/client_golang": {"internal/admin"},
	"github.com/goccy/go-yaml":            {"internal/config", "cmd/ticketgate"},
	"github.com/spf13/cobra":              {"cmd/ticketgate"},
	"ticketgate/internal/config":          {"cmd/ticketgate"},
	"ticketgate/internal/admin":           {"cmd/ticketgate"},
}

// never says what must not be imported by whom, and why.
var never = map[string]map[string]string{
	"handshake": {
		"ticketgate/feed": "handshake, feed and store never meet: serve.go joins them", "ticketgate/store": "handshake asks ticket.Store",
		"ticketgate/engine": "the front end works without a gate beside it", "net/http": "fasthttp reads here, and strict checks in front of it",
	},
	"feed":  {"ticketgate/handshake": "handshake, feed and store never meet", "ticketgate/store": "a feed has no tickets"},
	"store": {"ticketgate/handshake": "handshake, feed and store never meet", "ticketgate/feed": "a store has no messages", "ticketgate/engine": "a store has no sockets"},
}

// Read returns the imports of every package under root, by path from root, without tests and without modules of their own.
func Read(root string) (map[string][]string, error) {
	return read(root, func(file string) bool { return !strings.HasSuffix(file, "_test.go") })
}

// ReadAll is Read with tests.
func ReadAll(root string) (map[string][]string, error) {
	return read(root, func(string) bool { return true })
}

func read(root string, counts func(file string) bool) (map[string][]string, error) {
	graph := make(map[string][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(root, path, d.Name())
		}
		if !strings.HasSuffix(path, ".go") || !counts(path) {
			return nil
		}
		imports, err := importsOf(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		graph[dir] = append(graph[dir], imports...)
		return nil
	})
	return graph, err
}

// skip leaves out what the go command leaves out.
func skip(root, path, name string) error {
	if path == root {
		return nil
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	if err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return filepath.SkipDir
	}
	return nil
}

func importsOf(file string) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, i := range parsed.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", file, i.Path.Value, err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Check returns a line for each import that breaks a rule.
func Check(graph map[string][]string) []string {
	var wrong []string
	for from, imports := range graph {
		if _, ok := number(from); !ok {
			wrong = append(wrong, from+" has no room: give it a number in tools/layers")
			continue
		}
		for _, to := range imports {
			if why := broken(from, to); why != "" {
				wrong = append(wrong, fmt.Sprintf("%s imports %s: %s", from, to, why))
			}
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong)
}

// broken says which rule the import breaks, "" if none.
func broken(from, to string) string {
	mine, _ := number(from)
	own, ours := strings.CutPrefix(to, module)
	if _, ok := start[edge{from, to}]; mine <= 2 && !ok && slices.Contains(waiting, to) {
		return "rooms 0 to 2 never wait, dial, open files or log"
	}
	for what, who := range sole {
		if under(to, what) && !isTestHelper(from) && !slices.ContainsFunc(who, func(p string) bool { return under(from, p) }) {
			return "only " + strings.Join(who, " and ") + " may"
		}
	}
	_, isMeant := meant[edge{from, own}]
	for room, bans := range never {
		for what, why := range bans {
			if !isMeant && under(from, room) && under(to, what) {
				return why
			}
		}
	}
	if !ours {
		return ""
	}
	if isTestHelper(own) && !isTestHelper(from) {
		return "it is for tests"
	}
	theirs, ok := number(own)
	switch {
	case !ok:
		return "it has no room"
	case theirs > mine || theirs == mine && !isMeant && roomOf(from) != roomOf(own):
		return fmt.Sprintf("room %d imports only rooms with a lower number, and this is %d", mine, theirs)
	}
	return ""
}

// under reports whether path is prefix or lies in it.
func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

// isTestHelper reports whether a package is there for tests alone: storetest, rig, bench's and exam's own programs.
func isTestHelper(path string) bool {
	return strings.HasSuffix(path, "test") || under(path, "tools") || under(path, "bench/cmd")
}

// roomOf is the entry of rooms that a package belongs to.
func roomOf(path string) string {
	for {
		if _, ok := rooms[path]; ok {
			return path
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return ""
		}
		path = path[:cut]
	}
}

func number(path string) (int, bool) {
	n, ok := rooms[roomOf(path)]
	return n, ok
}
