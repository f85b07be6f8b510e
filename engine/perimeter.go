package engine

import (
	"net/netip"
	"slices"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
)

// The perimeter is what a socket meets before it has shown a good ticket, in the order of this file:
//
//	arrive    accept: one of the loop's unfinished heads; when they are too many, the busiest addresses lose their oldest
//	meet      its address is known: may it connect so often, and have so many sockets that are not admitted
//	room      its ticket looks good: may this loop redeem one more, the node have one client more and so many a second, and is
//	          there a descriptor
//	parted    it was refused, or closed later: it stays until its client has gone, or its descriptor is wanted
//	full      no descriptor is left to accept with
//	known     it is open, or gone: its address has one less
//
// What is turned away by arrive and meet is ended at once with RST and only counted: an answer and a log line would be work
// that a flood can order.
const (
	headsMax   = 16 << 10    // unfinished heads of a loop: 256 MiB at the very worst, when all stop a byte before the end
	headsPart  = 8           // of the budget is freed at a time, so that one arrival costs 1/8 of a look at 8 heads; and with little memory left this part is all of it
	headsMin   = 256         // heads that are not looked through for finished ones
	patience   = time.Second // who is silent, or over, for less keeps its descriptor
	fullMax    = 1 << 10     // sockets of a kind that make way at a time: 5 ms
	yieldLooks = 64          // heads that one ticket looks at for one that may go
	admitsMax  = 1 << 10     // complete heads of a loop whose redemption or backend is waited for
)

// Why sockets are turned away: metric labels beside those of refusal.go.
const (
	awayRate            = "address-rate"
	awayUnauthenticated = "address-unauthenticated"
	awayHeads           = "heads"
)

// unfinished is the budget's part of a socket's life.
func (s state) unfinished() bool { return s >= stateProxy && s <= stateHead }

// arrive takes a just accepted socket among the unfinished heads. They lie in a list in order of arrival, finished ones
// among them, which is looked through whenever it has doubled: O(1) an arrival.
func (w *worker) arrive(id reactor.ID) {
	if len(w.heads) >= min(max(w.headsAt, headsMin), w.headsBudget()) {
		w.clean()
	}
	w.heads = append(w.heads, id)
}

// headsBudget is how many unfinished heads the loop may have. With memory running out they must not be what residents are
// cut for.
func (w *worker) headsBudget() int {
	if w.e.overloaded() {
		return w.e.o.HeadsMax / headsPart
	}
	return w.e.o.HeadsMax
}

// clean drops the finished from the list. When that was as long as the budget, and too few of it were finished, it makes room.
func (w *worker) clean() {
	budget := w.headsBudget()
	full := len(w.heads) >= budget
	w.heads = slices.DeleteFunc(w.heads, w.finished)
	if over := len(w.heads) - (budget - budget/headsPart); full && over > 0 {
		w.thin(over)
	}
	w.headsAt = 2 * len(w.heads)
}

func (w *worker) finished(id reactor.ID) bool {
	return !w.l.Alive(id) || !w.e.rows.At(id.Slot()).state.unfinished()
}

// thin ends n of the unfinished heads. Addresses with more than a certain number come down to it, whichever of theirs are
// the oldest first; the number is the largest that is enough. So an address with one head is safe while another has two,
// and if each has one, those who have waited longest go: an honest client sends its head at once.
func (w *worker) thin(n int) {
	of := w.headsOf
	clear(of)
	for _, id := range w.heads {
		of[w.addressKey(id)]++
	}
	level := waterLevel(of, n)
	for _, id := range w.heads {
		if n == 0 {
			break
		}
		if key := w.addressKey(id); of[key] > level {
			of[key]--
			n--
			w.turnAway(id, awayHeads)
		}
	}
	w.heads = slices.DeleteFunc(w.heads, w.finished)
}

func (w *worker) addressKey(id reactor.ID) uint64 { return limiter.AddressKey(w.l.Peer(id).Addr()) }

// waterLevel is the largest level to which all counts of of can be cut so that n, or more, go. n is at most their sum.
func waterLevel(of map[uint64]int, n int) int {
	most := 0
	for _, c := range of {
		most = max(most, c)
	}
	have := make([]int, most+1) // addresses by count
	for _, c := range of {
		have[c]++
	}
	above, gone := 0, 0
	for level := most; level > 0; {
		above += have[level]
		gone += above
		level--
		if gone >= n {
			return level
		}
	}
	return 0
}

// meet asks the limits of address a for the socket and reports whether it may stay. It is called once, as soon as the
// address is known for sure: at accept, or when a PROXY header is complete. From then on Peer has to say the same address.
func (w *worker) meet(id reactor.ID, s *session, a netip.Addr) bool {
	if w.e.o.Addresses == nil {
		return true
	}
	switch w.e.o.Addresses.Enter(a, w.l.Now()) {
	case limiter.EntryCounted:
		s.flags |= flagMet
	case limiter.EntryRate:
		w.turnAway(id, awayRate)
		return false
	case limiter.EntryUnauthenticated:
		w.turnAway(id, awayUnauthenticated)
		return false
	}
	return true
}

// turnAway ends a socket that is not open, without an answer.
func (w *worker) turnAway(id reactor.ID, why string) {
	w.stats.refused(why)
	w.e.rows.At(id.Slot()).state = stateClosing
	w.l.Abort(id)
}

// room says whether the good ticket of socket id may be redeemed now. If so, s is one of the node's clients until it leaves.
func (w *worker) room(id reactor.ID, s *session) *Refusal {
	e := w.e
	if w.asking+len(w.waiting) >= e.o.AdmitsMax {
		return errProgress
	}
	if n := e.clients.Add(1); e.o.MaxSessions > 0 && n > e.o.MaxSessions {
		e.clients.Add(-1)
		return ErrOverloaded
	}
	s.flags |= flagClient // what is refused from here on leaves
	if e.o.AdmitRate.N > 0 {
		if ok, _ := e.admits.TakeShared(&e.admitted, w.l.Now(), 1); !ok {
			return errAdmitRate
		}
	}
	if w.crowded() {
		return ErrOverloaded
	}
	if e.o.AdmitConns > 0 && e.r.Conns() > e.o.AdmitConns {
		w.yield(id)
	}
	return nil
}

// yield frees a descriptor of this loop for id, who has a ticket, if somebody has one who is over, else silent, for longer than
// patience.
func (w *worker) yield(to reactor.ID) {
	before := w.patient()
	if w.dismiss(before) {
		return
	}
	for len(w.heads) > 0 && w.finished(w.heads[0]) {
		w.heads = w.heads[1:]
	}
	for _, id := range w.heads[:min(len(w.heads), yieldLooks)] {
		switch {
		case id == to || w.finished(id):
		case w.e.rows.At(id.Slot()).opened.since(before) > 0:
			return
		default:
			w.turnAway(id, awayHeads)
			return
		}
	}
}

// patient is the moment patience ago.
func (w *worker) patient() tick { return tickOf(w.l.Now() - mono.Time(patience)) }

// parted notes that id was refused or closed. Most clients leave at once then, the others within the time to linger.
func (w *worker) parted(id reactor.ID) {
	if len(w.partings) >= max(w.partingsAt, headsMin) {
		w.compact()
	}
	w.e.rows.At(id.Slot()).last = tickOf(w.l.Now())
	w.partings = append(w.partings, id)
}

// compact drops those that have gone from the list of the parted.
func (w *worker) compact() {
	w.partings = slices.DeleteFunc(w.partings, func(id reactor.ID) bool { return !w.l.Alive(id) })
	if cap(w.partings) > 4*max(len(w.partings), headsMin) { // a drain is over
		w.partings = slices.Clone(w.partings)
	}
	w.partingsAt = 2 * len(w.partings)
}

// dismiss resets the socket that is over for longest, at least since before, and is still there. False: there is none.
func (w *worker) dismiss(before tick) bool {
	for len(w.partings) > 0 {
		id := w.partings[0]
		alive := w.l.Alive(id)
		if alive && w.e.rows.At(id.Slot()).last.since(before) > 0 {
			return false
		}
		w.partings = w.partings[1:]
		if alive {
			w.l.Abort(id)
			return true
		}
	}
	return false
}

// full is called when the loop must stop accepting, because there are no descriptors left. It reports whether some are free
// now: who has a ticket would stand in the kernel's queue behind all the others. Those go that nobody needs, an eighth at a
// time and none before it had its time; so who comes again at once does not turn the loop.
func (w *worker) full() bool {
	before := w.patient()
	w.compact()
	w.heads = slices.DeleteFunc(w.heads, w.finished)
	old := 0
	for old < len(w.heads) && w.e.rows.At(w.heads[old].Slot()).opened.since(before) <= 0 {
		old++
	}
	dismissed := 0
	for range min(1+len(w.partings)/headsPart, fullMax) {
		if w.dismiss(before) {
			dismissed++
		}
	}
	n := min(old/headsPart, fullMax)
	if dismissed == 0 {
		n = max(n, min(old, 1))
	}
	if n > 0 { // also when others have gone: one who is refused again and again would keep them all here
		young := w.heads[old:]
		w.heads = w.heads[:old]
		w.thin(n)
		w.heads = append(w.heads, young...) // which lie behind, in the same array
	}
	return dismissed+n > 0
}

// known tells the limits of its address that the socket is no longer one of those nobody knows: it is open, or gone.
func (w *worker) known(id reactor.ID, s *session) {
	if s.flags&flagMet != 0 {
		s.flags &^= flagMet
		w.e.o.Addresses.Leave(w.l.Peer(id).Addr())
	}
}

// overloaded reports whether memory is running out.
func (e *Engine) overloaded() bool { return e.o.Overloaded != nil && e.o.Overloaded() }

// crowded reports whether those who were let in, and their backends, have all the descriptors that they may have. Who is being
// let in may want another for a backend; the other loops have as many of those as this one.
func (w *worker) crowded() bool {
	e := w.e
	coming := int64((w.asking + len(w.waiting)) * len(e.workers))
	return e.o.AdmitConns > 0 && e.r.Conns()-e.live.Load()+e.clients.Load()+coming > e.o.AdmitConns
}
