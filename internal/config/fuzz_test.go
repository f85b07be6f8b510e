package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"ticketgate/internal/config"
)

// FuzzLoad holds Load to its word: a configuration or problems that point into the file, never both, neither or a panic.
func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"good", "problems"} {
		files, err := filepath.Glob("testdata/" + dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds in %s: %v", dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	env := []string{"A=1", "TICKETGATE_STREAMS__CHAT__BACKEND=x", "TICKETGATE_LISTEN__GATE__ORIGINS=[none]"}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.LoadText("f.yaml", text, env)
		var problems *config.Problems
		if errors.As(err, &problems) == (c != nil) {
			t.Fatalf("config %v, error %v", c, err)
		}
		if c == nil {
			pointsInto(t, text, problems.List)
		}
	})
}

func pointsInto(t *testing.T, text string, problems []config.Problem) {
	if len(problems) == 0 {
		t.Fatal("refused without a problem")
	}
	lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
	for _, p := range problems {
		if p.File != "f.yaml" {
			if p.Line != 0 || !strings.HasPrefix(p.File, "environment variable ") {
				t.Errorf("from nowhere: %v", p)
			}
			continue
		}
		if p.Line < 1 || p.Line > len(lines)+1 || p.Column < 1 || p.Msg == "" {
			t.Fatalf("%v is not in a file of %d lines", p, len(lines))
		}
		if p.Line <= len(lines) && p.Column > utf8.RuneCountInString(lines[p.Line-1])+2 {
			t.Errorf("%v is behind its line %q", p, lines[p.Line-1])
		}
	}
}
