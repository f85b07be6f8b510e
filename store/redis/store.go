package redis

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

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
	c.int(max(1, r.Life.Milliseconds()))
	c.incarnations(r.Dead)
	c.end()
	answer, err := s.one(ctx, c)
	if err != nil {
		return ticket.IssueAnswer{}, err
	}
	parts, err := answer.AsIntSlice()
	if err != nil || len(parts) != 2 {
		return ticket.IssueAnswer{}, errAnswer
	}
	return ticket.IssueAnswer{Result: ticket.IssueResult(parts[0]), Used: uint32(parts[1])}, nil
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
	m := &r.msg
	if n, err := m.AsInt64(); m.IsInt64() && err == nil {
		return ticket.RedeemAnswer{Result: ticket.RedeemResult(n)}
	}
	grant, err := m.AsBytes()
	if err != nil {
		return ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
	}
	return ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: grant}
}

// Assert implements ticket.Store.
func (s *Store) Assert(ctx context.Context, hs []ticket.Held) error {
	start := s.clock.Now()
	var err error
	for len(hs) > 0 && err == nil {
		n := min(len(hs), laneMax)
		err = s.assert(ctx, hs[:n])
		hs = hs[n:]
	}
	s.stats.observe(opAssert, labelOK, err, s.clock.Now().Sub(start))
	return err
}

func (s *Store) assert(ctx context.Context, hs []ticket.Held) error {
	c := newCommands(s.prefix, len(hs))
	for i := range hs {
		c.begin(scriptAssert)
		c.subjectKey(hs[i].Subject, 'h')
		c.endKeys()
		c.held(&hs[i])
		c.end()
	}
	for _, r := range s.do(ctx, c.build()) {
		if r.err != nil {
			return r.err
		}
	}
	return nil
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

// Renew implements ticket.Store.
func (s *Store) Renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	start := s.clock.Now()
	v, err := s.renew(ctx, r)
	s.stats.observe(opRenew, labelOK, err, s.clock.Now().Sub(start))
	return v, err
}

func (s *Store) renew(ctx context.Context, r *ticket.RenewRequest) (ticket.View, error) {
	c := newCommands(s.prefix, 1)
	c.begin(scriptRenew)
	c.nodesKey("leases")
	c.nodesKey("dead")
	c.nodesKey("names")
	c.endKeys()
	c.hex(uint64(r.Incarnation), 16)
	c.text(r.Name)
	c.int(r.Lease.Milliseconds())
	c.incarnations(r.Former)
	c.end()
	m, _, err := s.renewal(ctx, c.build()[0], 0)
	if err != nil {
		return ticket.View{}, err
	}
	return parseView(&m)
}

// errAnswer is an answer that our own script does not give: something else wrote under our keys or scripts.
var errAnswer = fmt.Errorf("%w: unexpected answer", ticket.ErrUnavailable)

// parseView reads what renew.lua answers.
func parseView(m *rueidis.RedisMessage) (ticket.View, error) {
	parts, err := m.ToArray()
	if err != nil {
		return ticket.View{}, errAnswer
	}
	if len(parts) == 0 {
		return ticket.View{}, ticket.ErrLeaseLost
	}
	if len(parts) != 4 {
		return ticket.View{}, errAnswer
	}
	epoch, err1 := number(&parts[0], 16, 32)
	ms, err2 := number(&parts[1], 10, 63)
	alive, err3 := incarnations(&parts[2])
	dead, err4 := incarnations(&parts[3])
	if errors.Join(err1, err2, err3, err4) != nil {
		return ticket.View{}, errAnswer
	}
	return ticket.View{Epoch: ticket.Epoch(epoch), Time: time.UnixMilli(int64(ms)), Alive: alive, Dead: dead}, nil
}

func number(m *rueidis.RedisMessage, base, bits int) (uint64, error) {
	text, err := m.ToString()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, base, bits)
}

func incarnations(m *rueidis.RedisMessage) ([]ticket.Incarnation, error) {
	items, err := m.ToArray()
	if err != nil {
		return nil, err
	}
	out := make([]ticket.Incarnation, len(items))
	for i := range items {
		n, err := number(&items[i], 16, 64)
		if err != nil {
			return nil, err
		}
		out[i] = ticket.Incarnation(n)
	}
	return out, nil
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
