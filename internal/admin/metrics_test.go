package admin

import (
	"os"
	"testing"
)

// The descriptors of this process, as a kernel that says their number has it and as one that does not: /proc/self/fdinfo has the
// same entries, and never a size.
func TestOpenDescriptors(t *testing.T) {
	for _, dir := range []string{"/proc/self/fd", "/proc/self/fdinfo"} {
		before, err := openDescriptors(dir)
		if err != nil {
			t.Fatal(err)
		}
		const more = 1500 // more than are read at once
		var open []*os.File
		t.Cleanup(func() {
			for _, f := range open {
				_ = f.Close()
			}
		})
		for range more {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
		}
		after, err := openDescriptors(dir)
		if err != nil || after-before != more {
			t.Errorf("%s: %d more descriptors (%d, %d, %v), want %d", dir, after-before, before, after, err, more)
		}
		list, err := os.ReadDir(dir)
		if err != nil || int64(len(list)-1) != after {
			t.Errorf("%s: %d descriptors, listed are %d (%v)", dir, after, len(list)-1, err)
		}
		for _, f := range open {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		open = nil
	}
	if n, err := openDescriptors("/proc/self/no such"); err == nil {
		t.Errorf("a directory that is not there has %d descriptors", n)
	}
}
