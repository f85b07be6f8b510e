package config_test

import (
	"os"
	"strings"
	"testing"

	"ticketgate/internal/config"
)

// TestManual: docs/config.md has a row for every key with its default, range and values, and for nothing else.
func TestManual(t *testing.T) {
	text, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if path, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | "); ok && strings.HasPrefix(line, "| `") {
			if _, twice := rows[path]; twice {
				t.Errorf("%s has two rows", path)
			}
			rows[path] = rest
		}
	}
	for _, key := range config.Keys() {
		row, ok := rows[key.Path]
		if !ok {
			t.Errorf("%s has no row", key.Path)
			continue
		}
		delete(rows, key.Path)
		low, high, _ := strings.Cut(key.Range, ",")
		wants := []string{low, high}
		if low != "" {
			wants = append(wants, low+" to "+high)
		}
		if key.Default != "" && key.Default != "none" {
			wants = append(wants, "`"+key.Default+"`")
		}
		for _, value := range strings.Fields(key.OneOf) {
			wants = append(wants, "`"+value+"`")
		}
		for _, want := range wants {
			if !strings.Contains(row, want) {
				t.Errorf("the row of %s does not have %q", key.Path, want)
			}
		}
	}
	for path := range rows {
		t.Errorf("there is no key %s", path)
	}
	for _, path := range config.LaterKeys() {
		if !strings.Contains(string(text), "`"+path+"`") {
			t.Errorf("%s, known for later, is not mentioned", path)
		}
	}
}
