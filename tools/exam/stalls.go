package main

import (
	"context"
	"sync"
	"time"
)

// stalls are the times in which this process did not run although it wanted to. Crowds only get what nobody else needs of the
// processors, so what they notice late need not have been late.
type stalls struct {
	mu  sync.Mutex
	all []span
}

type span struct{ from, to time.Time }

const (
	stallLook = 20 * time.Millisecond
	stallFrom = 50 * time.Millisecond // a look that comes so late is a stall
)

// watch looks until ctx ends.
func (s *stalls) watch(ctx context.Context) {
	for last := time.Now(); rest(ctx, stallLook) == nil; last = time.Now() {
		s.saw(last.Add(stallLook), time.Now())
	}
}

// saw notes that what was due at one moment came at another.
func (s *stalls) saw(due, came time.Time) {
	if came.Sub(due) < stallFrom {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, span{due, came})
}

// within is how much of the time between from and to was a stall. One that goes on is not known yet.
func (s *stalls) within(from, to time.Time) (d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0 && s.all[i].to.After(from); i-- {
		a := s.all[i]
		if a.from.Before(from) {
			a.from = from
		}
		if a.to.After(to) {
			a.to = to
		}
		d += max(0, a.to.Sub(a.from))
	}
	return d
}

// longest is the longest one.
func (s *stalls) longest() (d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.all {
		d = max(d, a.to.Sub(a.from))
	}
	return d
}
