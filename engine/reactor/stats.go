package reactor

import (
	"math"
	"sync/atomic"

	"ticketgate/internal/stat"
)

// counters are one loop's. The loop adds, anybody may read; no two loops share a line.
type counters struct {
	conns, queued, offloaded         atomic.Int64
	accepted, dialed, shed           atomic.Uint64
	closed                           [causes]atomic.Uint64
	refused                          [refusals]atomic.Uint64
	reads, bytesIn, writes, bytesOut atomic.Uint64
	blocked, slow                    atomic.Uint64
	timers, work, wakes, panics      atomic.Uint64
	_                                [64]byte
}

func (c *counters) read(n int) {
	c.reads.Add(1)
	c.bytesIn.Add(uint64(n))
}

func (c *counters) wrote(n int) {
	if n > 0 {
		c.writes.Add(1)
		c.bytesOut.Add(uint64(n))
	}
}

// Stats are sums over all loops since New.
type Stats struct {
	Conns    int64            // sockets now: accepted and dialed, until Closed has returned
	PerLoop  []LoopStats      // reused if it is long enough
	Batched  bool             // see Reactor.Batched
	Queued   int64            // bytes of buffers behind what sockets have waiting to be sent, now
	Offload  int64            // sockets now whose TLS is the kernel's
	Accepted uint64           // connections accepted
	Dialed   uint64           // dials begun
	Shed     uint64           // connections accepted and closed at once for want of descriptors
	Closed   [causes]uint64   // by Cause
	Refused  [refusals]uint64 // accepts that failed, by Refused
	Reads    uint64           // recv(2) that brought bytes
	BytesIn  uint64
	Writes   uint64 // send(2) and sendmsg(2) that took bytes
	BytesOut uint64
	Blocked  uint64 // flushes that left bytes queued
	Slow     uint64 // writes refused with ErrSlow
	Timers   uint64 // Timer callbacks
	Work     uint64 // units brought by Post
	Wakes    uint64 // rounds made for Post and for work put off
	Panics   uint64 // recovered
}

// Conns is how many sockets there are now, accepted and dialed, of at most MaxConns. Any goroutine may call it.
func (r *Reactor) Conns() int64 { return r.conns.Load() }

// LoopStats are one loop's.
type LoopStats struct {
	Conns  int64         // sockets now
	Queued int64         // bytes of buffers behind what its sockets have waiting to be sent, now
	Busy   float64       // share of its time that it served sockets in the last second, 0 to 1
	Stall  stat.Snapshot // how long what became ready had to wait, as seen at its timers
}

// Stats fills s. Any goroutine; each number is exact, though not all are of the same moment.
func (r *Reactor) Stats(s *Stats) {
	*s = Stats{Queued: r.queued.Load(), PerLoop: s.PerLoop[:0]}
	s.Batched, _ = r.Batched()
	for i, l := range r.loops {
		c := &l.stat
		s.PerLoop = append(s.PerLoop, LoopStats{
			Conns: c.conns.Load(), Queued: c.queued.Load(), Busy: math.Float64frombits(l.health.busy.Load()),
		})
		l.health.stall.Snapshot(&s.PerLoop[i].Stall)
		s.Conns += c.conns.Load()
		s.Offload += c.offloaded.Load()
		for k := range c.closed {
			s.Closed[k] += c.closed[k].Load()
		}
		for k := range c.refused {
			s.Refused[k] += c.refused[k].Load()
		}
		for _, sum := range [...]struct {
			to   *uint64
			from *atomic.Uint64
		}{
			{&s.Accepted, &c.accepted}, {&s.Dialed, &c.dialed}, {&s.Shed, &c.shed},
			{&s.Reads, &c.reads}, {&s.BytesIn, &c.bytesIn}, {&s.Writes, &c.writes}, {&s.BytesOut, &c.bytesOut},
			{&s.Blocked, &c.blocked}, {&s.Slow, &c.slow},
			{&s.Timers, &c.timers}, {&s.Work, &c.work}, {&s.Wakes, &c.wakes}, {&s.Panics, &c.panics},
		} {
			*sum.to += sum.from.Load()
		}
	}
}
