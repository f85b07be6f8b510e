package ticket

import "ticketgate/internal/mono"

// A Batch carries redemptions from one loop to the store's goroutines and their answers back. Who holds it owns it: the
// loop until it hands it over, the store until it calls Done, then whoever Done gives it to. It is reused.
type Batch struct {
	Loop    int             // index of the loop that asked
	Reqs    []RedeemRequest // what is asked
	Answers []RedeemAnswer  // one for each of Reqs, filled before Done
	IDs     []uint64        // the asker's name for each of Reqs
	Expiry  []uint32        // the asker's note of each ticket's expiry, unix seconds
	Since   mono.Time       // when the first of Reqs was added
	Life    uint32          // the asker's note of the node's life when it handed b over
	Grants  []byte          // where those of Answers may lie: they are good until b is used again
	// By is when the store has to know of the sockets that Answers open; zero: it does. At By those are closed whose tickets the
	// Redeemer still Owes to the store.
	By   mono.Time
	Done func(*Batch) // called once, on a goroutine of the store; it may wait
}

// Reset empties b for reuse and drops what the answers refer to.
func (b *Batch) Reset() {
	clear(b.Answers)
	b.Reqs, b.Answers, b.IDs, b.Expiry = b.Reqs[:0], b.Answers[:0], b.IDs[:0], b.Expiry[:0]
	b.Grants, b.By = b.Grants[:0], 0
}
