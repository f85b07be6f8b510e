package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"ticketgate/bench"
	"ticketgate/bench/load"
	"ticketgate/tools/rig"
)

const benchYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:%[1]d" }
  gate: { address: "127.0.0.1:%[2]d", public_url: "ws://127.0.0.1:%[2]d", origins: [none], per_address: { exempt: [127.0.0.0/8] } }
  admin: { address: "127.0.0.1:0" }
secrets: { ticket_keys: "${file:ring}", key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
products:
  all: { streams: [echo, relay, clock], plans: [wide, narrow] }
plans:
  wide:
    limits:
      connections: { count: 100000, per: client }
      tickets: { rate: 100000/1minute, per: client }
  narrow:
    limits:
      connections: { count: 50, per: client }
      tickets: { rate: 100000/1minute, per: client }
streams:
  echo: { backend: builtin }
  relay: { backend: pool }
  clock: { feed: clock }
backends:
  builtin: { kind: echo }
  pool: { targets: ["ws://127.0.0.1:%[3]d/"] }
feeds:
  clock: { kind: clock, every: 20ms }
tickets: { outstanding: 1000 }
drain: { over: 0s, grace: 0s }
`

// benchRange is a gateway with a stream for every verb of bench, and a plain WebSocket server.
type benchRange struct {
	t       *testing.T
	dir     string
	bin     string
	api     string
	key     string
	narrow  string // a key whose plan allows 50 sockets
	backend string // where bench is to listen for the relay
	plain   string
}

func newBenchRange(t *testing.T) *benchRange {
	t.Helper()
	bin, err := rig.Binary(t.Context(), binDir)
	must(t, err)
	ring, err := rig.Ring()
	must(t, err)
	key, err := rig.NewKey(ring, "load", "load", "all", "wide", "delegate")
	must(t, err)
	narrow, err := rig.NewKey(ring, "narrow", "narrow", "all", "narrow")
	must(t, err)
	base := freePorts(t)
	n, err := rig.Start(t.Context(), &rig.StartOptions{
		Binary: bin, Dir: t.TempDir(), Config: fmt.Sprintf(benchYAML, base, base+1, base+2),
		Files: map[string]string{"ring": ring, "keys.yaml": key.Entry + narrow.Entry},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", n.Log())
		}
	})
	return &benchRange{
		t: t, dir: t.TempDir(), bin: bin, api: fmt.Sprintf("http://127.0.0.1:%d", base), key: key.Text, narrow: narrow.Text,
		backend: fmt.Sprintf("127.0.0.1:%d", base+2), plain: "ws://" + startBackend(t).address + "/",
	}
}

// Exit codes, as the manual has them.
const (
	codeOK, codeFailed, codeUsage = 0, 1, 2
	codeAway, codeMissed          = 4, 5
	codeInterrupted               = 130
)

// outcome is how a command line ended.
type outcome struct {
	code        int
	out, errors string
}

// readRun reads what --json wrote.
func readRun(file string) (_ *load.Result, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return load.ReadResult(f)
}

// bench runs a bench command as a process, because its workers are others of the same program.
func (b *benchRange) bench(ctx context.Context, args ...string) outcome {
	b.t.Helper()
	c := exec.CommandContext(ctx, b.bin, append([]string{"bench"}, args...)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGINT) }
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Env = append(os.Environ(), "TICKETGATE_KEY="+b.key, "TICKETGATE_URL="+b.api)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		b.t.Fatal(err)
	}
	return outcome{c.ProcessState.ExitCode(), out.String(), errs.String()}
}

// measured is bench, whose result is read.
func (b *benchRange) measured(args ...string) (*load.Result, outcome) {
	b.t.Helper()
	file := filepath.Join(b.dir, "run.json")
	got := b.bench(b.t.Context(), append(args, "--json", file)...)
	r, err := readRun(file)
	if err != nil {
		b.t.Fatalf("%v\nexit %d\n%s%s", err, got.code, got.out, got.errors)
	}
	return r, got
}

// TestBenchVerbs runs each verb against a gateway, with tickets, and against a server that knows none, but for tickets.
func TestBenchVerbs(t *testing.T) {
	b := newBenchRange(t)
	gateway := []string{"--clients", "40"}
	plain := []string{"--plain", b.plain}
	for _, c := range []struct {
		name    string
		args    []string
		sockets uint64
		least   uint64 // operations
	}{
		{"tickets", []string{"tickets", "--rate", "200", "--clients", "40"}, 0, 190},
		{"tickets closed", []string{"tickets", "--closed", "--lanes", "4", "--clients", "40"}, 0, 10},
		{"connect", append([]string{"connect", "-c", "60", "--procs", "2"}, gateway...), 60, 0},
		{"connect plain", append([]string{"connect", "-c", "60", "--ramp", "600"}, plain...), 60, 0},
		{"echo", append([]string{"echo", "-c", "40", "--rate", "500", "--procs", "2"}, gateway...), 40, 490},
		{"echo poisson", append([]string{"echo", "-c", "40", "--rate", "100..400", "--poisson"}, gateway...), 40, 100},
		{"echo plain", append([]string{"echo", "-c", "40", "--closed", "--in-flight", "3", "--size", "2KiB", "--source", "127.0.0.2-127.0.0.4"}, plain...), 40, 200},
		{"relay", append([]string{"relay", "--stream", "relay", "--backend", b.backend, "-c", "20", "--rate", "200"}, gateway...), 20, 190},
		{"relay plain", append([]string{"relay", "--backend", b.backend, "-c", "20", "--rate", "200"}, "--plain", b.plain+"relay?to="+b.backend), 20, 190},
		{"feed", append([]string{"feed", "-c", "20"}, gateway...), 20, 200},
		{"feed plain", []string{"feed", "-c", "20", "--plain", b.plain + "feed"}, 20, 200},
		{"churn", []string{"churn", "--rate", "100", "--clients", "1000"}, 0, 90},
		{"churn plain", append([]string{"churn", "--closed", "--lanes", "4"}, plain...), 0, 10},
		{"soak", append([]string{"soak", "-c", "20", "--rate", "100"}, gateway...), 20, 90},
		{"soak plain", append([]string{"soak", "-c", "20", "--rate", "100"}, plain...), 20, 90},
		{"hostile plain", append([]string{"hostile", "-c", "20", "--rate", "100", "--hostile", "3", "--attack", "unmasked"}, plain...), 20, 90},
		{"hostile", append([]string{"hostile", "-c", "20", "--rate", "100", "--hostile", "3"}, gateway...), 20, 90},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			r, got := b.measured(append(c.args, "-d", "1s", "--require", "errors<=0%")...)
			if c.args[0] == "soak" && len(r.Series) < 2 || c.args[0] == "hostile" && (r.Hostile == nil || r.Hostile.CutOff == 0) {
				t.Errorf("%d points, %+v", len(r.Series), r.Hostile)
			}
			if r.Opening.Opened != c.sockets && c.sockets > 0 || r.Run.Done < c.least || len(r.Run.Errors)+len(r.Opening.Errors) > 0 {
				t.Errorf("%d sockets, %d done, errors %v and %v", r.Opening.Opened, r.Run.Done, r.Opening.Errors, r.Run.Errors)
			}
			if c.least > 0 && (r.Run.Latency == nil || r.Run.Latency.Max <= 0) {
				t.Errorf("latency %+v", r.Run.Latency)
			}
			// Both servers are on this machine. CPU time is told in hundredths of a second: idle sockets may take none.
			if r.Server == nil || r.Server.Before <= 0 || c.least > 0 && r.Server.CPU <= 0 {
				t.Errorf("server %+v", r.Server)
			}
			if strings.Contains(strings.Join(r.Command, " ")+got.out+got.errors, b.key) {
				t.Error("the key is told")
			}
			// A machine that is busy with other tests may make a run INVALID, which says so: nothing else may go wrong.
			if want := map[string]int{load.Pass: codeOK, load.Invalid: codeFailed}; want[r.Verdict] != got.code || r.Verdict == load.Fail || r.Verdict == load.Done {
				t.Errorf("%s, exit %d: %v\n%s%s", r.Verdict, got.code, r.Why, got.out, got.errors)
			}
			if t.Failed() {
				t.Logf("%s%s", got.out, got.errors)
			}
		})
	}
}

// TestBenchVerdicts: what a run is worth decides the exit code.
func TestBenchVerdicts(t *testing.T) {
	b := newBenchRange(t)
	echo := []string{"echo", "-c", "4", "-d", "500ms"}
	connect := []string{"connect", "-c", "4", "-d", "200ms"} // nothing is due in it, so that a busy machine does not make it INVALID
	for _, c := range []struct {
		name      string
		args      []string
		code      int
		out, errs string // parts
	}{
		{"missed", append(connect, "--require", "opened<4"), codeMissed, "fail: opened<4: it is 4.00", "a requirement was missed"},
		{"starved", append(echo, "--rate", "50000000", "--require", "p50<1h"), codeFailed, "invalid: generator saturated: ", "INVALID"},
		// 10, or a few more: a redemption that another loop's overtakes on its way to the store takes two places for that moment.
		{"limit of the plan", []string{"connect", "-c", "60", "-d", "200ms", "--key", b.narrow}, codeFailed, " of 60 sockets could not be opened: 1", "the run has failed"},
		{"its reason", []string{"connect", "-c", "60", "-d", "200ms", "--key", b.narrow}, codeFailed, "http_429:connection-limit (429: a limit of the client's plan", "the run has failed"},
		{"nobody there", append(echo, "--rate", "20", "--plain", "ws://127.0.0.1:1/"), codeAway, "", "none of 4 sockets could be opened: 4 refused"},
		{"nobody for tickets", []string{"tickets", "--rate", "20", "-d", "200ms", "--target", "http://127.0.0.1:1", "--require", "errors<1%"}, codeAway, "fail: errors<1%", "nobody answered"},
		{"no such host", append(echo, "--rate", "20", "--plain", "ws://no-such-host.invalid/"), codeAway, "", "no-such-host.invalid"},
		{"no such directory", append(connect, "--json", "/no/such/directory/run.json"), codeFailed, "", "open /no/such/directory/run.json."},
		{"a directory", append(connect, "--html", "/"), codeFailed, "", "/: is a directory"},
		{"two on one", append(connect, "--json", "-", "--html", "-"), codeUsage, "", "--json - and --html -: want two places"},
		{"no stream for relay", []string{"relay", "--rate", "1", "--backend", "127.0.0.1:1"}, codeUsage, "", "relay: want --stream NAME"},
		{"units", append(echo, "--rate", "1", "--size", "16MiB"), codeUsage, "", "--size 16777216: want 0 to 15 MiB"},
		{"no units", append(echo, "--rate", "1", "--size", "16kb"), codeUsage, "", `"16kb" has the unit "kb"; want B, KiB`},
		{"no attack", []string{"hostile", "--rate", "1", "--attack="}, codeUsage, "", "--attack: want one at least"},
		{"another stream", append(echo, "--rate", "20", "--stream", "nothing"), codeFailed, "", "none of 4 sockets could be opened: 4 http_404:unknown-stream"},
		{"no such gateway", append(echo, "--rate", "20", "--target", "http://no-such-host.invalid"), codeAway, "", "no-such-host.invalid"},
		{"none in flight", append(echo, "--closed", "--in-flight", "0"), codeUsage, "", "--in-flight 0: want at least 1"},
		{"no rate", echo, codeUsage, "", "bench echo: want --rate N"},
		{"both", append(echo, "--rate", "1", "--closed"), codeUsage, "", "exclude each other"},
		{"no such figure", append(echo, "--rate", "1", "--require", "p98<1s"), codeUsage, "", `no figure "p98"`},
		{"a figure of another verb", append(echo, "--rate", "1", "--require", "slowdown<2"), codeUsage, "", `--require "slowdown<2": bench echo has no slowdown`},
		{"too many sockets", []string{"connect", "-c", "1000000"}, codeFailed, "", "local ports"},
		{"no terminal", connect, codeOK, "result  4 sockets held", "\nrun     "},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			got := b.bench(t.Context(), c.args...)
			if got.code != c.code || !strings.Contains(got.out, c.out) || !strings.Contains(got.errors, c.errs) {
				t.Errorf("exit %d, want %d\n%s%s", got.code, c.code, got.out, got.errors)
			}
			if strings.Contains(got.errors, "\r") {
				t.Error("a line that is drawn over, and nobody to see it")
			}
		})
	}
}

// TestBenchInterrupted: ^C ends all processes of a run, and what was measured until then is written.
func TestBenchInterrupted(t *testing.T) {
	b := newBenchRange(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	file := filepath.Join(b.dir, "run.json")
	must(t, os.WriteFile(file, []byte("of yesterday"), 0o600))
	c := exec.CommandContext(ctx, b.bin, "bench", "echo", "-c", "10", "--rate", "100", "-d", "10m", "--procs", "2", "--plain", b.plain+"?token=hunter2", "--json", file,
		"--require", "errors<=0%")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	c.Stdout = &out
	errs, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	awaitRun(t, errs)
	if text, err := os.ReadFile(file); err != nil || string(text) != "of yesterday" {
		t.Errorf("the file of an earlier run is touched before there is another: %s, %v", text, err)
	}
	workers := childrenOf(t, c.Process.Pid)
	must(t, c.Process.Signal(syscall.SIGINT))
	_, err = io.Copy(io.Discard, errs)
	must(t, err)
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != codeInterrupted {
		t.Errorf("exit %d", code)
	}
	if len(workers) != 2 {
		t.Errorf("%d workers", len(workers))
	}
	for _, pid := range workers {
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("worker %d: %v", pid, err)
		}
	}
	r, err := readRun(file)
	must(t, err)
	if r.Verdict != load.Interrupted || r.Opening.Opened != 10 || len(r.Run.Errors) != 0 || !strings.Contains(out.String(), "INTERRUPTED") {
		t.Errorf("%+v\n%s", r, out.String())
	}
	if text := strings.Join(r.Command, " ") + r.Settings.Plain; strings.Contains(text, "hunter2") || !strings.Contains(text, b.plain+"?***") {
		t.Errorf("%s", text)
	}
	files, err := os.ReadDir(b.dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v are left, %v", files, err)
	}
}

// awaitRun reads what bench says until its run has begun.
func awaitRun(t *testing.T, errs io.Reader) {
	t.Helper()
	seen := make([]byte, 0, 4<<10)
	for !bytes.Contains(seen, []byte("run ")) {
		part := make([]byte, 512)
		n, err := errs.Read(part)
		seen = append(seen, part[:n]...)
		if err != nil {
			t.Fatalf("%v: %s", err, seen)
		}
	}
}

// TestBenchStarved: a client that gets no processor says that its run is INVALID, even where all requirements are met.
func TestBenchStarved(t *testing.T) {
	b := newBenchRange(t)
	cores, err := bench.Cores()
	must(t, err)
	core := fmt.Sprint(cores[0])
	c := exec.CommandContext(t.Context(), "taskset", "-c", core, "nice", "-n", "19", b.bin, "bench", "echo", "-c", "20", "--rate", "4000", "-d", "3s", "--require", "errors<=100%", "--plain", b.plain)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	c.Stdout = &out
	errs, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	awaitRun(t, errs)
	thief := exec.CommandContext(t.Context(), "taskset", "-c", core, "sh", "-c", "while :; do :; done")
	thief.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, thief.Start())
	_, err = io.Copy(io.Discard, errs)
	must(t, err)
	_ = c.Wait()
	must(t, thief.Process.Kill())
	_ = thief.Wait()
	if code := c.ProcessState.ExitCode(); code != codeFailed || !strings.Contains(out.String(), "INVALID") || !strings.Contains(out.String(), "invalid: generator saturated: ") {
		t.Errorf("exit %d\n%s", code, out.String())
	}
}

// childrenOf lists the processes that any thread of pid has started.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	var all []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for one := range strings.FieldsSeq(string(text)) {
			var child int
			_, err := fmt.Sscan(one, &child)
			must(t, err)
			all = append(all, child)
		}
	}
	return all
}

// TestBenchFiles: what a run wrote can be read again, compared, and looked at.
func TestBenchFiles(t *testing.T) {
	b := newBenchRange(t)
	one, two, other := filepath.Join(b.dir, "1.json"), filepath.Join(b.dir, "2.json"), filepath.Join(b.dir, "3.json")
	page := filepath.Join(b.dir, "run.html")
	for _, args := range [][]string{
		{"connect", "-c", "8", "-d", "1s", "--json", one, "--html", page}, // see TestBenchVerdicts
		{"connect", "-c", "8", "-d", "1s", "--json", two},
		{"connect", "-c", "9", "-d", "1s", "--json", other},
	} {
		if got := b.bench(t.Context(), args...); got.code != codeOK {
			t.Fatalf("exit %d\n%s%s", got.code, got.out, got.errors)
		}
	}
	run := func(args ...string) outcome { return b.bench(t.Context(), args...) }
	if r, err := readRun(one); err != nil || !strings.HasSuffix(strings.Join(r.Command, " "), " --target "+b.api) {
		t.Errorf("the command does not say where it was pointed at: %v, %v", r, err)
	}
	if files, err := filepath.Glob(filepath.Join(b.dir, "*.part")); err != nil || len(files) > 0 {
		t.Errorf("%v are left, %v", files, err)
	}
	if got := run("report", one, "--html", "/dev/null"); got.code != codeOK {
		t.Errorf("report to a device: %+v", got)
	}
	if is, err := os.Stat("/dev/null"); err != nil || is.Mode().IsRegular() {
		t.Fatalf("/dev/null: %v, %v", is, err)
	}
	if got := run("report", one); got.code != codeOK || !strings.Contains(got.out, "result  8 sockets held") {
		t.Errorf("report: %+v", got)
	}
	if got := run("compare", one, two); got.code != codeOK || !strings.Contains(got.out, "p99") {
		t.Errorf("compare: %+v", got)
	}
	if got := run("compare", one, two, "-o", "json"); got.code != codeOK || !strings.HasPrefix(got.out, `[{"name":"ticket-p50"`) {
		t.Errorf("compare: %+v", got)
	}
	if got := run("compare", one, other); got.code != codeFailed || !strings.Contains(got.errors, "sockets: 8 and 9") {
		t.Errorf("compare with other settings: %+v", got)
	}
	if got := run("compare", one, other, "--force"); got.code != codeOK || !strings.Contains(got.errors, "sockets: 8 and 9") {
		t.Errorf("compare with other settings all the same: %+v", got)
	}
	elsewhere, err := readRun(one)
	must(t, err)
	elsewhere.Host.Name += "-2"
	var text bytes.Buffer
	_, err = elsewhere.WriteTo(&text)
	must(t, err)
	moved := filepath.Join(b.dir, "4.json")
	must(t, os.WriteFile(moved, text.Bytes(), 0o600))
	if got := run("compare", one, moved); got.code != codeFailed || !strings.Contains(got.errors, "host: ") {
		t.Errorf("compare with another machine: %+v", got)
	}
	if got := run("report", page); got.code != codeFailed || !strings.Contains(got.errors, "this is not the JSON of a bench run") {
		t.Errorf("report of a page: %+v", got)
	}
	lookAt(t, page, "ticketgate bench connect", 6)
	for _, c := range []struct {
		verb   string
		args   []string
		code   int
		curves int
	}{
		{"relay", []string{"-c", "8", "--rate", "100", "--stream", "relay", "--backend", b.backend}, codeOK, 12},
		{"hostile", []string{"-c", "8", "--rate", "100", "--hostile", "3"}, codeOK, 12},
		{"churn", []string{"--rate", "50", "--clients", "1000"}, codeOK, 6},
		{"echo", []string{"-c", "3", "--rate", "50", "--plain", "ws://127.0.0.1:1/"}, codeAway, 0}, // nobody there: a page of errors
	} {
		if got := b.bench(t.Context(), append([]string{c.verb, "-d", "2s", "--html", page}, c.args...)...); got.code != c.code && got.code != codeFailed {
			t.Fatalf("%s: exit %d\n%s%s", c.verb, got.code, got.out, got.errors)
		}
		lookAt(t, page, "ticketgate bench "+c.verb, c.curves)
	}
}

// lookAt opens a report in a browser: it has its pictures, fits a telephone, and nothing of it comes from elsewhere.
func lookAt(t *testing.T, page, name string, curves int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx, end := browser(ctx, t)
	defer end()
	var title string
	var pictures, wide int
	var asked []string
	must(t, chromedp.Run(ctx, chromedp.EmulateViewport(360, 800), chromedp.Navigate("file://"+page), chromedp.Title(&title),
		chromedp.Evaluate(`[...document.querySelectorAll("polyline")].filter(l => l.getTotalLength() > 50).length`, &pictures),
		chromedp.Evaluate(`performance.getEntriesByType("resource").map(r => r.name)`, &asked),
		chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide)))
	if title != name || pictures < curves || wide > 360 {
		t.Errorf("%q has %d curves and is %d pixels wide on a telephone", title, pictures, wide)
	}
	if len(asked) > 0 {
		t.Errorf("the page asks for %q", asked)
	}
}
