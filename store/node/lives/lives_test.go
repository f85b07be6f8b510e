package lives

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ticketgate/ticket"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLives: the next process knows those of the one before, and none of another boot.
func TestLives(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(dir, "gw-1")
	must(t, err)
	if got := f.Former(); got != nil {
		t.Errorf("a fresh file has %v", got)
	}
	must(t, f.Add(1))
	must(t, f.Add(1<<63))
	if _, err := Open(dir, "gw-1"); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), filepath.Join(dir, "gw-1.lock")) {
		t.Errorf("a second process: %v", err)
	}
	other, err := Open(dir, "gw-2")
	must(t, err)
	if got := other.Former(); got != nil {
		t.Errorf("another node has %v", got)
	}
	must(t, other.Close())
	must(t, f.Close())
	f, err = Open(dir, "gw-1")
	must(t, err)
	want := []ticket.Incarnation{1, 1 << 63}
	if got := f.Former(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	must(t, f.Add(7))
	must(t, f.Close())
	f, err = open(dir, "gw-1", "another-boot")
	must(t, err)
	if got := f.Former(); got != nil {
		t.Errorf("another boot has %v", got)
	}
	must(t, f.Close())
	f, err = Open(dir, "gw-1")
	must(t, err)
	if got := f.Former(); !slices.Equal(got, append(want, 7)) {
		t.Errorf("%v", got)
	}
	must(t, f.Close())
}

// TestHalfALine: a crash while the file was written, or somebody's editor.
func TestHalfALine(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]int{
		"b 0000000000000001\nb 000000000000":                    1,
		"b 0000000000000001\nb 0000000000000002":                1,
		"b 0000000000000001\nb zzzzzzzzzzzzzzzz\nb 0\nb\n\n":    1,
		"b 0000000000000000\n":                                  0,
		strings.Repeat("x", 10_000) + "\nb 0000000000000001\n":  0,
		"b 0000000000000001\nb 0000000000000003 and more\n":     1,
		"c 0000000000000001\nb  000000000000001\nb 00000000001": 0,
	} {
		must(t, os.WriteFile(filepath.Join(dir, "n.lock"), []byte(text), 0o600))
		f, err := open(dir, "n", "b")
		must(t, err)
		if got := f.Former(); len(got) != want {
			t.Errorf("%.60q: %v", text, got)
		}
		must(t, f.Add(9))
		must(t, f.Close())
		f, err = open(dir, "n", "b")
		must(t, err)
		if got := f.Former(); len(got) != want+1 || got[want] != 9 {
			t.Errorf("%.60q, and one more: %v", text, got)
		}
		must(t, f.Close())
	}
}

// TestBounded: a node that loses lease after lease fills no disk.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(dir, "n")
	must(t, err)
	for i := range ticket.Incarnation(1000) {
		must(t, f.Add(i+1))
	}
	must(t, f.Close())
	f, err = Open(dir, "n")
	must(t, err)
	got := f.Former()
	if len(got) != kept || got[kept-1] != 1000 {
		t.Errorf("%d, the last %d", len(got), got[len(got)-1])
	}
	must(t, f.Close())
}

func TestNoFolder(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none"), "n"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
