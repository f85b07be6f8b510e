package engine

import (
	"maps"
	"sync"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
	"ticketgate/internal/stat"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// stats count one loop's doings. The counters have one writer, the loop; what is rare and has many labels lies in maps
// under a lock.
type stats struct {
	streams []streamStats         // by stream index
	limits  [][]limiter.Decisions // by plan and limit index
	slots   []slotStats           // by plan index
	results [ticket.RedeemUnsent + 1]stat.Counter
	took    [ticket.RedeemUnsent + 1]stat.Histogram // by result: from the first of a batch to its answer

	tickets [len(ticketRefusals)]stat.Counter

	age    stat.Histogram // of tickets whose socket opened
	panics stat.Counter   // in Stream.Gone; the reactor counts those in its callbacks

	mu       sync.Mutex
	rejected map[string]uint64
	ended    map[Ended]uint64
}

// slotStats are the slots of one plan that open and joining sockets of the loop have taken and given back.
type slotStats struct{ taken, given stat.Counter }

type streamStats struct {
	openedTotal, closedTotal, slowTotal stat.Counter
	cutTotal, trimTotal, stallTotal     stat.Counter
	messages, bytes                     [2]stat.Counter // by limiter.Direction
	lasted                              stat.Histogram
}

// Ended is how sockets end: the labels of connections_closed_total.
type Ended struct {
	Stream string
	Code   frame.Code
	By     By
}

func newStats(p *Policy) *stats {
	s := &stats{rejected: map[string]uint64{}, ended: map[Ended]uint64{}}
	s.streams = make([]streamStats, len(p.streams))
	s.slots = make([]slotStats, len(p.plans))
	s.limits = make([][]limiter.Decisions, len(p.plans))
	for i, plan := range p.plans {
		s.limits[i] = make([]limiter.Decisions, len(plan.Limits()))
	}
	return s
}

func (s *stats) opened(stream uint16) { s.streams[stream].openedTotal.Add(1) }

func (s *stats) slow(stream uint16) { s.streams[stream].slowTotal.Add(1) }

func (s *stats) trimmed(stream uint16) { s.streams[stream].trimTotal.Add(1) }

func (s *stats) stalled(stream uint16) { s.streams[stream].stallTotal.Add(1) }

func (s *stats) cut(stream uint16) { s.streams[stream].cutTotal.Add(1) }

func (t *streamStats) count(d limiter.Direction, first bool, n int64) {
	if first {
		t.messages[d].Add(1)
	}
	t.bytes[d].Add(uint64(n))
}

// add counts messages with bytes in all.
func (t *streamStats) add(d limiter.Direction, messages, bytes uint64) {
	t.messages[d].Add(messages)
	t.bytes[d].Add(bytes)
}

func (s *stats) closed(stream string, i uint16, how End, lasted time.Duration) {
	s.streams[i].closedTotal.Add(1)
	s.streams[i].lasted.Observe(lasted)
	s.mu.Lock()
	s.ended[Ended{stream, how.Code, how.By}]++
	s.mu.Unlock()
}

func (s *stats) refused(reason string) {
	s.mu.Lock()
	s.rejected[reason]++
	s.mu.Unlock()
}

func (s *stats) redeem(r ticket.RedeemResult, took time.Duration) {
	s.results[r].Add(1)
	s.took[r].Observe(took)
}

// Stats is what the engine has counted since its start.
type Stats struct {
	Reactor  reactor.Stats
	Streams  []StreamStats
	Limits   []LimitStats
	Slots    []SlotStats
	Rejected map[string]uint64 // by Refusal.Reason
	Ended    map[Ended]uint64
	Redeemed map[ticket.RedeemResult]uint64
	Took     map[ticket.RedeemResult]*stat.Snapshot // of redemptions
	Age      stat.Snapshot                          // of tickets when their socket opened
	TLS      *secure.Stats                          // nil: the gate has none
	Live     int64                                  // accepted sockets
	Clients  int64                                  // those of them that showed a good ticket: what Options.MaxSessions bounds
	Held     int64                                  // bytes of incomplete messages
}

// StreamStats are one stream's counts, over all loops.
type StreamStats struct {
	Name         string
	Open         int64
	Opened, Slow uint64
	Cut          uint64    // slow ones that were ended for want of memory
	Stalled      uint64    // sockets that took nothing for too long, or began to wait when the node's budget was used up
	Trimmed      uint64    // times that messages were left out for a slow one
	Messages     [2]uint64 // by limiter.Direction
	Bytes        [2]uint64
	Lasted       stat.Snapshot
}

// SlotStats are the slots that one plan's sockets hold, over all loops.
type SlotStats struct {
	Plan string
	Held int64
}

// LimitStats are one limit's decisions, over all loops.
type LimitStats struct {
	Plan, Limit         string
	Allow, Refuse, Soft uint64
	Degraded            uint64 // allowed by store_down
}

// Batched reports whether many sockets are read and written in one system call, and if not, why; nil: Options.Single.
func (e *Engine) Batched() (bool, error) { return e.r.Batched() }

// Stats adds up the loops' counts; any goroutine may call it.
func (e *Engine) Stats() *Stats {
	t := &Stats{Rejected: map[string]uint64{}, Ended: map[Ended]uint64{}, Redeemed: map[ticket.RedeemResult]uint64{}, Took: map[ticket.RedeemResult]*stat.Snapshot{},
		Live: e.live.Load(), Clients: e.clients.Load(), Held: e.held.Load()}
	e.r.Stats(&t.Reactor)
	if e.secure != nil {
		t.TLS = new(secure.Stats)
		e.secure.Stats(t.TLS)
	}
	p := e.policy.Load()
	for i := range p.streams {
		t.Streams = append(t.Streams, e.streamStats(i, p.streams[i].Name))
	}
	for i, plan := range p.plans {
		t.Slots = append(t.Slots, e.slotStats(i, plan.Name))
		for j, l := range plan.Limits() {
			t.Limits = append(t.Limits, e.limitStats(i, j, plan.Name, l.Name))
		}
	}
	for _, w := range e.workers {
		w.stats.add(t)
	}
	return t
}

func (e *Engine) streamStats(i int, name string) StreamStats {
	t := StreamStats{Name: name}
	for _, w := range e.workers {
		s := &w.stats.streams[i]
		opened := s.openedTotal.Load()
		t.Opened += opened
		t.Open += int64(opened - s.closedTotal.Load())
		t.Slow += s.slowTotal.Load()
		t.Cut += s.cutTotal.Load()
		t.Stalled += s.stallTotal.Load()
		t.Trimmed += s.trimTotal.Load()
		for d := range t.Messages {
			t.Messages[d] += s.messages[d].Load()
			t.Bytes[d] += s.bytes[d].Load()
		}
		s.lasted.Snapshot(&t.Lasted)
	}
	return t
}

func (e *Engine) slotStats(plan int, name string) SlotStats {
	t := SlotStats{Plan: name}
	for _, w := range e.workers {
		s := &w.stats.slots[plan]
		given := s.given.Load() // first: what is given was taken before
		t.Held += int64(s.taken.Load() - given)
	}
	return t
}

func (e *Engine) limitStats(plan, limit int, planName, limitName string) LimitStats {
	t := LimitStats{Plan: planName, Limit: limitName}
	for _, w := range e.workers {
		d := &w.stats.limits[plan][limit]
		t.Allow += d.Allow.Load()
		t.Refuse += d.Refuse.Load()
		t.Soft += d.Soft.Load()
		t.Degraded += d.Degraded.Load()
	}
	return t
}

func (s *stats) add(t *Stats) {
	for r := range s.results {
		k := ticket.RedeemResult(r)
		t.Redeemed[k] += s.results[r].Load()
		if t.Took[k] == nil {
			t.Took[k] = new(stat.Snapshot)
		}
		s.took[r].Snapshot(t.Took[k])
	}
	s.age.Snapshot(&t.Age)
	t.Reactor.Panics += s.panics.Load()
	for i, r := range ticketRefusals {
		if n := s.tickets[i].Load(); n > 0 {
			t.Rejected[r.Reason] += n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range maps.All(s.rejected) {
		t.Rejected[k] += v
	}
	for k, v := range maps.All(s.ended) {
		t.Ended[k] += v
	}
}
