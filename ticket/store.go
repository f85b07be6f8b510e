package ticket

import (
	"context"
	"errors"
	"time"
)

// Hash is a keyed hash of a locator's random part: how a ticket is named in the store, the cache and its public id.
// It opens nothing.
type Hash [16]byte

// SecretHash is a keyed hash of the second secret.
type SecretHash [32]byte

// Subject is a keyed hash of what a plan's connections limit counts (the client, or the key). All state of a subject
// lies in one Redis Cluster hash slot.
type Subject uint64

// Tag is the shard tag, 0 to 16383, that every store key of the subject carries as {tag}.
func (s Subject) Tag() uint16 { return uint16(s & 0x3fff) }

// Incarnation names one life of one node: random, new at each start and after each lost lease. Zero is none.
type Incarnation uint64

// Epoch names a history of one shard of the store. A ticket of another epoch is refused, because a store that lost its
// latest writes could bring a spent ticket back. Zero is "not known yet" and never matches.
type Epoch uint32

// Held is the absolute number of sockets (open, or being redeemed) that one incarnation holds for one subject, and the
// number of the reading: a store keeps the reading with the highest Number and ignores the rest, so repeating and
// reordering are harmless.
type Held struct {
	Subject     Subject
	Incarnation Incarnation
	Count       uint32
	Number      uint64
}

// IssueRequest puts a ticket and reserves a slot, or does neither.
type IssueRequest struct {
	Ticket      Hash
	Secret      SecretHash
	Subject     Subject
	Limit       uint32        // slots of the subject, NoLimit for any number
	Outstanding uint32        // unused tickets the subject may have, at least 1
	Life        time.Duration // the store forgets the ticket after it; 1 ms or more
	Reserve     time.Duration // how long the slot stays reserved, unless the ticket is spent before; less than Life: for Life
	Owner       string        // who may revoke it: id of the credential that asked
	Grant       []byte        // what Redeem gives back; AppendClaims. Not kept after the call
	Epoch       Epoch         // the epoch in the locator; a server of another refuses
	Node        uint16        // the node in the locator; no matter for a store
	Dead        []Incarnation // incarnations whose slots no longer count
}

// IssueAnswer says how an issue ended.
type IssueAnswer struct {
	Result   IssueResult
	Used     uint32        // reserved + held slots of the subject after the call; 0 with IssueEpoch
	Reserved uint32        // with IssueFull: those of them that are reserved
	Counted  []Incarnation // with IssueFull: who holds slots of the subject, by number, without the dead of the request; 1000 at most
	Seen     ShardEpoch    // of the server that answered
}

// IssueResult is how an issue ended.
type IssueResult uint8

// The results of Issue.
const (
	IssueOK          IssueResult = iota + 1
	IssueFull                    // the connections limit is reached
	IssueOutstanding             // too many unused tickets
	IssueEpoch                   // the server's epoch is not the request's
	IssueDuplicate               // the ticket hash exists already: a broken random source
)

// RedeemRequest spends a ticket. Its Held counts this redemption.
type RedeemRequest struct {
	Ticket Hash
	Secret SecretHash
	Epoch  Epoch
	Held   Held
}

// RedeemAnswer is the verdict on one RedeemRequest.
type RedeemAnswer struct {
	Result RedeemResult
	Grant  []byte     // RedeemOK only; belongs to the caller, but see Batch.Grants
	Seen   ShardEpoch // of the server that answered; zero with RedeemDoubt and RedeemUnsent
}

// RedeemResult is how a redemption ended.
type RedeemResult uint8

// The results of Redeem. All but RedeemOK mean that no socket opens.
const (
	RedeemOK      RedeemResult = iota + 1
	RedeemUnknown              // never issued, expired, revoked or spent
	RedeemSecret               // wrong second secret: the ticket is spent now
	RedeemEpoch                // the server's epoch is not the request's
	RedeemDoubt                // no answer: it may be spent. Refuse with 503 and assert later
	RedeemUnsent               // nothing was asked (store known to be down, queue full, no lease): still unused. Refuse with 503
)

// Assertion tells the store how many sockets are held, and which tickets became sockets without asking it.
type Assertion struct {
	Held
	Epoch Epoch  // a server of another refuses
	Spent []Hash // tickets of the subject that this count includes: they and their reservations go. Not kept after the call
}

// AssertAnswer is the verdict on one Assertion.
type AssertAnswer struct {
	OK   bool       // written, or a reading with a higher number stands there
	Seen ShardEpoch // of the server that answered; zero: no answer, it may be written or not
}

// RevokeRequest takes an unused ticket back.
type RevokeRequest struct {
	Ticket  Hash
	Subject Subject
	Owner   string // must equal the Owner at issue
}

// RenewRequest prolongs a node's lease, and registers the epochs under which it has asserted all its counts.
type RenewRequest struct {
	Incarnation Incarnation
	Name        string        // the node's name, for people
	Lease       time.Duration // from the store's time of the call
	Number      uint64        // of this renewal: higher than that of any renewal of the incarnation before
	Acked       uint64        // number of the last renewal of the incarnation that was acknowledged; 0: none
	Enter       bool          // none was acknowledged yet: enter the incarnation if it is not there
	Former      []Incarnation // lives of this node that are proven over: marked dead at once. This one too, if the node leaves
	// Registered is what the node has asserted everything under, at most one for each shard. Epoch 0: it holds slots there, but
	// has not asserted them; a shard that is missing: it holds none. Prev is not used.
	Registered []ShardEpoch
	Topology   uint64 // the Topology.ID by which Registered names the shards
	Replicas   int    // how many replicas must have it before the answer is given: View.Acks
}

// View is what the store says of itself and of the nodes.
type View struct {
	Seen  ShardEpoch // of the server that answered, which keeps the list of nodes
	Time  time.Time  // its clock
	Grace bool       // it may have lost entries: nobody is marked dead, and who is missing may hold slots
	Young bool       // its list of nodes began to be written less than a lease and 5 s ago: who is missing may hold slots
	Again bool       // the incarnation had been lost and was entered again: so may its counts have been
	Acks  int        // replicas that have the renewal
	// Old are the shards of which another epoch than the one in the request is the current one. If there are any, nothing was
	// prolonged and nothing registered, and Nodes is empty.
	Old   []Shard
	Nodes []NodeView // by incarnation; the dead stay for an hour
}

// NodeView is one incarnation.
type NodeView struct {
	Incarnation Incarnation
	Name        string
	Dead        bool          // its lease ended, or its end was proven; its slots no longer count
	Left        time.Duration // until its lease ends; of the dead, how long ago they were marked, as a negative number
	Registered  []ShardEpoch  // as it said at its last renewal, or Epoch 0 for each if that was View.Again; Prev is zero
	Topology    uint64
}

// A Store is the one authority on which tickets are unused and how many slots are taken. Any goroutine may call it.
// A call that fails with ErrUnavailable may have happened or not; it is never repeated by the store itself.
type Store interface {
	// Topology is where the store keeps what, as it knows now; nil: not known yet. It does not wait.
	Topology() *Topology
	// Ask asks the primary of a shard for its epoch.
	Ask(ctx context.Context, s Shard) (ShardEpoch, error)
	// Issue reserves a slot and puts the ticket in one step.
	Issue(ctx context.Context, r *IssueRequest) (IssueAnswer, error)
	// Redeem spends each of rs in one step of its own: look-up, deletion, and the reservation becomes a held slot. It
	// fills as[i] for rs[i]; len(as) == len(rs). What got no answer is RedeemDoubt, what was never sent RedeemUnsent;
	// it returns no error of its own.
	Redeem(ctx context.Context, rs []RedeemRequest, as []RedeemAnswer)
	// Assert writes held counts. It fills as[i] for rs[i]; len(as) == len(rs). Asserting again is harmless.
	Assert(ctx context.Context, rs []Assertion, as []AssertAnswer)
	// Revoke deletes an unused ticket and its reservation; false: no such unused ticket of this owner.
	Revoke(ctx context.Context, r *RevokeRequest) (bool, error)
	// Used tells the reserved + held slots of a subject.
	Used(ctx context.Context, s Subject, dead []Incarnation) (uint32, error)
	// Renew enters or prolongs an incarnation and answers the view. ErrLeaseLost: it had ended, or was never entered; take a
	// new one. ErrStale: a renewal with a higher number has been executed. ErrUnavailable also if the list is full: 4096, with
	// the dead of the last hour.
	Renew(ctx context.Context, r *RenewRequest) (View, error)
	// Close ends the store's own goroutines and connections.
	Close() error
}

// A NearStore is a Store that lies in this process, so that nothing it does takes longer than a lock that is held for a look-up.
type NearStore interface {
	Store
	// Near does nothing.
	Near()
}

// A Newcomer is who asks for a ticket, where somebody may have to go for it.
type Newcomer struct {
	Subject Subject
	Limit   uint32 // slots of the subject
	Unused  uint32 // tickets it may have that are not used yet
	Idlest  bool   // the socket that has been idle for the longest time has to go; else the one that was opened first
}

// A Message is for all who listen to a channel at the time.
type Message struct {
	Channel string
	Payload []byte // any bytes
}

// ErrUnavailable is the store being down, slow or cut off.
var ErrUnavailable = errors.New("ticket store unavailable")

// ErrLeaseLost is a renewal of an incarnation whose lease has ended.
var ErrLeaseLost = errors.New("node lease lost")

// ErrStale is a renewal that a later one has overtaken: nothing was changed.
var ErrStale = errors.New("renewal overtaken by a later one")
