package engine

import "ticketgate/internal/offheap"

// holds are the messages that have begun and not ended, by index; a socket holds at most one. A short one lies on the heap. One
// that passes smallHold moves once to a place where the longest message has room, of which only what is written to is
// resident: growing it leaves no garbage, so a thousand messages of 64 KiB under way are 64 MiB and not twice as much.
type holds struct {
	all   [][]byte
	free  []uint32
	small [][]byte // empty
	large *offheap.Buffers
}

// To give the memory of a message back and get it again for the next costs more than a message of 16 KiB. So what was held
// once stays with its loop: of Options.HoldMax all loops together keep a part.
const (
	keptShare = 16
	keptMax   = 16 << 20 // bytes a loop
)

const (
	pageSize   = 4 << 10 // of every system that we run on
	smallHold  = 4 << 10
	smallsKept = 256      // at most 2 MiB a loop: append may have made them twice as long
	spareMax   = 64 << 10 // longer buffers that a loop has for itself are not kept
)

// newHolds are for messages of at most most bytes; kept bytes stay when nothing is held.
func newHolds(most int64, kept int) *holds {
	return &holds{large: offheap.NewBuffers(max(int(most), 3*smallHold), kept)} // of a capacity that no small one comes to
}

// begin returns the index+1 of an empty buffer.
func (h *holds) begin() uint32 {
	var b []byte
	if n := len(h.small); n > 0 {
		b, h.small = h.small[n-1], h.small[:n-1]
	}
	if n := len(h.free); n > 0 {
		i := h.free[n-1]
		h.free = h.free[:n-1]
		h.all[i] = b
		return i + 1
	}
	h.all = append(h.all, b)
	return uint32(len(h.all))
}

// add appends b to the message of index+1 and returns all of it.
func (h *holds) add(i uint32, b []byte) []byte {
	h.room(i, len(b))
	p := &h.all[i-1]
	*p = append(*p, b...)
	return *p
}

// room sees to it that n bytes more will not make garbage of the buffer of index+1, if the rules allow so many.
func (h *holds) room(i uint32, n int) {
	p := h.all[i-1]
	if size := h.large.Size(); len(p)+n <= smallHold || len(p)+n > size || cap(p) == size {
		return
	}
	h.all[i-1] = append(h.large.Get(), p...)
	h.keep(p)
}

// charge is how many bytes the message of index+1 counts for, which are those that are resident for it: its small buffer, or the
// pages of its large one and the small one that it has outgrown, which the collector may not have seen yet.
func (h *holds) charge(i uint32) int64 {
	b := h.all[i-1]
	if cap(b) == h.large.Size() {
		return int64(smallHold + max(h.large.Resident(b), (len(b)+pageSize-1)/pageSize*pageSize))
	}
	return int64(cap(b))
}

// end gives the buffer of index+1 back, and what was in it is lost.
func (h *holds) end(i uint32) {
	b := h.all[i-1]
	h.all[i-1] = nil
	h.free = append(h.free, i-1)
	if cap(b) == h.large.Size() {
		h.large.Put(b)
	} else {
		h.keep(b)
	}
}

func (h *holds) keep(b []byte) {
	if len(h.small) < smallsKept && cap(b) > 0 && cap(b) <= 2*smallHold {
		h.small = append(h.small, b[:0])
	}
}
