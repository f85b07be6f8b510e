package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets the tests' own roles run: they are this program again.
func TestMain(m *testing.M) {
	if code, done := play(os.Args[1:]); done {
		os.Exit(code)
	}
	dir, err := os.MkdirTemp("", "exam-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	// Most of an exam's time is waiting for deadlines to pass.
	if err := flag.Set("test.parallel", "2"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// TestShort runs every test of the exam in a short form. Figures that need a quiet machine are those of the long form.
func TestShort(t *testing.T) {
	for n := range tests {
		if n == 1 { // go test ./tools/conform plays its cases against the same gate, without a process between
			continue
		}
		if n == 18 { // each part by itself: they wait for leases to end, most of the time
			for _, part := range replayParts {
				short(t, strconv.Itoa(n)+"-"+part, "-n", "18", "-part", part)
			}
			continue
		}
		short(t, strconv.Itoa(n), "-n", strconv.Itoa(n))
	}
}

// short runs a test, or a part of one, as a test by that name.
func short(t *testing.T, name string, args ...string) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
		defer cancel()
		var out bytes.Buffer
		if code := Main(ctx, append(args, "-seed", "1", "-size", "0.02", "-duration", "2s"), &out, &out); code != 0 {
			t.Errorf("exit code %d:\n%s", code, out.String())
		}
	})
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-n", "1000"}, "there are ["},
		{[]string{"-n", "x"}, "there are ["},
		{[]string{"-n", "18", "-part", "two"}, "want -n 18 and one of [one"},
		{[]string{"-n", "18,20", "-part", "one"}, "want -n 18"},
		{[]string{"-size", "0"}, "want more than 0"},
		{[]string{"-nonsense"}, "not defined"},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), c.args, &out, &errs); code != 2 || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("%v: exit code %d, stderr %q, stdout %q; want 2 and %q", c.args, code, errs.String(), out.String(), c.want)
		}
	}
}
