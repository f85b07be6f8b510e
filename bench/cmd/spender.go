package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/ticket"
)

// A spender uses a ticket store as handshake and node do, without them. All that the bench knows of ticket.Store is in this file.
//
// Its tickets and clients have numbers, from which their names follow: nothing has to be kept of a million of them.
type spender struct {
	store       ticket.Store
	clients     int // ticket i is client i modulo clients'
	incarnation ticket.Incarnation
	epoch       ticket.Epoch
	grant       []byte
	number      atomic.Uint64 // of the last reading or renewal
	acked       uint64        // of the last renewal that had an answer
}

const (
	spenderLife  = time.Hour       // longer than any scenario: no ticket lapses under it
	spenderLease = 2 * time.Hour   // nor its lease
	spenderWait  = 5 * time.Second // for one call
	spenderEnter = 20 * time.Second
	spenderAgain = 20 * time.Millisecond
)

// newSpender enters a node in s.
func newSpender(ctx context.Context, s ticket.Store, clients int) (*spender, error) {
	var b [8]byte
	rand.Read(b[:]) // it never fails
	p := &spender{store: s, clients: clients, incarnation: ticket.Incarnation(max(1, binary.BigEndian.Uint64(b[:])))}
	p.grant = ticket.AppendClaims(nil, &ticket.Claims{
		ID: "tkt_01HZX3V7Q2W8N4K6M9T5B1C0D2", Client: "user-1234567", Key: "key_01HZX3V7Q2", Product: "load", Plan: "load", Stream: "load",
		IssuedAt: time.Now(), SessionEnd: time.Now().Add(time.Hour), Limit: 100_000,
	})
	return p, p.enter(ctx)
}

// enter renews until the store answers: it may still be connecting.
func (p *spender) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, spenderEnter)
	defer cancel()
	again := time.NewTicker(spenderAgain)
	defer again.Stop()
	for {
		err := p.renew(ctx)
		if !errors.Is(err, ticket.ErrUnavailable) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// renew prolongs the node's lease, and learns the epoch.
func (p *spender) renew(ctx context.Context) error {
	r := &ticket.RenewRequest{Incarnation: p.incarnation, Name: "bench", Lease: spenderLease, Number: p.number.Add(1), Acked: p.acked,
		Enter: p.acked == 0}
	v, err := p.store.Renew(ctx, r)
	if err == nil {
		p.epoch, p.acked = v.Seen.Epoch, r.Number
	}
	return err
}

// mix spreads n over 64 bits (splitmix64: S. Vigna).
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// subject is client i.
func subject(i int) ticket.Subject { return ticket.Subject(mix(uint64(i))) }

// paper is what the store gets to know of ticket i.
func paper(i int) (h ticket.Hash, s ticket.SecretHash) {
	n := mix(^uint64(i))
	binary.LittleEndian.PutUint64(h[:], n)
	binary.LittleEndian.PutUint64(h[8:], mix(n))
	copy(s[:], h[:])
	copy(s[16:], h[:])
	return h, s
}

// errRefusedBy is a store that does not do what is measured.
var errRefusedBy = errors.New("the store refuses")

// issue puts ticket i.
func (p *spender) issue(ctx context.Context, i int) error {
	h, s := paper(i)
	a, err := p.store.Issue(ctx, &ticket.IssueRequest{
		Ticket: h, Secret: s, Subject: subject(i % p.clients), Limit: ticket.NoLimit - 1, Outstanding: 1 << 20, Life: spenderLife, Owner: "key_01HZX3V7Q2", Grant: p.grant, Epoch: p.epoch,
	})
	if err == nil && a.Result != ticket.IssueOK {
		err = fmt.Errorf("%w: issue: result %d", errRefusedBy, a.Result)
	}
	return err
}

// A purse is the space for the requests and the answers of one caller.
type purse struct {
	reqs    []ticket.RedeemRequest
	answers []ticket.RedeemAnswer
}

// redeem spends n tickets from number i on, in one call.
func (p *spender) redeem(ctx context.Context, b *purse, i, n int) error {
	b.reqs, b.answers = b.reqs[:0], append(b.answers[:0], make([]ticket.RedeemAnswer, n)...)
	for k := i; k < i+n; k++ {
		h, s := paper(k)
		b.reqs = append(b.reqs, ticket.RedeemRequest{
			Ticket: h, Secret: s, Epoch: p.epoch,
			Held: ticket.Held{Subject: subject(k % p.clients), Incarnation: p.incarnation, Count: 1, Number: p.number.Add(1)},
		})
	}
	p.store.Redeem(ctx, b.reqs, b.answers)
	for _, a := range b.answers {
		if a.Result != ticket.RedeemOK {
			return fmt.Errorf("%w: redeem: result %d", errRefusedBy, a.Result)
		}
	}
	return nil
}

// issueAll puts n tickets from number i on, as 64 callers at once.
func (p *spender) issueAll(ctx context.Context, i, n int) error {
	return together(ctx, lanes, i, n, 1, func(ctx context.Context, at, _ int) error { return p.issue(ctx, at) })
}

// redeemAll spends them as so many callers, each some in a call.
func (p *spender) redeemAll(ctx context.Context, callers, i, n, each int) error {
	purses := sync.Pool{New: func() any { return new(purse) }}
	return together(ctx, callers, i, n, each, func(ctx context.Context, at, some int) error {
		b := purses.Get().(*purse)
		defer purses.Put(b)
		return p.redeem(ctx, b, at, some)
	})
}

// together has so many callers do n things from number i on, each of them some at once, until one fails. It runs on goroutines of its
// own: main is bound to its thread, and would have to be woken through the kernel by each answer.
func together(ctx context.Context, callers, i, n, each int, do func(ctx context.Context, at, some int) error) error {
	var work sync.WaitGroup
	next, end := int64(i), i+n
	errs := make([]error, callers)
	var failed atomic.Bool
	for c := range callers {
		work.Go(func() {
			for !failed.Load() {
				at := int(atomic.AddInt64(&next, int64(each))) - each
				if at >= end {
					return
				}
				bounded, cancel := context.WithTimeout(ctx, spenderWait)
				err := do(bounded, at, min(each, end-at))
				if cancel(); err != nil {
					errs[c] = err
					failed.Store(true)
				}
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}
