package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// What is simulated. The times are those of the configuration's defaults, a ticket's life aside, which is short so that many of
// them expire.
const (
	lease     = 45 * time.Second
	heartbeat = 10 * time.Second
	life      = 30 * time.Second
	redeemMax = 200 * time.Millisecond
	callMax   = time.Second
	renewMax  = 3 * time.Second
	graceMore = 5 * time.Second

	stormy = 240 * time.Second             // faults happen
	healed = heartbeat + lease + graceMore // after which everything has to be right again
	slack  = 2 * time.Second
)

// A fault is a kind of mishap, as a bit of options.faults.
type fault uint

const (
	faultCrash fault = 1 << iota
	faultPause
	faultCut
	faultTwin // a second process of one name while the first runs
	faultStore
	faultNet
	faultShards // the store gets a shard, which the nodes notice one after the other
	faultAll    = 1<<iota - 1
)

// options say how a seed is played; vary draws most of them.
type options struct {
	nodes, subjects int
	limit           uint32
	split           bool // the list of nodes and the counts on different shards
	replicas        int  // of each shard
	wanted          int  // that a renewal waits for
	durable         bool // with no replicas: a restart loses nothing
	available       bool
	authority       bool // nodes spend their own tickets
	faults          fault
	pace            time.Duration // between two mishaps at most
	without         guard
	trace           bool
}

// An event is something that happens at a moment, to a process (which must be alive, and not paused) or to nobody.
type event struct {
	at   time.Duration
	prio int8
	n    uint64
	p    *proc
	f    func()
}

func (e *event) before(o *event) bool {
	switch {
	case e.at != o.at:
		return e.at < o.at
	case e.prio != o.prio:
		return e.prio < o.prio
	}
	return e.n < o.n
}

// A world is one seed being played. Everything in it follows from the seed.
type world struct {
	options
	rnd   *rand.Rand
	src   *rand.PCG
	queue []event // a heap
	n     uint64
	now   time.Duration
	ids   int
	steps int

	groups []*group // shards: the first keeps the list of nodes
	top    *ticket.Topology
	minter *ticket.Minter
	users  []ticket.Subject
	procs  []*proc // the latest of each name
	all    []*proc
	pool   *pool

	badNet time.Duration // until when the network is worse
	calm   bool

	fates    map[ticket.Hash]fate // of the tickets
	failures []string             // the first is what counts
	stat     [stats]int
	lines    []string
}

// A fate is what happened to a ticket.
type fate struct {
	until  time.Time // by the clock of the server that has it
	asked  bool      // a redeem of it was executed there
	opened int       // sockets, ever
}

const (
	statIssued = iota
	statClosed
	statOpened
	statRefused
	statDoubt
	statFailover
	statLost
	statOverdue
	stats
)

var statNames = [stats]string{"tickets", "issue closed", "sockets", "refused", "doubts", "histories", "lives lost", "overdue"}

// Read is the world's random source as an io.Reader.
func (w *world) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(w.src.Uint64())
	}
	return len(b), nil
}

func (w *world) id() int { w.ids++; return w.ids }

func (w *world) say(format string, args ...any) {
	if w.trace {
		w.lines = append(w.lines, fmt.Sprintf("%9.3f  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// fail notes a broken invariant: the seed ends.
func (w *world) fail(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
	w.say("BROKEN %s", w.failures[len(w.failures)-1])
}

func (w *world) chance(p float64) bool { return w.rnd.Float64() < p }

// below is a random duration in [0, d).
func (w *world) below(d time.Duration) time.Duration { return time.Duration(w.rnd.Int64N(int64(d))) }

// long is short or long.
func (w *world) long() time.Duration {
	if w.chance(.5) {
		return w.below(3 * time.Second)
	}
	return w.below(2 * lease)
}

// at has f called after d.
func (w *world) at(d time.Duration, p *proc, prio int8, f func()) {
	w.n++
	w.push(event{w.now + d, prio, w.n, p, f})
}

func (w *world) push(e event) {
	q := append(w.queue, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !q[i].before(&q[up]) {
			break
		}
		q[i], q[up] = q[up], q[i]
		i = up
	}
	w.queue = q
}

func (w *world) pop() event {
	q := w.queue
	e, last := q[0], len(q)-1
	q[0], q[last] = q[last], event{}
	q = q[:last]
	for i := 0; ; {
		next := 2*i + 1
		if next >= last {
			break
		}
		if next+1 < last && q[next+1].before(&q[next]) {
			next++
		}
		if !q[next].before(&q[i]) {
			break
		}
		q[i], q[next] = q[next], q[i]
		i = next
	}
	w.queue = q
	return e
}

// run plays until a moment, or until an invariant breaks.
func (w *world) run(until time.Duration) {
	for len(w.failures) == 0 && len(w.queue) > 0 && w.queue[0].at <= until {
		e := w.pop()
		w.now = e.at
		if e.p != nil {
			if !e.p.alive {
				continue
			}
			if e.p.paused > w.now {
				e.at = e.p.paused
				w.push(e)
				continue
			}
		}
		w.steps++
		e.f()
	}
	w.now = max(w.now, until)
}

// A machineClock is one host's: it starts somewhere and runs a little fast or slow.
type machineClock struct {
	w     *world
	rate  float64
	start mono.Time
	wall  time.Duration // by how much the wall clock has been stepped
}

var epoch = time.Unix(1_800_000_000, 0)

func (c *machineClock) Now() mono.Time {
	return c.start + mono.Time(float64(c.w.now)*c.rate)
}

func (c *machineClock) Wall() time.Time { return epoch.Add(c.w.now + c.wall) }

// in is after how much true time the clock shows t.
func (c *machineClock) in(t mono.Time) time.Duration {
	return max(0, time.Duration(float64(min(t.Sub(c.Now()), time.Hour))/c.rate)+1) // nothing may be due, ever
}

// guardsOf are those of the machine.
func (w *world) guardsOf() core.Guard { return machineGuards(w.without) }

// left tells whether g is left out.
func (w *world) left(g guard) bool { return w.without&g != 0 }
