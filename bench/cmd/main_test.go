package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/bench"
)

// The test program is also the bench itself, with BENCH_CMD: what pins its process to a core does not pin the tests.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_CMD") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// apart lets a test start servers from the repository's root: they die with it, whatever becomes of it, and leave neither a process
// nor a file.
func apart(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // with whose thread the children die
	t.Cleanup(runtime.UnlockOSThread)
	t.Chdir(filepath.Join("..", ".."))
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		for _, name := range children(t) {
			t.Errorf("%s is still there", name)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("%v was left behind, %v", left, err)
		}
	})
}

// children are the processes that this one has started and that are still there, or were not waited for.
func children(t *testing.T) (all []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil { // it has ended since
			continue
		}
		_, rest, _ := bytes.Cut(b, []byte(" ("))
		name, rest, _ := bytes.Cut(rest, []byte(") "))
		if f := strings.Fields(string(rest)); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) { // proc(5): state, parent
			all = append(all, string(name)+" "+filepath.Base(filepath.Dir(file)))
		}
	}
	return all
}

// Who looks for children that were left behind finds them.
func TestChildren(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := bench.Start(bench.AnyCore, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := children(t), fmt.Sprintf("sleep %d", c.PID); len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := c.Stop(); err != nil || len(children(t)) > 0 {
		t.Errorf("%q after its end, %v", children(t), err)
	}
}

// benchCmd runs the bench as a process of its own, and returns what it prints.
func benchCmd(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "/proc/self/exe", args...)
	c.Env = append(os.Environ(), "BENCH_CMD=1", "GORACE=atexit_sleep_ms=0")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) } // it stops its children
	c.WaitDelay = time.Minute
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said.Bytes())
	}
	return string(out), err
}
