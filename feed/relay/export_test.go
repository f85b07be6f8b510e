package relay

import "ticketgate/engine/reactor"

// Held counts what r holds for sockets: attempts, pongs and gathered messages, and rows in use of the slots below n.
func (r *Relay) Held(n uint32) (sum int) {
	for _, lane := range r.lanes {
		sum += len(lane.joining) + len(lane.pongs) + len(lane.gathered)
	}
	for slot := range n {
		if r.rows.At(slot).state != stateNone {
			sum++
		}
	}
	return sum
}

// Kind is the kind that tests give the relay's sockets.
const Kind reactor.Kind = 1
