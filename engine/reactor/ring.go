package reactor

import "sync/atomic"

// ringSize is how many units of work may wait for one loop. Beyond it the poster waits, so a loop that falls behind slows
// those who feed it instead of growing.
const ringSize = 4096

// A ring brings Work from many goroutines to one loop in order of arrival (a bounded queue after D. Vyukov). Each cell
// carries the turn in which it may be used next:
//
//	seq == pos        free for the producer that takes pos
//	seq == pos+1      filled, for the consumer at pos
//	seq <  pos        still filled from the turn before: the ring is full
type ring struct {
	head atomic.Uint64 // next position to fill; producers
	_    [56]byte      // keeps the producers' line away from the loop's
	tail uint64        // next position to take; the loop only
	_    [56]byte
	cell [ringSize]struct {
		seq  atomic.Uint64
		work Work
	}
}

func newRing() *ring {
	g := new(ring)
	for i := range g.cell {
		g.cell[i].seq.Store(uint64(i))
	}
	return g
}

// push adds w, or reports false when the ring is full. Any goroutine.
func (g *ring) push(w *Work) bool {
	for {
		pos := g.head.Load()
		c := &g.cell[pos%ringSize]
		switch d := int64(c.seq.Load() - pos); {
		case d < 0:
			return false
		case d == 0 && g.head.CompareAndSwap(pos, pos+1):
			c.work = *w
			c.seq.Store(pos + 1)
			return true
		}
	}
}

// pop takes the oldest into w, or reports false when there is none that is completely written. The loop only.
func (g *ring) pop(w *Work) bool {
	c := &g.cell[g.tail%ringSize]
	if c.seq.Load() != g.tail+1 {
		return false
	}
	*w = c.work
	c.work = Work{}
	c.seq.Store(g.tail + ringSize)
	g.tail++
	return true
}

// Post brings w to Options.Work on the loop, in the order in which one goroutine posts. Any goroutine but a loop's: while
// 4,096 units wait it blocks until the loop has taken some. After the loop has ended w is dropped.
func (r *Reactor) Post(loop int, w Work) {
	l := r.loops[loop]
	if l.post(&w) {
		return
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	for !l.post(&w) {
		select {
		case <-l.room:
		case <-l.ended:
			return
		}
	}
}

// Later brings w to this loop when the poller's round is over and all its events had their turn, without the three system calls
// of a wake; false: the ring is full. On the loop only.
func (l *Loop) Later(w Work) bool {
	if !l.ring.push(&w) {
		return false
	}
	l.unfinished = true
	return true
}

// NextRound brings w to this loop when the sockets that are ready now have had their turn: work that would take a turn too long goes
// on with it. On the loop only.
func (l *Loop) NextRound(w Work) {
	l.putOver = append(l.putOver, w)
	l.wake()
}

// runAgain does what NextRound has put off.
func (l *Loop) runAgain() {
	if len(l.putOver) == 0 {
		return
	}
	list := l.putOver
	l.putOver = l.putOverSpare[:0]
	for i := range list {
		l.now = 0
		l.work = list[i]
		l.stat.work.Add(1)
		if l.o.Work != nil {
			l.callWork()
		}
	}
	l.work = Work{}
	clear(list)
	l.putOverSpare = list
}

// endRound does the work that callbacks have put off to the end of the round.
func (l *Loop) endRound() {
	if l.unfinished {
		l.unfinished = false
		l.begin()
		l.drain(workBatch)
		l.settle()
	}
	if l.asksAgain {
		l.asksAgain = false
		l.begin()
		l.o.Again(l)
		l.settle()
	}
}

func (l *Loop) post(w *Work) bool {
	if !l.ring.push(w) {
		return false
	}
	l.wake()
	return true
}

// pass lets one waiting poster try again. Each unit taken passes once, so the unit of one who waited frees the next.
func (l *Loop) pass() {
	if l.waiting.Load() == 0 {
		return
	}
	select {
	case l.room <- struct{}{}:
	default: // one is on its way already
	}
}

// workBatch is how much work a wake does before the sockets get their turn.
const workBatch = 512

// drain does waiting work, at most n units.
func (l *Loop) drain(n int) {
	defer func() { l.work = Work{} }() // what P points at may go
	for ; n > 0; n-- {
		if !l.ring.pop(&l.work) {
			return
		}
		l.stat.work.Add(1)
		l.pass()
		if l.o.Work != nil {
			l.callWork()
		}
	}
	l.wake() // more may wait
}

// wake makes the loop come round. Any goroutine. One write a sleep: woken stays set until the loop has looked.
func (l *Loop) wake() {
	if l.woken.Load() || !l.woken.CompareAndSwap(false, true) {
		return
	}
	l.wakers.Add(1) // the descriptor is closed only after the last one has let go of it
	if !l.over.Load() {
		l.sys.wake()
	}
	l.wakers.Add(-1)
}

// do brings f to the loop: listeners come and go this way. Any goroutine; f is not run once the loop has ended.
func (l *Loop) do(f func()) {
	l.mu.Lock()
	l.commands = append(l.commands, f)
	l.mu.Unlock()
	l.wake()
}

func (l *Loop) runCommands() {
	l.mu.Lock()
	list := l.commands
	l.commands = nil
	l.mu.Unlock()
	for _, f := range list {
		f()
	}
}
