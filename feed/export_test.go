package feed

// Kept is how many messages the loops keep for readers that are behind. The loops must be at rest.
func (h *Hub) Kept() (n int) {
	for _, p := range h.parts {
		n += int(p.ring.next - p.ring.first)
	}
	return n
}

// Room is how many messages the loops' rings have room for. The loops must be at rest.
func (h *Hub) Room() (n int) {
	for _, p := range h.parts {
		n += len(p.ring.messages)
	}
	return n
}

// Age lets every loop have seen n messages. Before the first reader.
func (h *Hub) Age(n uint32) {
	for _, p := range h.parts {
		p.ring.first, p.ring.next = n, n
		for i := range p.groups {
			p.groups[i].oldest = n
		}
	}
}
