// Package pressure decides what a node does as its memory fills up, in this order: it gives free memory back to the system,
// it refuses newcomers, it cuts those residents that hold most. The process is to know that state before the kernel does,
// which would kill it.
//
//	calm ──refuse_at──> refuse ──cut_at──> cut
//	 ^                   │  ^               │
//	 └─ 3 % below it ────┘  └── below it ───┘
//
// Nothing here waits, reads a clock or the system by itself: whoever calls Step every 250 ms brings all of it.
package pressure

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/unit"
)

// Every is how often Step is meant to be called.
const Every = 250 * time.Millisecond

// State is what a node does about its memory.
type State uint32

// States, in their order.
const (
	Calm   State = iota
	Refuse       // newcomers get 503
	Cut          // the largest queues are cut as well
)

// String is the state in a log line.
func (s State) String() string {
	switch s {
	case Calm:
		return "calm"
	case Refuse:
		return "refuse"
	default:
		return "cut"
	}
}

// A Reading is how much memory is in use, of how much.
type Reading struct{ Used, Limit int64 }

// Options are the marks of a Watch, and its hands.
type Options struct {
	RefuseAt unit.Percent // of the limit
	CutAt    unit.Percent // of the limit, above RefuseAt
	Clock    mono.Clock
	// Read says what is in use now. An error leaves everything as it is.
	Read func() (Reading, error)
	// Free collects garbage and gives all free memory back to the system. Freed memory counts until that is done: a heap
	// that was large once would else look full for minutes.
	Free func()
	// Cut makes residents give up so many bytes, those that hold most first, and returns how many that were when it is done.
	Cut func(ctx context.Context, bytes int64) int64
	// Room says at each look how many bytes are left up to half-way between CutAt and the limit: a load that fills them faster
	// than Step comes is not to find the node asleep, and one that goes on is to pass CutAt, so that those are cut who hold
	// most and not those who come next. May be nil.
	Room func(bytes int64)
	// Soft tells the collector how much its heap and all that belongs to it should have, at most. May be nil.
	Soft func(bytes int64)
	// Heap is what the collector has now, in the sense of Soft. Needed with Soft.
	Heap func() int64
	// Need is what it cannot do without, in the same sense: Soft is told an eighth more at least, because it would collect
	// without end else, and find nothing. May be nil.
	Need func() int64
}

const (
	// freeEvery is the shortest time between two calls of Free that are not paid for by a cut: it takes 10 to 100 ms of a
	// processor for each GiB with pointers.
	freeEvery = 2 * time.Second
	// slack is how far memory must fall below RefuseAt before newcomers are let in again, as a part of the limit.
	slack = 32
	// softStep is by how much of the limit a new soft limit must differ from the last to be told.
	softStep = 64
)

// A Watch knows the state. One goroutine steps it; any may ask.
type Watch struct {
	o     Options
	freed mono.Time // when Free was called last
	soft  int64     // what Soft was told last

	state      atomic.Uint32
	used, most atomic.Int64
	frees, cut atomic.Uint64
	fails      atomic.Uint64
}

// New returns a Watch in the state Calm.
func New(o Options) *Watch { return &Watch{o: o} }

// State is what Step has found last. Any goroutine may call it; it costs a load.
func (w *Watch) State() State { return State(w.state.Load()) }

// Refuses reports whether newcomers are to be refused.
func (w *Watch) Refuses() bool { return w.State() >= Refuse }

// Step looks at the memory and does what is due. It returns when that is done; ctx bounds the wait for Cut.
func (w *Watch) Step(ctx context.Context) State {
	r, ok := w.read()
	if !ok {
		return w.State()
	}
	w.soften(r)
	refuse, cut := part(w.o.RefuseAt, r.Limit), part(w.o.CutAt, r.Limit)
	if now := w.o.Clock.Now(); r.Used >= refuse && (w.freed == 0 || now.Sub(w.freed) >= freeEvery) {
		w.free(now)
		if r, ok = w.read(); !ok {
			return w.State()
		}
	}
	next := w.next(r, refuse, cut)
	w.state.Store(uint32(next))
	if next == Cut {
		// To a quarter of the way back to refuse_at, or the next message would cut again.
		if n := w.o.Cut(ctx, r.Used-cut+(cut-refuse)/4); n > 0 {
			w.cut.Add(uint64(n))
			w.free(w.o.Clock.Now()) // what was cut counts until then, and would be cut once more
			w.read()                // and those who have stayed have that room
		}
	}
	return next
}

// next is the state that r calls for.
func (w *Watch) next(r Reading, refuse, cut int64) State {
	switch {
	case r.Used >= cut:
		return Cut
	case r.Used >= refuse, w.Refuses() && r.Used >= refuse-r.Limit/slack:
		return Refuse
	default:
		return Calm
	}
}

func (w *Watch) read() (Reading, bool) {
	r, err := w.o.Read()
	if err != nil || r.Limit <= 0 {
		w.fails.Add(1)
		return r, false
	}
	w.used.Store(r.Used)
	w.most.Store(r.Limit)
	if w.o.Room != nil {
		w.o.Room(max(0, (part(w.o.CutAt, r.Limit)+r.Limit)/2-r.Used))
	}
	return r, true
}

func (w *Watch) free(now mono.Time) {
	w.freed = now
	w.frees.Add(1)
	w.o.Free()
}

// soften lets the collector work harder from half-way between the two marks on, so that what the limit leaves is not given
// to garbage. What lies outside of its heap (tables, the program itself, in a control group the kernel's buffers) is taken
// off.
func (w *Watch) soften(r Reading) {
	if w.o.Soft == nil {
		return
	}
	outside := max(0, r.Used-w.o.Heap())
	soft := max(part(w.o.RefuseAt, r.Limit)/2+part(w.o.CutAt, r.Limit)/2-outside, r.Limit/softStep)
	if w.o.Need != nil {
		soft = max(soft, w.o.Need()*9/8)
	}
	if diff := soft - w.soft; w.soft != 0 && max(diff, -diff) < r.Limit/softStep {
		return
	}
	w.soft = soft
	w.o.Soft(soft)
}

// part is p of limit.
func part(p unit.Percent, limit int64) int64 { return int64(p.Of(unit.Size(limit))) }

// Stats is what a Watch has seen.
type Stats struct {
	State State
	Used  int64  // bytes in use when it last looked
	Limit int64  // of so many; 0: it has not looked yet
	Frees uint64 // calls of Free
	Cut   uint64 // bytes that residents had to give up
	Fails uint64 // readings that failed, and left everything as it was
}

// Stats fills s. Any goroutine may call it.
func (w *Watch) Stats(s *Stats) {
	*s = Stats{State: w.State(), Used: w.used.Load(), Limit: w.most.Load(), Frees: w.frees.Load(), Cut: w.cut.Load(), Fails: w.fails.Load()}
}

// nearest is the reading of which the largest part is used.
func nearest(a, b Reading) Reading {
	if share(b) > share(a) {
		return b
	}
	return a
}

func share(r Reading) float64 {
	if r.Limit <= 0 {
		return math.Inf(-1)
	}
	return float64(r.Used) / float64(r.Limit)
}
