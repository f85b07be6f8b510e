package redis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

// Ask implements ticket.Store.
func (s *Store) Ask(ctx context.Context, shard ticket.Shard) (ticket.ShardEpoch, error) {
	start := s.clock.Now()
	seen, err := s.ask(ctx, shard)
	s.stats.observe(opAsk, labelOK, err, s.clock.Now().Sub(start))
	return seen, err
}

func (s *Store) ask(ctx context.Context, shard ticket.Shard) (ticket.ShardEpoch, error) {
	m, err := s.shardDo(ctx, shard, command{script: scriptAsk})
	if err != nil {
		return ticket.ShardEpoch{}, err
	}
	text, err := m.ToString()
	seen, ok := epochs(text)
	if err != nil || !ok || len(text) != epochsLen {
		return ticket.ShardEpoch{}, errAnswer
	}
	seen.Shard = shard
	return seen, nil
}

// Issue implements ticket.Store.
func (s *Store) Issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	start := s.clock.Now()
	answer, err := s.issue(ctx, r)
	s.stats.observe(opIssue, issueLabel(answer.Result), err, s.clock.Now().Sub(start))
	return answer, err
}

func (s *Store) issue(ctx context.Context, r *ticket.IssueRequest) (ticket.IssueAnswer, error) {
	limit := int64(r.Limit)
	if r.Limit == ticket.NoLimit {
		limit = -1
	}
	c := newCommands(s.prefix, 1)
	c.begin(scriptIssue)
	c.ticketKey(r.Subject, r.Ticket)
	c.subjectKey(r.Subject, 'r')
	c.subjectKey(r.Subject, 'h')
	c.endKeys()
	c.hex(uint64(r.Epoch), 8)
	c.hash(r.Ticket)
	owner := ownerHash(r.Subject, r.Owner)
	c.buf = append(append(c.buf, r.Secret[:]...), owner[:]...)
	c.bytes(r.Grant)
	c.int(limit)
	c.int(int64(r.Outstanding))
	life := max(1, r.Life.Milliseconds())
	c.int(life)
	c.int(max(life, r.Reserve.Milliseconds()))
	c.incarnations(r.Dead)
	c.end()
	answer := &s.do(ctx, c.build())[0]
	if answer.err != nil {
		return ticket.IssueAnswer{}, answer.err
	}
	a, err := issueAnswer(&answer.msg)
	if err == nil {
		a.Seen.Shard = answer.shard
	}
	return a, err
}

// issueAnswer reads what issue.lua answers.
func issueAnswer(m *rueidis.RedisMessage) (ticket.IssueAnswer, error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) < 4 {
		return ticket.IssueAnswer{}, errAnswer
	}
	seen, err1 := seenOf(parts)
	result, err2 := parts[2].AsInt64()
	used, err3 := parts[3].AsInt64()
	a := ticket.IssueAnswer{Result: ticket.IssueResult(result), Used: uint32(used), Seen: seen}
	if errors.Join(err1, err2, err3) != nil {
		return ticket.IssueAnswer{}, errAnswer
	}
	if a.Result != ticket.IssueFull {
		return a, nil
	}
	if len(parts) < 5 {
		return ticket.IssueAnswer{}, errAnswer
	}
	reserved, err1 := parts[4].AsInt64()
	if a.Counted, err2 = incarnations(parts[5:]); errors.Join(err1, err2) != nil {
		return ticket.IssueAnswer{}, errAnswer
	}
	a.Reserved = uint32(reserved)
	return a, nil
}

// ownerHash keeps the place of the grant fixed and names out of Redis. It covers the subject too, which in a revocation
// comes from a public id that anyone can compose.
func ownerHash(u ticket.Subject, owner string) [16]byte {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(u)), owner...))
	return [16]byte(sum[:])
}

// Redeem implements ticket.Store.
func (s *Store) Redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	for len(rs) > laneMax {
		s.redeem(ctx, rs[:laneMax], as[:laneMax])
		rs, as = rs[laneMax:], as[laneMax:]
	}
	if len(rs) > 0 {
		s.redeem(ctx, rs, as)
	}
}

func (s *Store) redeem(ctx context.Context, rs []ticket.RedeemRequest, as []ticket.RedeemAnswer) {
	start := s.clock.Now()
	c := newCommands(s.prefix, len(rs))
	for i := range rs {
		c.redeem(&rs[i])
	}
	replies := s.do(ctx, c.build())
	for i := range as {
		as[i] = redeemAnswer(&replies[i])
	}
	took := s.clock.Now().Sub(start)
	for i := range as {
		s.stats.observe(opRedeem, redeemLabel(as[i].Result), nil, took)
	}
}

func (c *commands) redeem(r *ticket.RedeemRequest) {
	c.begin(scriptRedeem)
	c.ticketKey(r.Held.Subject, r.Ticket)
	c.subjectKey(r.Held.Subject, 'r')
	c.subjectKey(r.Held.Subject, 'h')
	c.endKeys()
	c.hex(uint64(r.Epoch), 8)
	c.hash(r.Ticket)
	c.bytes(r.Secret[:])
	c.held(&r.Held)
	c.end()
}

// lost tells whether a redemption that got no answer may have happened.
func lost(u *unavailable) ticket.RedeemResult {
	if u.sent {
		return ticket.RedeemDoubt
	}
	return ticket.RedeemUnsent
}

func redeemAnswer(r *reply) ticket.RedeemAnswer {
	if r.err != nil {
		return ticket.RedeemAnswer{Result: lost(r.err)}
	}
	text, err := r.msg.ToString()
	result, seen, ok := verdict(text)
	if err != nil || !ok {
		return ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
	}
	seen.Shard = r.shard
	a := ticket.RedeemAnswer{Result: ticket.RedeemResult(result), Seen: seen}
	if a.Result == ticket.RedeemOK {
		a.Grant = []byte(text[verdictLen:])
	}
	return a
}

// Assert implements ticket.Store.
func (s *Store) Assert(ctx context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	for len(rs) > 0 {
		n := min(len(rs), laneMax)
		s.assert(ctx, rs[:n], as[:n])
		rs, as = rs[n:], as[n:]
	}
}

func (s *Store) assert(ctx context.Context, rs []ticket.Assertion, as []ticket.AssertAnswer) {
	start := s.clock.Now()
	c := newCommands(s.prefix, len(rs))
	for i := range rs {
		c.assert(&rs[i])
	}
	replies := s.do(ctx, c.build())
	var first error
	l := labelOK
	for i := range replies {
		answer, err := assertAnswer(&replies[i])
		if as[i] = answer; !answer.OK {
			l, first = labelRefused, cmp.Or(first, err)
		}
	}
	s.stats.observe(opAssert, l, first, s.clock.Now().Sub(start))
}

func (c *commands) assert(r *ticket.Assertion) {
	c.begin(scriptAssert)
	c.subjectKey(r.Subject, 'h')
	c.subjectKey(r.Subject, 'r')
	for _, h := range r.Spent {
		c.ticketKey(r.Subject, h)
	}
	c.endKeys()
	c.hex(uint64(r.Epoch), 8)
	c.held(&r.Held)
	for _, h := range r.Spent {
		c.hash(h)
	}
	c.end()
}

// assertAnswer reads what assert.lua answers.
func assertAnswer(r *reply) (ticket.AssertAnswer, error) {
	if r.err != nil {
		return ticket.AssertAnswer{}, r.err
	}
	text, err := r.msg.ToString()
	result, seen, ok := verdict(text)
	if err != nil || !ok {
		return ticket.AssertAnswer{}, errAnswer
	}
	seen.Shard = r.shard
	return ticket.AssertAnswer{OK: result == 1, Seen: seen}, nil
}

// Revoke implements ticket.Store.
func (s *Store) Revoke(ctx context.Context, r *ticket.RevokeRequest) (bool, error) {
	start := s.clock.Now()
	owner := ownerHash(r.Subject, r.Owner)
	c := newCommands(s.prefix, 1)
	c.begin(scriptRevoke)
	c.ticketKey(r.Subject, r.Ticket)
	c.subjectKey(r.Subject, 'r')
	c.endKeys()
	c.hash(r.Ticket)
	c.bytes(owner[:])
	c.end()
	n, err := s.oneInt(ctx, c)
	s.stats.observe(opRevoke, labelOK, err, s.clock.Now().Sub(start))
	return n == 1, err
}

// Used implements ticket.Store.
func (s *Store) Used(ctx context.Context, u ticket.Subject, dead []ticket.Incarnation) (uint32, error) {
	start := s.clock.Now()
	c := newCommands(s.prefix, 1)
	c.begin(scriptUsed)
	c.subjectKey(u, 'r')
	c.subjectKey(u, 'h')
	c.endKeys()
	c.incarnations(dead)
	c.end()
	n, err := s.oneInt(ctx, c)
	s.stats.observe(opUsed, labelOK, err, s.clock.Now().Sub(start))
	return uint32(n), err
}

func (s *Store) oneInt(ctx context.Context, c *commands) (int64, error) {
	m, err := s.one(ctx, c)
	if err != nil {
		return 0, err
	}
	n, err := m.AsInt64()
	if err != nil {
		return 0, errAnswer
	}
	return n, nil
}
