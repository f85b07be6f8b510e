package redis

import (
	"context"
	_ "embed" // the script
	"errors"
	"time"

	"ticketgate/limiter"
)

// Buckets that nodes share are strings, each under the tag of its own subject:
//
//	<prefix>{tag}:b:<bucket>   b:tokens:us, PX = until it is full    f:start in us:used, PX = until the window ends and an hour
//
// Nothing of an epoch is in them: a bucket that a failover brings back a little too full admits what was lost with it, once.

//go:embed bank.lua
var bankLua string

// Out of memory it refuses, as issue does: then store_down says what becomes of the limits.
var scriptBank = newScript("#!lua", clockLua, bankLua)

// bankFields are what bank.lua answers for each bucket.
const bankFields = 5

var _ limiter.Bank = (*Store)(nil)

// Lease implements limiter.Bank: one script for all buckets of a tag, and one round trip for 256 of those.
func (s *Store) Lease(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	start := s.clock.Now()
	err := s.leases(ctx, asks, answers)
	s.stats.observe(opLease, labelOK, err, s.clock.Now().Sub(start))
	return err
}

func (s *Store) leases(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	for len(asks) > 0 {
		n := min(len(asks), laneMax)
		if err := s.lease(ctx, asks[:n], answers[:n]); err != nil {
			return err
		}
		asks, answers = asks[n:], answers[n:]
	}
	return nil
}

func (s *Store) lease(ctx context.Context, asks []limiter.Ask, answers []limiter.Grant) error {
	together, tags := map[uint16][]int{}, make([]uint16, 0, len(asks))
	for i := range asks {
		tag := asks[i].Bucket.Tag()
		if together[tag] == nil {
			tags = append(tags, tag)
		}
		together[tag] = append(together[tag], i)
	}
	c := newCommands(s.prefix, len(asks))
	for _, tag := range tags {
		c.begin(scriptBank)
		for _, i := range together[tag] {
			c.subjectKey(asks[i].Bucket, 'b')
		}
		c.endKeys()
		for _, i := range together[tag] {
			c.ask(&asks[i])
		}
		c.end()
	}
	replies := s.do(ctx, c.build())
	var errs []error
	for k, tag := range tags {
		if err := grants(&replies[k], together[tag], answers); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *commands) ask(a *limiter.Ask) {
	t := &a.Terms
	kind, size := "b", int64(t.Burst)
	if t.Fixed {
		kind, size = "f", limiter.WindowOffset(t.Rate.Per)*int64(time.Second/time.Microsecond)
	}
	c.text(kind)
	for _, v := range [...]int64{int64(t.Rate.N), t.Rate.Per.Microseconds(), size, a.Spent, a.Back, a.Window, a.Want} {
		c.int(v)
	}
}

// grants reads what the script of one tag has answered for the asks at the places at.
func grants(r *reply, at []int, answers []limiter.Grant) error {
	if r.err != nil {
		return r.err
	}
	v, err := r.msg.AsIntSlice()
	if err != nil || len(v) != bankFields*len(at) {
		return errAnswer
	}
	for k, i := range at {
		f := v[k*bankFields:]
		answers[i] = limiter.Grant{Given: f[0], Remaining: f[1], Wait: time.Duration(f[2]) * time.Microsecond,
			Window: f[3], Ends: time.Duration(f[4]) * time.Microsecond}
	}
	return nil
}
