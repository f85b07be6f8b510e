package memory

import (
	"crypto/subtle"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/store/unused"
	"ticketgate/ticket"
)

// zeroKept is how long an account outlives its last socket and ticket: longer than any call of this process that read an
// older number can still be on its way.
const zeroKept = time.Minute

// A stripe is a 16th of the state. All its methods want mu held.
type stripe struct {
	mu       sync.Mutex
	room     *atomic.Int64 // of the store
	tickets  unused.Table
	accounts accounts
	bait     uint32 // a ticket that stands in for one that is not there; 0: it has been spent
	keeper   uint32 // its account
}

func (t *stripe) init(room *atomic.Int64) {
	t.room, t.tickets, t.accounts = room, unused.New(), newAccounts()
	var a *account
	t.keeper, a = t.accounts.rows.Get() // in no chain
	a.waits = t.keeper                  // and never in the queue
	t.setBait()
}

// setBait puts the bait back. There is room, for nothing else has been put since it went.
func (t *stripe) setBait() {
	if t.bait == 0 {
		t.bait = t.tickets.Put(&unused.Ticket{Account: t.keeper, Expiry: math.MaxInt64}, nil)
		t.accounts.rows.At(t.keeper).reserved = 2 // so it is never empty
	}
}

func (t *stripe) issue(r *ticket.IssueRequest, now mono.Time) (ticket.IssueAnswer, error) {
	i := t.accounts.open(r.Subject)
	if i == 0 {
		return ticket.IssueAnswer{}, errFull
	}
	defer t.settle(i, now)
	a := t.accounts.rows.At(i)
	t.accounts.bury(a, r.Dead)
	used, twice := t.accounts.used(a, nil), t.tickets.Find(&r.Ticket, t.bait)
	switch {
	case twice != 0 && !t.tickets.At(twice).Expired:
		return ticket.IssueAnswer{Result: ticket.IssueDuplicate, Used: used}, nil
	case r.Limit != ticket.NoLimit && used >= r.Limit:
		return ticket.IssueAnswer{Result: ticket.IssueFull, Used: used, Reserved: a.reserved, Counted: t.accounts.counted(a)}, nil
	case a.reserved >= r.Outstanding:
		return ticket.IssueAnswer{Result: ticket.IssueOutstanding, Used: used}, nil
	case twice != 0:
		return ticket.IssueAnswer{Result: ticket.IssueDuplicate, Used: used}, nil
	}
	if t.room.Add(-1) < 0 || !t.put(r, i, now) {
		t.room.Add(1)
		return ticket.IssueAnswer{}, errFull
	}
	return ticket.IssueAnswer{Result: ticket.IssueOK, Used: used + 1}, nil
}

func (t *stripe) put(r *ticket.IssueRequest, account uint32, now mono.Time) bool {
	u := unused.Ticket{Hash: r.Ticket, Secret: r.Secret, Owner: unused.OwnerOf(r.Owner), Account: account, Expiry: now.Add(r.Life)}
	if more := r.Reserve - r.Life; more > 0 {
		u.More = uint32(min(more.Milliseconds(), math.MaxUint32))
	}
	if t.tickets.Put(&u, r.Grant) == 0 {
		return false
	}
	t.accounts.rows.At(account).reserved++
	return true
}

// redeem spends the ticket, whatever the secret. One that is not there, or is another subject's, is refused by spending the
// bait, so that all refusals do the same work; the next call puts it back.
func (t *stripe) redeem(r *ticket.RedeemRequest, now mono.Time) ticket.RedeemAnswer {
	i := t.tickets.Find(&r.Ticket, t.bait)
	ours := t.belongs(i, r.Held.Subject)
	freed := int64(1)
	if !ours {
		i, t.bait, freed = t.bait, 0, 0
	}
	u := t.tickets.At(i)
	known := ours && !u.Expired
	right := subtle.ConstantTimeCompare(u.Secret[:], r.Secret[:]) == 1
	var grant []byte
	if known && right {
		grant = t.tickets.AppendGrant(make([]byte, 0, u.Size()), u)
	}
	t.drop(i, now)
	t.room.Add(freed)
	switch {
	case !known:
		return ticket.RedeemAnswer{Result: ticket.RedeemUnknown}
	case !right:
		return ticket.RedeemAnswer{Result: ticket.RedeemSecret}
	}
	t.assert(&r.Held, now)
	return ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: grant}
}

// belongs tells whether i is a ticket, and of u.
func (t *stripe) belongs(i uint32, u ticket.Subject) bool {
	return i != 0 && t.accounts.rows.At(t.tickets.At(i).Account).subject == u
}

// settled forgets tickets of u that are counted as sockets from now on.
func (t *stripe) settled(u ticket.Subject, spent []ticket.Hash, now mono.Time) {
	for k := range spent {
		if i := t.tickets.Find(&spent[k], t.bait); t.belongs(i, u) {
			t.spend(i, now)
		}
	}
}

// assert writes a held count unless a later reading stands there. A zero stays, with its number, until the account goes.
// false: there is no room.
func (t *stripe) assert(h *ticket.Held, now mono.Time) bool {
	i := t.accounts.open(h.Subject)
	if i == 0 {
		return false // 2^24 subjects in one stripe: more than a process has descriptors
	}
	row := t.accounts.heldBy(t.accounts.rows.At(i), h.Incarnation)
	if row != nil && (h.Number > row.number || row.number == 0) {
		row.number, row.count = h.Number, h.Count
	}
	t.settle(i, now)
	return row != nil
}

func (t *stripe) revoke(r *ticket.RevokeRequest, now mono.Time) bool {
	i := t.tickets.Find(&r.Ticket, t.bait)
	if !t.belongs(i, r.Subject) {
		return false
	}
	if u := t.tickets.At(i); u.Expired || u.Owner != unused.OwnerOf(r.Owner) {
		return false
	}
	t.spend(i, now)
	return true
}

// spend forgets a ticket and makes room for another.
func (t *stripe) spend(i uint32, now mono.Time) {
	t.drop(i, now)
	t.room.Add(1)
}

// drop forgets a ticket, or the bait, and its reservation.
func (t *stripe) drop(i uint32, now mono.Time) {
	a := t.tickets.At(i).Account
	t.tickets.Drop(i)
	t.accounts.rows.At(a).reserved--
	t.settle(a, now)
}

// expire ends the life of ticket i, and its reservation unless that is to outlive it.
func (t *stripe) expire(i uint32, now mono.Time) {
	if t.tickets.At(i).More == 0 {
		t.spend(i, now)
		return
	}
	t.tickets.Retain(i)
}

// sweep forgets tickets that have expired and accounts that have been empty for zeroKept. Each is paid for by the call
// that made it.
func (t *stripe) sweep(now mono.Time) {
	for i := t.tickets.Oldest(); i != 0 && t.tickets.At(i).Expiry <= now; i = t.tickets.Oldest() {
		t.expire(i, now)
	}
	for i := t.accounts.first; i != 0 && emptyFor(t.accounts.rows.At(i), now) >= zeroKept; i = t.accounts.first {
		t.accounts.dequeue()
		t.retire(i, now)
	}
	if i := t.accounts.first; i != 0 { // it may be in use again and again, so that nobody behind it would have his turn
		t.accounts.dequeue()
		t.accounts.enqueue(i)
	}
	t.tickets.Clean()
	t.setBait()
}

// emptyFor is for how long a has been empty, up to a second less.
func emptyFor(a *account, now mono.Time) time.Duration {
	return time.Duration(seconds(now)-a.since) * time.Second
}

func seconds(now mono.Time) uint32 { return uint32(now / mono.Time(time.Second)) }

// retire forgets an account that has been empty for long enough, or puts it into the queue again.
func (t *stripe) retire(i uint32, now mono.Time) {
	switch a := t.accounts.rows.At(i); {
	case !t.accounts.empty(a): // in the queue again when it is empty again
	case emptyFor(a, now) >= zeroKept:
		t.accounts.close(i)
	default:
		t.accounts.enqueue(i)
	}
}

// settle is called after each change of account i.
func (t *stripe) settle(i uint32, now mono.Time) {
	a := t.accounts.rows.At(i)
	if !t.accounts.empty(a) {
		return
	}
	a.since = seconds(now)
	t.accounts.enqueue(i)
}
