package engine

import (
	"cmp"
	"context"
	"slices"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

const (
	cutLeast = 4 << 10 // a socket that holds less is not worth ending
	cutMost  = 4096    // sockets that a loop ends at a time: about 20 ms

	holdLeast  = 128 // what Room leaves at least: this part of HoldMax
	queueLeast = 32  // and of NodeQueue
)

// Cut ends sockets with 1013 until about bytes of memory are free, those first that hold most: what waits to be sent to
// them, what was read of them and has to wait (for a backend, a limit, or their turn: at most a read each), and the message
// that they have begun. Each loop gives an equal part. It returns how many bytes they held, when that is done or ctx is. Any
// goroutine but a loop's may call it.
func (e *Engine) Cut(ctx context.Context, bytes int64) (held int64) {
	part := bytes/int64(len(e.workers)) + 1
	got := make(chan int64, len(e.workers))
	for i, w := range e.workers {
		e.Do(i, func(*reactor.Loop) {
			n := int64(0)
			defer func() { got <- n }()
			n = w.cut(part)
		})
	}
	for range e.workers {
		select {
		case n := <-got:
			held += n
		case <-ctx.Done():
			return held
		}
	}
	return held
}

// Room says that there are bytes of memory left: until it is called again, however long that takes, queues may grow by half of
// them, and messages under way by the other half; and each by a little, whatever is left, or whoever waits for a moment would be
// ended in the place of those whom Cut finds. Any goroutine may call it.
func (e *Engine) Room(bytes int64) {
	e.holdMax.Store(min(e.o.HoldMax, e.held.Load()+max(bytes/2, e.o.HoldMax/holdLeast)))
	e.r.QueueRoom(max(bytes/2, e.o.NodeQueue/queueLeast))
}

// holder is a socket that holds memory.
type holder struct {
	id    reactor.ID
	bytes int64
}

// cut ends the loop's largest holders until they have held bytes, and returns how many that were.
func (w *worker) cut(bytes int64) (held int64) {
	for i, h := range w.holders() {
		if held >= bytes || i == cutMost {
			break
		}
		held += h.bytes
		w.cutOff(h.id)
	}
	return held
}

// holders are the open sockets that hold at least cutLeast, the largest first.
func (w *worker) holders() []holder {
	var all []holder
	w.l.Each(func(id reactor.ID) {
		s := w.e.rows.At(id.Slot())
		if s.state != stateOpen {
			return
		}
		n := w.l.Queued(id) + w.l.Unread(id)
		if w.holding(s) {
			hold := w.message(s).hold
			n += int(w.holds.charge(hold) + w.flate.size(hold))
		}
		n += int(w.lateBytes(s))
		if n >= cutLeast {
			all = append(all, holder{id, int64(n)})
		}
	})
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.bytes, a.bytes) })
	return all
}

// cutOff ends an open socket. One that has a queue does not read, and a close frame behind 256 KiB would keep them for as
// long as it takes: it gets RST. Others hear 1013.
func (w *worker) cutOff(id reactor.ID) {
	s := w.e.rows.At(id.Slot())
	stream, slow := s.stream, w.l.Queued(id) > 0
	w.end(id, s, frame.CloseOverloaded, "", ByGateway)
	if slow {
		w.stats.cut(stream)
		w.l.Abort(id)
	}
}
