package limiter

import (
	"testing"
	"unsafe"
)

func TestCountStopsAtItsEnds(t *testing.T) {
	for name, word := range map[string]uint64{"sockets": pack(countCap, 5), "numbers": pack(1, 1<<numberBits-1)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic at the end", name)
				}
			}()
			changed(word, 1, 9)
		}()
	}
	if count, number := unpack(changed(pack(countCap-1, 1<<numberBits-2), 1, 9)); count != countCap || number != 1<<numberBits-1 {
		t.Errorf("just before the ends: %d, %d", count, number)
	}
}

// TestSizes pins what a subject, and what a bucket that sockets share, costs beside its 4 bytes in an index.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(tally{}); got != 24 {
		t.Errorf("a subject's tally has %d bytes", got)
	}
	if got := unsafe.Sizeof(bucket{}); got != 32 {
		t.Errorf("a shared bucket has %d bytes", got)
	}
	if got := unsafe.Sizeof(purse{}); got != 152 {
		t.Errorf("a purse has %d bytes", got)
	}
	if got := unsafe.Sizeof(Row{}); got != 64 {
		t.Errorf("a session's buckets have %d bytes", got)
	}
	if got := unsafe.Sizeof(stripe{}) % 64; got != 0 {
		t.Errorf("stripes do not fill cache lines: %d bytes over", got)
	}
}
