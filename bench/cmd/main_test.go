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

	"golang.org/x/sys/unix"

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
// nor a file. Those that a bench of its own starts are among them.
func apart(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // with whose thread the children die
	t.Cleanup(runtime.UnlockOSThread)
	adopt(t)
	t.Chdir(filepath.Join("..", ".."))
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		for _, c := range children(t) {
			t.Errorf("%s is still there", c)
			c.bury(t)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) > 0 {
			t.Errorf("%v was left behind, %v", left, err)
		}
	})
}

// adopt makes this process the parent of those descendants whose own has ended, as else that with the number 1, for one test.
func adopt(t *testing.T) {
	t.Helper()
	set := func(on int) {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, uintptr(on), 0, 0, 0); err != nil {
			t.Errorf("prctl: %v", err)
		}
	}
	set(1)
	t.Cleanup(func() { set(0) })
}

// A child is a process that this one has to wait for.
type child struct {
	name string
	pid  int
}

func (c child) String() string { return fmt.Sprintf("%s %d", c.name, c.pid) }

// bury kills c, which nobody waits for, and waits for it.
func (c child) bury(t *testing.T) {
	t.Helper()
	err := unix.Kill(c.pid, unix.SIGKILL)
	if err == nil {
		_, err = unix.Wait4(c.pid, nil, 0, nil)
	}
	if err != nil {
		t.Errorf("%s: %v", c, err)
	}
}

// children are the processes that this one has started, or adopted, and that are still there, or were not waited for.
func children(t *testing.T) (all []child) {
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
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child{string(name), pid})
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
	if got := children(t); len(got) != 1 || got[0] != (child{"sleep", c.PID}) {
		t.Errorf("%q, want sleep %d", got, c.PID)
	}
	if err := c.Stop(); err != nil || len(children(t)) > 0 {
		t.Errorf("%q after its end, %v", children(t), err)
	}
}

// A process is found, too, whose parent has gone: the servers of a bench that is a process of its own.
func TestOrphans(t *testing.T) {
	adopt(t)
	out, err := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if got := children(t); len(got) != 1 || got[0].pid != pid {
		t.Errorf("%q, want sleep %d", got, pid)
	}
	if (child{"sleep", pid}).bury(t); len(children(t)) > 0 {
		t.Errorf("%q after its end", children(t))
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
