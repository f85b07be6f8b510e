package reactor

import (
	"fmt"
	"reflect"
	"sync/atomic"
)

const (
	slotBits  = 24 // descriptors up to 16,777,215: sixteen times what one node is sized for
	slotMax   = 1 << slotBits
	chunkRows = 1024
)

// A Slab is a table of T by slot. It grows by chunks of 1,024 rows at first use, never moves a row and never shrinks, so a
// pointer from At stays good. T holds no pointers: the collector does not look inside, and a million rows cost it nothing.
// Any goroutine may call At; who may touch the row behind it is the owner's business (for a socket's slot: its loop, from
// Open or Dial until Closed returns).
type Slab[T any] struct {
	chunks [slotMax / chunkRows]atomic.Pointer[[chunkRows]T]
}

// NewSlab returns an empty slab. It panics if T contains a pointer, string, slice, map, channel, function or interface.
func NewSlab[T any]() *Slab[T] {
	if path := pointerIn(reflect.TypeFor[T]()); path != "" {
		panic("reactor: a slab's row must be free of pointers: " + path)
	}
	return new(Slab[T])
}

// At returns the row of slot, zeroed at its first use. slot is below 2^24 (higher bits are ignored).
func (s *Slab[T]) At(slot uint32) *T {
	c := s.chunks[slot%slotMax/chunkRows].Load()
	if c == nil {
		c = s.grow(slot)
	}
	return &c[slot%chunkRows]
}

// grow adds the chunk of slot. Two loops may race: the loser's chunk is garbage.
func (s *Slab[T]) grow(slot uint32) *[chunkRows]T {
	p := &s.chunks[slot%slotMax/chunkRows]
	p.CompareAndSwap(nil, new([chunkRows]T))
	return p.Load()
}

// pointerIn names the first part of t that holds a pointer, or "".
func pointerIn(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Array:
		if t.Len() == 0 {
			return ""
		}
		return pointerIn(t.Elem())
	case reflect.Struct:
		for f := range t.Fields() {
			if path := pointerIn(f.Type); path != "" {
				return fmt.Sprintf("%s.%s: %s", t, f.Name, path)
			}
		}
		return ""
	case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
		return t.String()
	default:
		return ""
	}
}
