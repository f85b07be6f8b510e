package node

import (
	"crypto/subtle"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/node/core"
	"ticketgate/store/unused"
	"ticketgate/ticket"
)

// Authority node: who issues a ticket is the only one who may spend it, and needs nobody for that.
//
//	Issue      the store's script, as ever, but the reservation outlives the ticket by a lease; then the grant is put here
//	RedeemNow  takes it out, on the loop that asks; the count is asserted behind it, by core.Spend
//	expiry, Revoke, a wrong secret    core.Settle: the reservation goes before its time
//
// The tickets of a life go with it: each stripe notices by itself that another has begun.
type own struct {
	room    atomic.Int64 // tickets that may still be put
	stripes [ownStripes]ownStripe
}

const (
	ownStripes = 16
	ownTickets = 1 << 21 // unused tickets, of about 230 bytes each

	lapseEvery = 50 * time.Millisecond // the keeper does not wake for each ticket

	// ownDrift is by how much the clock of the store may be fast, as core has it: a ticket ends here before it does there.
	ownDrift = 500
)

// An ownStripe is a 16th of the tickets. All its methods want mu held.
type ownStripe struct {
	mu      sync.Mutex
	life    uint32 // whose tickets they are; 0: nobody's
	tickets unused.Table
	bait    uint32 // a ticket that stands in for one that is not there; 0: it has been spent
	live    int64  // tickets but the bait
	_       [32]byte
}

var (
	errNoRoom    = fmt.Errorf("%w: no room for another ticket", ticket.ErrUnavailable)
	errOtherLife = fmt.Errorf("%w: minted in another life of this node: %w", ErrIssueClosed, ticket.ErrUnavailable)
)

func newOwn() *own {
	o := new(own)
	o.room.Store(ownTickets)
	return o
}

// of returns the stripe of h, locked, if life is the newest it has heard of; else nil. h is keyed: nobody outside aims it, and the
// table's index takes other bits.
func (o *own) of(h *ticket.Hash, life uint32) *ownStripe {
	t := &o.stripes[h[len(h)-1]%ownStripes]
	t.mu.Lock()
	switch {
	case t.life == life && life != 0:
	case t.life < life:
		o.room.Add(t.live)
		t.life, t.tickets, t.bait, t.live = life, unused.New(), 0, 0
		t.setBait()
	default:
		t.mu.Unlock()
		return nil
	}
	return t
}

// setBait puts the bait back. There is room, for nothing else has been put since it went.
func (t *ownStripe) setBait() {
	if t.bait == 0 {
		t.bait = t.tickets.Put(&unused.Ticket{Expiry: math.MaxInt64}, nil)
	}
}

// subject is whose ticket x is: it has no account here, and no reservation that has to be remembered, so the fields are free for that.
func subject(x *unused.Ticket) ticket.Subject {
	return ticket.Subject(x.More)<<32 | ticket.Subject(x.Account)
}

// find returns the ticket h of u if it is good at now; 0: there is none.
func (t *ownStripe) find(h *ticket.Hash, u ticket.Subject, now mono.Time) uint32 {
	i := t.tickets.Find(h, t.bait)
	if i == 0 || subject(t.tickets.At(i)) != u || t.tickets.At(i).Expiry <= now {
		return 0
	}
	return i
}

// drop forgets ticket i, which took as much room: 1, or 0 if it is the bait.
func (o *own) drop(t *ownStripe, i uint32, room int64) {
	t.tickets.Drop(i)
	t.live -= room
	o.room.Add(room)
}

// put keeps the ticket of r until expiry, for who has taken room for it.
func (o *own) put(r *ticket.IssueRequest, life uint32, expiry mono.Time) bool {
	t := o.of(&r.Ticket, life)
	if t == nil {
		return false
	}
	defer t.mu.Unlock()
	u := unused.Ticket{Hash: r.Ticket, Secret: r.Secret, Owner: unused.OwnerOf(r.Owner), Account: uint32(r.Subject),
		More: uint32(r.Subject >> 32), Expiry: expiry}
	if t.tickets.Find(&r.Ticket, t.bait) != 0 || t.tickets.Put(&u, r.Grant) == 0 {
		return false
	}
	t.live++
	return true
}

// spend takes the ticket of q out, whatever the secret, and appends its grant to dst. One that is not there, or has expired, is
// refused by spending the bait, so that all refusals do the same work; the next call puts it back.
func (o *own) spend(q *ticket.RedeemRequest, life uint32, now mono.Time, dst []byte) (ticket.RedeemResult, []byte) {
	t := o.of(&q.Ticket, life)
	if t == nil {
		return ticket.RedeemUnknown, dst
	}
	defer t.mu.Unlock()
	t.tickets.Clean()
	t.setBait()
	i, put := t.find(&q.Ticket, q.Held.Subject, now), int64(1)
	known := i != 0
	if !known {
		i, t.bait, put = t.bait, 0, 0
	}
	u := t.tickets.At(i)
	right := subtle.ConstantTimeCompare(u.Secret[:], q.Secret[:]) == 1
	if known && right {
		dst = t.tickets.AppendGrant(dst, u)
	}
	o.drop(t, i, put)
	switch {
	case !known:
		return ticket.RedeemUnknown, dst
	case !right:
		return ticket.RedeemSecret, dst
	}
	return ticket.RedeemOK, dst
}

// revoke takes the ticket of r out, if it is there and its owner's.
func (o *own) revoke(r *ticket.RevokeRequest, life uint32, now mono.Time) bool {
	t := o.of(&r.Ticket, life)
	if t == nil {
		return false
	}
	defer t.mu.Unlock()
	i := t.find(&r.Ticket, r.Subject, now)
	if i == 0 || t.tickets.At(i).Owner != unused.OwnerOf(r.Owner) {
		return false
	}
	o.drop(t, i, 1)
	return true
}

// sweep takes out what has expired unused, and returns when more will; each is told to f, under a lock.
func (o *own) sweep(life uint32, now mono.Time, f func(ticket.Subject, ticket.Hash)) (next mono.Time) {
	next = mono.Time(math.MaxInt64)
	for k := range o.stripes {
		t := &o.stripes[k]
		t.mu.Lock()
		if t.life == life && life != 0 {
			for i := t.tickets.Oldest(); i != 0; i = t.tickets.Oldest() {
				x := t.tickets.At(i)
				if x.Expiry > now {
					next = min(next, x.Expiry)
					break
				}
				f(subject(x), x.Hash)
				o.drop(t, i, 1)
			}
		}
		t.mu.Unlock()
	}
	return next
}

// number is the one that locators must carry: 0 where the store spends them.
func (n *Node) number(s *core.State) uint16 {
	if n.own == nil || s.Incarnation == 0 {
		return 0
	}
	return s.Number()
}

// Number is what the locators of tickets that this node may spend name: 0 if the store spends them. It neither locks nor allocates.
func (n *Node) Number() uint16 { return n.number(n.core.Now()) }

// Owes tells whether a socket that was opened with ticket h is one that the store does not know of. See Batch.By.
func (n *Node) Owes(h ticket.Hash) bool { return n.core.Owes(h) }

// Unasserted is how many tickets were spent here that the store has not acknowledged yet.
func (n *Node) Unasserted() int { return n.core.Owed() }

// issueOwn is Issue where this node spends its tickets.
func (n *Node) issueOwn(r *ticket.IssueRequest, s *core.State, sent mono.Time, ask func() (ticket.IssueAnswer, error)) (ticket.IssueAnswer, error) {
	if r.Node != n.number(s) {
		return ticket.IssueAnswer{}, errOtherLife
	}
	if n.own.room.Add(-1) < 0 {
		n.own.room.Add(1)
		return ticket.IssueAnswer{}, errNoRoom
	}
	r.Reserve = r.Life + n.o.Lease // an assert that counts its socket may take as long
	a, err := ask()
	if err != nil || a.Result != ticket.IssueOK {
		n.own.room.Add(1)
		return a, err
	}
	// From when the store was asked: its clock cannot have counted from earlier.
	if !n.own.put(r, s.Generation, sent.Add(r.Life-r.Life/ownDrift)) {
		n.own.room.Add(1)
		n.settle(r.Subject, r.Ticket)
		return ticket.IssueAnswer{}, errOtherLife
	}
	return a, nil
}

// settle has the store give up the reservation of a ticket that will not be spent.
func (n *Node) settle(u ticket.Subject, h ticket.Hash) {
	n.core.Settle(u, h)
	n.inbox.signal()
}

// spendOwn answers b.
func (n *Node) spendOwn(b *ticket.Batch) {
	now, s := n.o.Clock.Now(), n.core.Now()
	b.Answers = slices.Grow(b.Answers[:0], len(b.Reqs))[:len(b.Reqs)]
	b.Grants, b.By = b.Grants[:0], 0
	full := n.core.Owed()+len(b.Reqs) > core.OwedMax
	for i := range b.Reqs {
		q := &b.Reqs[i]
		q.Held.Incarnation = s.Incarnation
		a := ticket.RedeemAnswer{Result: ticket.RedeemUnsent}
		switch u := q.Held.Subject; {
		case s.Epoch(u) != q.Epoch && s.Leased(now):
			a.Result = ticket.RedeemEpoch
		case !full && s.MayRedeem(now, u, q.Epoch):
			a = n.spendOne(b, q, s, now)
		}
		b.Answers[i] = a
	}
	n.inbox.signal()
	if slices.ContainsFunc(b.Answers, func(a ticket.RedeemAnswer) bool { return a.Result >= ticket.RedeemEpoch }) {
		n.inbox.doubt()
	}
}

// spendOne answers one of b. Its grant lies in b.
func (n *Node) spendOne(b *ticket.Batch, q *ticket.RedeemRequest, s *core.State, now mono.Time) (a ticket.RedeemAnswer) {
	from := len(b.Grants)
	a.Result, b.Grants = n.own.spend(q, s.Generation, now, b.Grants)
	switch a.Result {
	case ticket.RedeemSecret:
		n.core.Settle(q.Held.Subject, q.Ticket)
	case ticket.RedeemOK:
		by, ok := n.core.Spend(now, q.Held.Subject, q.Ticket)
		if !ok { // other loops were faster
			a.Result = ticket.RedeemDoubt
			break
		}
		b.By, a.Grant = by, b.Grants[from:len(b.Grants):len(b.Grants)]
	}
	return a
}

// revokeOwn is Revoke where this node spends its tickets: those of others are not here, and the store's record of one is not what decides.
func (n *Node) revokeOwn(r *ticket.RevokeRequest) bool {
	if !n.own.revoke(r, n.core.Now().Generation, n.o.Clock.Now()) {
		return false
	}
	n.settle(r.Subject, r.Ticket)
	return true
}

// lapse gives back the slots of tickets that have expired unused, and returns when more will.
func (n *Node) lapse(now mono.Time) mono.Time {
	if n.own == nil {
		return mono.Time(math.MaxInt64)
	}
	return max(n.own.sweep(n.core.Now().Generation, now, n.core.Settle), now.Add(lapseEvery))
}
