package engine

import "unsafe"

// SessionSize is what a socket costs the engine beside the reactor's row.
const SessionSize = unsafe.Sizeof(session{})

// Shared is what sockets hold of their loops' tables; all of it is given back when they end.
type Shared struct {
	Names   int // clients and keys of open sockets
	Parked  int // claims between the store's answer and the 101
	Holds   int // messages under way
	Batches int // empty ones, to be used again
	Rows    int // entries ever made for names and holds: what does not leak is used again
}

// Shared adds up all loops. Only while none of them runs.
func (e *Engine) Shared() (s Shared) {
	for _, w := range e.workers {
		s.Names += len(w.names.by)
		s.Parked += len(w.waiting)
		s.Holds += len(w.holds.all) - len(w.holds.free)
		s.Batches += len(w.batches)
		s.Rows += len(w.names.all) + len(w.holds.all)
	}
	return s
}
