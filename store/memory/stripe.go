package memory

import (
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// zeroKept is how long an account outlives its last socket and ticket: longer than any call of this process that read an
// older number can still be on its way.
const zeroKept = time.Minute

// A stripe is a 64th of the state. All its methods want mu held.
type stripe struct {
	mu       sync.Mutex
	room     *atomic.Int64 // of the store
	tickets  map[ticket.Hash]*record
	expiry   []*record // binary heap, the next to expire first
	spare    []*record // to use again, so that a ticket costs one allocation: its grant
	accounts map[ticket.Subject]*account
	idle     []idleSince // accounts to look at, the longest idle first
	decoy    record      // stands in for a ticket that is not there
}

// spareMax bounds what a stripe keeps for use after a burst: 256 records of about 150 bytes.
const spareMax = 256

// A record is a ticket that has not expired. A spent one stays, without its grant: so a replay finds what a wrong secret
// finds and takes the same time.
type record struct {
	hash    ticket.Hash
	secret  ticket.SecretHash
	owner   [sha256.Size]byte
	account *account // counts this ticket in reserved until it is spent
	subject ticket.Subject
	expiry  mono.Time
	grant   []byte
	spent   bool
}

type account struct {
	reserved uint32
	held     []held
	since    mono.Time // when it was last seen empty
	queued   bool      // it stands in stripe.idle, once
}

type held struct {
	incarnation ticket.Incarnation
	number      uint64
	count       uint32
}

type idleSince struct {
	subject ticket.Subject
	since   mono.Time
}

func (t *stripe) init(room *atomic.Int64) {
	t.room = room
	t.tickets = make(map[ticket.Hash]*record)
	t.accounts = make(map[ticket.Subject]*account)
	t.decoy = record{account: &account{queued: true}, spent: true}
}

func (t *stripe) issue(r *ticket.IssueRequest, now mono.Time) (ticket.IssueAnswer, error) {
	a := t.account(r.Subject)
	defer t.settle(r.Subject, a, now)
	a.bury(r.Dead)
	used := a.used(nil)
	switch {
	case t.tickets[r.Ticket] != nil:
		return ticket.IssueAnswer{Result: ticket.IssueDuplicate, Used: used}, nil
	case r.Limit != ticket.NoLimit && used >= r.Limit:
		return ticket.IssueAnswer{Result: ticket.IssueFull, Used: used}, nil
	case a.reserved >= r.Outstanding:
		return ticket.IssueAnswer{Result: ticket.IssueOutstanding, Used: used}, nil
	}
	if t.room.Add(-1) < 0 {
		t.room.Add(1)
		return ticket.IssueAnswer{}, errFull
	}
	t.put(r, a, now)
	return ticket.IssueAnswer{Result: ticket.IssueOK, Used: used + 1}, nil
}

func (t *stripe) put(r *ticket.IssueRequest, a *account, now mono.Time) {
	u := t.record()
	*u = record{
		hash: r.Ticket, secret: r.Secret, owner: sha256.Sum256([]byte(r.Owner)), account: a, subject: r.Subject,
		expiry: now.Add(r.Life), grant: slices.Clone(r.Grant),
	}
	t.tickets[r.Ticket] = u
	t.push(u)
	a.reserved++
}

func (t *stripe) record() *record {
	if n := len(t.spare); n > 0 {
		u := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return u
	}
	return new(record)
}

// redeem spends the ticket, whatever the secret. A ticket that is not there is a spent one, so that all refusals do the
// same work.
func (t *stripe) redeem(r *ticket.RedeemRequest, now mono.Time) ticket.RedeemAnswer {
	u := t.tickets[r.Ticket]
	if u == nil || u.subject != r.Held.Subject {
		u = &t.decoy
	}
	right := subtle.ConstantTimeCompare(u.secret[:], r.Secret[:]) == 1
	unspent, grant := !u.spent, u.grant
	t.spend(u, now)
	switch {
	case !unspent:
		return ticket.RedeemAnswer{Result: ticket.RedeemUnknown}
	case !right:
		return ticket.RedeemAnswer{Result: ticket.RedeemSecret}
	}
	t.assert(&r.Held, now)
	return ticket.RedeemAnswer{Result: ticket.RedeemOK, Grant: grant}
}

// assert writes a held count unless a later reading stands there. A zero stays, with its number, until the account goes.
func (t *stripe) assert(h *ticket.Held, now mono.Time) {
	a := t.account(h.Subject)
	i := slices.IndexFunc(a.held, func(o held) bool { return o.incarnation == h.Incarnation })
	switch {
	case i < 0:
		a.held = append(a.held, held{h.Incarnation, h.Number, h.Count})
	case h.Number > a.held[i].number:
		a.held[i] = held{h.Incarnation, h.Number, h.Count}
	}
	t.settle(h.Subject, a, now)
}

func (t *stripe) revoke(r *ticket.RevokeRequest, now mono.Time) bool {
	u := t.tickets[r.Ticket]
	if u == nil || u.spent || u.subject != r.Subject || u.owner != sha256.Sum256([]byte(r.Owner)) {
		return false
	}
	t.spend(u, now)
	return true
}

// spend takes a ticket's grant and reservation. On a spent one it changes nothing.
func (t *stripe) spend(u *record, now mono.Time) {
	if !u.spent {
		u.account.reserved--
	}
	u.spent, u.grant = true, nil
	t.settle(u.subject, u.account, now)
}

// sweep forgets tickets that have expired and accounts that have been empty for zeroKept. Each is paid for by the call
// that made it.
func (t *stripe) sweep(now mono.Time) {
	for len(t.expiry) > 0 && t.expiry[0].expiry <= now {
		t.forget(t.pop(), now)
	}
	for len(t.idle) > 0 && now.Sub(t.idle[0].since) >= zeroKept {
		e := t.idle[0]
		t.idle = t.idle[1:]
		t.retire(e.subject, now)
	}
}

func (t *stripe) forget(u *record, now mono.Time) {
	t.spend(u, now)
	delete(t.tickets, u.hash)
	t.room.Add(1)
	*u = record{}
	if len(t.spare) < spareMax {
		t.spare = append(t.spare, u)
	}
}

// retire deletes an account that has been empty for long enough, or queues it again.
func (t *stripe) retire(s ticket.Subject, now mono.Time) {
	a := t.accounts[s]
	a.queued = false
	switch {
	case !a.empty(): // queued again when it is empty again
	case now.Sub(a.since) >= zeroKept:
		delete(t.accounts, s)
	default:
		a.queued = true
		t.idle = append(t.idle, idleSince{s, a.since})
	}
}

// settle is called after each change of a, the account of s.
func (t *stripe) settle(s ticket.Subject, a *account, now mono.Time) {
	if !a.empty() {
		return
	}
	a.since = now
	if !a.queued && t.accounts[s] == a {
		a.queued = true
		t.idle = append(t.idle, idleSince{s, now})
	}
}

func (t *stripe) account(s ticket.Subject) *account {
	a := t.accounts[s]
	if a == nil {
		a = new(account)
		t.accounts[s] = a
	}
	return a
}

// empty tells whether nothing counts on a.
func (a *account) empty() bool {
	return a.reserved == 0 && !slices.ContainsFunc(a.held, func(h held) bool { return h.count > 0 })
}

// used counts reservations and held sockets, leaving out the dead.
func (a *account) used(dead []ticket.Incarnation) uint32 {
	n := a.reserved
	for _, h := range a.held {
		if !slices.Contains(dead, h.incarnation) {
			n += h.count
		}
	}
	return n
}

// bury removes the rows of dead incarnations.
func (a *account) bury(dead []ticket.Incarnation) {
	if len(dead) > 0 {
		a.held = slices.DeleteFunc(a.held, func(h held) bool { return slices.Contains(dead, h.incarnation) })
	}
}
