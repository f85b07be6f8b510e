package reactor

import "ticketgate/internal/offheap"

// slotMax bounds descriptors: sixteen times what one node is sized for.
const slotMax = offheap.MaxRows

// A Slab is a table by ID.Slot: what a handler keeps of each socket, beside the reactor's own row. The row behind At belongs
// to the socket's loop from Open or Dial until Closed returns.
type Slab[T any] = offheap.Slab[T]

// NewSlab returns an empty slab. It panics if T contains a pointer.
func NewSlab[T any]() *Slab[T] { return offheap.NewSlab[T]() }
