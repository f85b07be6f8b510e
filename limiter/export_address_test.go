package limiter

import "unsafe"

// SeatSize is what one address costs.
const SeatSize = unsafe.Sizeof(seat{})

// Seats is how many addresses a may have a seat for.
func Seats(a *Addresses) int { return len(a.sets) * len(seats{}) }

// Seated is how many have one.
func Seated(a *Addresses) (n int) {
	for i := range a.sets {
		for _, s := range a.sets[i] {
			if s.key != 0 {
				n++
			}
		}
	}
	return n
}

// AddressesOpen is how many sockets a counts. Only while nobody enters or leaves.
func AddressesOpen(a *Addresses) (n int) {
	for i := range a.sets {
		for _, s := range a.sets[i] {
			n += int(s.open)
		}
	}
	for _, s := range a.crowds {
		n += int(s.open)
	}
	return n
}
