package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// result is how a command line ended.
type result struct {
	code        int
	out, errors string
}

// ticketgate runs a command line in this process.
func ticketgate(t *testing.T, stdin string, environ []string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), &env{args: args, environ: environ, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs})
	return result{code, out.String(), errs.String()}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ring is a hash key ring that protects nothing.
const ring = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir, "good.yaml", string(sample))
	bad := write(t, dir, "bad.yaml", "version: 1\nlisten: { gate: { public_url: ws://a } }\nstor: {}\n")
	hash := write(t, dir, "key.hash", ring)
	create := []string{"key", "create", "--client", "c", "--plan", "free", "--product", "demo", "--hash-key"}
	for _, c := range []struct {
		name     string
		args     []string
		stdin    string
		code     int
		out, err string // exact with "=" in front, else a part; "" is nothing at all
	}{
		{"no verb", nil, "", exitOK, "Available Commands:", ""},
		{"help", []string{"--help"}, "", exitOK, "Available Commands:", ""},
		{"group", []string{"config"}, "", exitOK, "check       Check a configuration", "="},
		{"unknown verb", []string{"srve"}, "", exitUsage, "", "unknown command \"srve\" for \"ticketgate\""},
		{"unknown verb of a group", []string{"key", "mke"}, "", exitUsage, "", "=ticketgate: unknown command \"mke\" for \"ticketgate key\"\nsee: ticketgate key --help\n"},
		{"unknown flag", []string{"version", "--x"}, "", exitUsage, "", "=ticketgate: unknown flag: --x\nsee: ticketgate version --help\n"},
		{"too many arguments", []string{"config", "check", "a", "b"}, "", exitUsage, "", "see: ticketgate config check --help"},
		{"missing flags", []string{"key", "create"}, "", exitUsage, "", `required flag(s) "client", "plan" not set`},
		{"no ring flag", []string{"key", "hash"}, "", exitUsage, "", "at least one of the flags in the group [config hash-key] is required"},
		{"both ring flags", []string{"key", "hash", "--config", good, "--hash-key", hash}, "", exitUsage, "", "none of the others can be"},
		{"config ok", []string{"config", "check", good}, "", exitOK, "=" + good + ": ok: 2 streams, 1 plan, no keys, store memory\n", ""},
		{"config bad", []string{"config", "check", bad}, "", exitConfig, "", "=" + bad + ":3:1: unknown key \"stor\" at the top level; did you mean \"store\"?\n1 problem\n"},
		{"config missing", []string{"config", "check", dir + "/none"}, "", exitConfig, "", "=" + dir + "/none: cannot be read: no such file or directory\n1 problem\n"},
		{"completion", []string{"completion", "bash"}, "", exitOK, "bash completion", ""},
		{"ring missing", append(create, dir+"/none"), "", exitFailed, "", "read hash keys: open "},
		{"ring broken", append(create, good), "", exitFailed, "", good + ": hash key ring, line "},
		{"config without ring", []string{"key", "hash", "--config", good}, "", exitFailed, "", "has no secrets.key_hash"},
		{"key's config bad", []string{"key", "hash", "--config", bad}, "", exitConfig, "", "1 problem"},
		{"bad id", append(create, hash, "--id", "A"), "", exitFailed, "", `key id "A"`},
		{"bad scope", append(create, hash, "--scope", "root"), "", exitUsage, "", `--scopes: "root"`},
		{"bad address", append(create, hash, "--ip", "10.0.0.1"), "", exitUsage, "", `--ip "10.0.0.1": want an address range`},
		{"bad expiry", append(create, hash, "--expires", "soon"), "", exitUsage, "", `--expires "soon": want a time`},
		{"bad output", append(create, hash, "-o", "xml"), "", exitUsage, "", `--output "xml": want text or json`},
		{"not a key", []string{"key", "hash", "--hash-key", hash}, "hunter2\n", exitFailed, "", "stdin: not an API key"},
		{"no key", []string{"key", "hash", "--hash-key", hash}, "", exitFailed, "", "stdin: not an API key"},
		{"no product", []string{"key", "create", "--client", "c", "--plan", "p", "--hash-key", hash}, "", exitUsage, "", "--product: missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ticketgate(t, c.stdin, nil, c.args...)
			if got.code != c.code {
				t.Errorf("exit %d, want %d", got.code, c.code)
			}
			alike(t, "stdout", got.out, c.out)
			alike(t, "stderr", got.errors, c.err)
			if strings.Contains(got.errors, "hunter2") {
				t.Error("the input is repeated")
			}
		})
	}
}

func alike(t *testing.T, what, got, want string) {
	t.Helper()
	exact, isExact := strings.CutPrefix(want, "=")
	if (isExact || want == "") && got != exact || !strings.Contains(got, exact) {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

// TestOwnErrors: what commands return decides the exit code, however it is wrapped.
func TestOwnErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, exitOK, ""},
		{errors.New("x"), exitFailed, "ticketgate: x\n"},
		{usagef("bad %s", "x"), exitUsage, "ticketgate: bad x\n"},
		{unreachablef("gone %s", "x"), exitUnreachable, "ticketgate: gone x\n"},
		{errors.Join(errors.New("x"), unreachablef("gone")), exitUnreachable, "ticketgate: x\ngone\n"},
		{errInterrupted, exitInterrupted, ""},
	} {
		var w bytes.Buffer
		if got := report(&w, c.err); got != c.code || w.String() != c.text {
			t.Errorf("%v: exit %d, prints %q; want %d, %q", c.err, got, w.String(), c.code, c.text)
		}
	}
}

func TestInit(t *testing.T) {
	got := ticketgate(t, "", nil, "init")
	if got.code != exitOK || got.errors != "" {
		t.Fatalf("init: %+v", got)
	}
	file := write(t, t.TempDir(), "ticketgate.yaml", got.out)
	if check := ticketgate(t, "", nil, "config", "check", file); check.code != exitOK {
		t.Errorf("what init writes is refused: %+v", check)
	}
}

// TestInitWithKey does what the sample's comments say: its lines without # make a configuration with a key.
func TestInitWithKey(t *testing.T) {
	dir := t.TempDir()
	hash := write(t, dir, "key.hash", ring)
	made := ticketgate(t, "", nil, "key", "create", "--client", "my-app", "--product", "demo", "--plan", "free", "--hash-key", hash)
	if made.code != exitOK {
		t.Fatalf("key create: %+v", made)
	}
	write(t, dir, "keys.yaml", made.errors)
	text := strings.NewReplacer("# secrets:", "secrets:", "# auth:", "auth:").Replace(string(sample))
	file := write(t, dir, "ticketgate.yaml", text)
	check := ticketgate(t, "", nil, "config", "check", file)
	if check.code != exitOK || !strings.Contains(check.out, "1 key,") {
		t.Errorf("with a key: %+v", check)
	}
	if again := ticketgate(t, "", nil, "key", "create", "--client", "c", "--plan", "gold", "--config", file); again.code != exitFailed {
		t.Errorf("a key for a plan that is not there: %+v", again)
	}
	other := ticketgate(t, "", nil, "key", "create", "--client", "c", "--plan", "free", "--config", file)
	if other.code != exitOK || !strings.Contains(other.errors, "product: demo") {
		t.Errorf("the plan's only product is not filled in: %+v", other)
	}
	wrong := ticketgate(t, "", nil, "key", "create", "--client", "c", "--plan", "free", "--product", "x", "--config", file)
	if wrong.code != exitFailed || !strings.Contains(wrong.errors, `no product "x" with the plan "free"; there is demo`) {
		t.Errorf("a product that is not there: %+v", wrong)
	}
}

// TestClusterPage does what docs/cluster.md says, up to the start of the nodes.
func TestClusterPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/cluster.md has no YAML")
	}
	dir := t.TempDir()
	write(t, dir, "ticket.keys", strings.Replace(ring, "k1", "t2", 1)+strings.Replace(ring, "k1", "t1", 1))
	hash := write(t, dir, "key.hash", ring)
	made := ticketgate(t, "", nil, "key", "create", "--client", "my-app", "--product", "demo", "--plan", "free", "--hash-key", hash)
	write(t, dir, "keys.yaml", made.errors)
	file := write(t, dir, "ticketgate.yaml", text)
	got := ticketgate(t, "", []string{"BASE=71", "REDIS_URL=redis://127.0.0.1:7379"}, "config", "check", file)
	if want := file + ": ok: 1 stream, 1 plan, 1 key, store redis\n"; got.out != want || got.code != exitOK {
		t.Errorf("the page's configuration: %+v", got)
	}
}

func TestEnvironment(t *testing.T) {
	file := write(t, t.TempDir(), "ticketgate.yaml", string(sample))
	got := ticketgate(t, "", []string{"TICKETGATE_LOG__LEVEL=loud"}, "config", "check", file)
	want := "environment variable TICKETGATE_LOG__LEVEL: log.level: \"loud\" is not known; want debug, info, warn, error\n1 problem\n"
	if got.code != exitConfig || got.errors != want {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestGetenv(t *testing.T) {
	e := &env{environ: []string{"A=1", "AB=2", "A=3", "B="}}
	for name, want := range map[string]string{"A": "3", "AB": "2", "B": "", "C": ""} {
		if got := e.getenv(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	got := ticketgate(t, "", nil, "version")
	form := regexp.MustCompile(`\Aticketgate \d+\.\d+\.\d+\ngo         go1\.\S+ linux/\S+\ncommit     \S+( \(modified\))?\n\z`)
	if got.code != exitOK || !form.MatchString(got.out) {
		t.Errorf("version: %+v", got)
	}
	built := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}}}
	for want, info := range map[string]*debug.BuildInfo{"abc (modified)": built, "unknown": {}} {
		if got := commit(info, true); got != want {
			t.Errorf("commit is %q, want %q", got, want)
		}
	}
	if got := commit(nil, false); got != "unknown" {
		t.Errorf("commit of no build is %q", got)
	}
}

// TestEveryCommand: all say what they do, and a group has no work of its own.
func TestEveryCommand(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	for _, command := range commands {
		walk(command(&env{}))
	}
}

// TestInterrupted: a command that waits for stdin ends with its context.
func TestInterrupted(t *testing.T) {
	hash := write(t, t.TempDir(), "key.hash", ring)
	silent, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer tell.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	code := run(ctx, &env{args: []string{"key", "hash", "--hash-key", hash}, stdin: silent, stdout: &errs, stderr: &errs})
	if code != exitInterrupted || errs.Len() != 0 {
		t.Errorf("exit %d, prints %q", code, errs.String())
	}
}
