package engine

import (
	"unsafe"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// What a socket costs the engine beside the reactor's row: always, while a head or a message has arrived in part, while its
// buckets are not full, and for its client's name.
const (
	SessionSize = unsafe.Sizeof(session{})
	BegunSize   = unsafe.Sizeof(begun{})
	MessageSize = unsafe.Sizeof(message{})
	FlowSize    = unsafe.Sizeof(flow{})
	LateSize    = unsafe.Sizeof(late{})
	WaitingSize = unsafe.Sizeof(lateMessage{})
	NameSize    = unsafe.Sizeof(name{})
	RestSize    = unsafe.Sizeof(rest{})
	SeatSize    = unsafe.Sizeof(seat{})
	GroupSize   = unsafe.Sizeof(group{})
)

// Shared is what sockets hold of their loops' tables; all of it is given back when they end.
type Shared struct {
	Names    int // clients and keys of open sockets
	Parked   int // claims between the store's answer and the 101
	Side     int // heads and messages under way
	Flows    int // buckets that are not full, or shared
	Holds    int // messages under way of which something is kept
	Pongs    int // pings to be answered when nothing waits any more
	Batches  int // empty ones, to be used again
	Late     int // messages that wait for a limit
	LateRows int // sockets with such, or with a stream that was told to stop
	Buffers  int // of holds, ever made: what does not leak is used again
	Owed     int // sockets that the store has to know of by some time; those that it knows go later
}

// Shared adds up all loops. Only while none of them runs.
func (e *Engine) Shared() (s Shared) {
	s.Names = e.names.rows.Len()
	for _, w := range e.workers {
		s.Parked += len(w.waiting)
		s.Side += w.begun.Len() + w.messages.Len()
		s.Flows += w.flows.Len()
		s.Holds += len(w.holds.all) - len(w.holds.free)
		s.Pongs += len(w.pongs)
		s.Late += w.lateMessages.Len()
		s.LateRows += w.late.Len()
		s.Batches += len(w.batches)
		s.Owed += len(w.owed)
		s.Buffers += len(w.holds.all)
	}
	return s
}

// WaterLevel is how far the busiest addresses come down.
var WaterLevel = waterLevel

// Heads is how long the lists of unfinished heads are. Only while no loop runs.
func (e *Engine) Heads() (n int) {
	for _, w := range e.workers {
		n += len(w.heads)
	}
	return n
}

// CutLoop is loop i's part of Cut. On that loop only.
func (e *Engine) CutLoop(i int, bytes int64) int64 { return e.workers[i].cut(bytes) }

// Page is Connections for the goroutine that turns the loops: run does.
func (e *Engine) Page(f *Filter, from uint32, most int, run func()) (list []Connection, next uint32) {
	var all []Connection
	e.find(f, from, most, func(found []Connection) { all = found })
	run()
	return page(all, most)
}

// VictimLoop is loop i's part of Victim. On that loop only.
func (e *Engine) VictimLoop(i int, u ticket.Subject, idlest bool) Victim {
	return e.workers[i].victim(u, idlest)
}

// EvictLoop is loop i's part of Evict. On that loop only.
func (e *Engine) EvictLoop(i int, id reactor.ID, u ticket.Subject, by mono.Time) <-chan Eviction {
	got := make(chan Eviction, 1)
	e.workers[i].evict(id, u, by, got)
	return got
}

// Seats is a loop's index of sockets that may have to go, by itself.
type Seats struct{ *seats }

// NewSeats returns an empty one.
func NewSeats() Seats { return Seats{newSeats()} }

// Enter, Leave, All and Len are for the test of the index.
func (s Seats) Enter(id reactor.ID, u ticket.Subject) bool { return s.enter(id, u) }
func (s Seats) Leave(id reactor.ID)                        { s.leave(id) }
func (s Seats) All(u ticket.Subject, limit int) (all []reactor.ID) {
	s.each(u, limit, func(id reactor.ID) bool { all = append(all, id); return true })
	return all
}
func (s Seats) Len() (sockets, subjects int) { return s.rows.Len(), s.groups.Len() }

// Seated is how many sockets have a seat, and how many are being evicted. Only while no loop runs.
func (e *Engine) Seated() (seats, evicted int) {
	for _, w := range e.workers {
		if w.seats != nil {
			seats += w.seats.rows.Len()
		}
		evicted += len(w.evicted)
	}
	return seats, evicted
}
