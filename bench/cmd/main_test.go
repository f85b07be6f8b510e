package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"ticketgate/bench"
)

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
