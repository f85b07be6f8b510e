package handshake

import (
	"sync"
	"time"

	"ticketgate/internal/stat"
)

// Stats are the front end's figures since it began. Stats(*Stats) adds to them, so the maps may hold others' already.
type Stats struct {
	Issued       map[Issued]uint64   // tickets
	Rejected     map[string]uint64   // refusals by reason
	Decisions    map[Decision]uint64 // of the limits that are asked at issue
	IssueOK      stat.Snapshot       // time from a request for a ticket to its answer
	IssueRefused stat.Snapshot       // the same where mint or store said no
	AcceptErrors uint64
	Connections  int // open now
}

// Issued is what tickets are counted by.
type Issued struct{ Stream, Plan string }

// Decision is what a limit said: "allow", "refuse" or "soft".
type Decision struct{ Limit, Plan, Decision string }

// counters count what has several labels. Requests are few enough for one lock.
type counters struct {
	ok, refused stat.Histogram

	mu        sync.Mutex
	issued    map[Issued]uint64
	decisions map[Decision]uint64
}

func (c *counters) issue(stream, plan string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.issued[Issued{stream, plan}]++
}

func (c *counters) decide(plan, limit, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decisions[Decision{limit, plan, what}]++
}

func (c *counters) took(ok bool, d time.Duration) {
	if ok {
		c.ok.Observe(d)
	} else {
		c.refused.Observe(d)
	}
}

// Stats adds the server's figures to t. Any goroutine may call it.
func (s *Server) Stats(t *Stats) {
	if t.Issued == nil {
		t.Issued, t.Rejected, t.Decisions = map[Issued]uint64{}, map[string]uint64{}, map[Decision]uint64{}
	}
	for i := none + 1; i < reasons; i++ {
		t.Rejected[refusals[i].label] += s.rejected[i].Load()
	}
	s.stats.ok.Snapshot(&t.IssueOK)
	s.stats.refused.Snapshot(&t.IssueRefused)
	t.AcceptErrors += s.acceptErrors.Load()
	s.mu.Lock()
	t.Connections += len(s.conns)
	s.mu.Unlock()
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	for k, n := range s.stats.issued {
		t.Issued[k] += n
	}
	for k, n := range s.stats.decisions {
		t.Decisions[k] += n
	}
}
