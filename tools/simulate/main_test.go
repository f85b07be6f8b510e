package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestSeeds plays some seeds. "make simulate" plays more.
func TestSeeds(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"-seeds", "60"}, &out); code != 0 || !strings.Contains(out.String(), "broken 0") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

// TestReplay: a seed has one story, whatever was played before.
func TestReplay(t *testing.T) {
	story := func(l *pool) []string {
		o := vary(7, 0)
		o.trace = true
		return play(7, o, l).lines
	}
	l := new(pool)
	first := story(l)
	for seed := range uint64(5) {
		play(seed+1, vary(seed+1, 0), l)
	}
	again := story(l)
	if len(first) < 100 || !slices.Equal(first, again) {
		t.Errorf("%d lines, then %d, or others", len(first), len(again))
	}
}

// TestGuards plays the seeds of docs/simulation.md: each breaks without its guard, and does not with it.
func TestGuards(t *testing.T) {
	doc, err := os.ReadFile("../../docs/simulation.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(string(doc), "\n")
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			i := slices.IndexFunc(rows, func(r string) bool { return strings.HasPrefix(r, "| "+g.name+" |") })
			if i < 0 {
				t.Fatal("docs/simulation.md has no row for it")
			}
			seed := strings.TrimSpace(strings.Split(rows[i], "|")[3])
			if seed == "-" {
				return
			}
			var out bytes.Buffer
			if run([]string{"-seed", seed, "-without", g.name}, &out) != 1 {
				t.Errorf("seed %s does not need it: %s", seed, out.String())
			}
			out.Reset()
			if run([]string{"-seed", seed}, &out) != 0 {
				t.Errorf("seed %s breaks with it: %s", seed, out.String())
			}
		})
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"-guards", 0, "entry-once"},
		{"-without nothing", 2, "there are number, renewal"},
		{"-workers 0", 2, "at least 1"},
		{"more", 2, "more"},
		{"-seed 3 -v", 0, "ALL HEALS"},
	} {
		var out bytes.Buffer
		if code := run(strings.Fields(c.args), &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("simulate %s: exit code %d, %.200s", c.args, code, out.String())
		}
	}
}
