package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// What only root may read in detail, everybody may read as a sum.
func TestSlabOfAll(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := slab(dir); err == nil {
		t.Error("without any file")
	}
	write("meminfo", "MemTotal: 100 kB\n")
	if _, err := slab(dir); err == nil {
		t.Error("without a sum")
	}
	write("meminfo", "MemTotal: 100 kB\nSlab:  7 kB\n")
	if n, err := slab(dir); err != nil || n != 7<<10 {
		t.Errorf("%d, %v", n, err)
	}
	write("slabinfo", "x")
	if n, err := slab(dir); err == nil {
		t.Errorf("what is no slabinfo: %d", n)
	}
	all, err := Slab()
	if err != nil || all < 1<<20 {
		t.Fatalf("of this machine: %d, %v", all, err)
	}
}
