package main

import (
	"bytes"
	"context"
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
	os.Exit(m.Run())
}

// TestShort runs every test of the exam in a short form. Figures that need a quiet machine are those of the long form.
func TestShort(t *testing.T) {
	for n := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		var out bytes.Buffer
		code := Main(ctx, []string{"-n", strconv.Itoa(n), "-seed", "1", "-size", "0.02", "-duration", "2s"}, &out, &out)
		cancel()
		if code != 0 {
			t.Errorf("exit code %d:\n%s", code, out.String())
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-n", "1000"}, "there are ["},
		{[]string{"-n", "x"}, "there are ["},
		{[]string{"-size", "0"}, "want more than 0"},
		{[]string{"-nonsense"}, "not defined"},
	} {
		var out, errs bytes.Buffer
		if code := Main(t.Context(), c.args, &out, &errs); code != 2 || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("%v: exit code %d, stderr %q, stdout %q; want 2 and %q", c.args, code, errs.String(), out.String(), c.want)
		}
	}
}
