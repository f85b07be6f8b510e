package proxy

import "net/netip"

// A Policy says from which peers PROXY headers are taken. The zero Policy takes none from anyone. It is not written to once
// it is in use, so any goroutine may ask it.
type Policy struct {
	From     []netip.Prefix // peers that may name a client; IPv4 ranges match IPv4 peers however they are written
	Unix     bool           // so may peers on a unix socket
	Required bool           // a listed peer has to send a header, and another peer is refused
}

// Mode is what is expected of one peer.
type Mode uint8

// Modes.
const (
	Never  Mode = iota // Parse is not asked: what looks like a header is part of what the client sends
	May                // ErrAbsent means that there is no header
	Must               // any error ends the connection
	Refuse             // the connection ends before a byte is read
)

// Expect says what peer, the other end of the connection, has to do. A peer on a unix socket is the zero Addr. Its time
// grows with the length of p.From: about 3 ns for each range.
func (p *Policy) Expect(peer netip.Addr) Mode {
	switch listed := p.lists(peer); {
	case listed && p.Required:
		return Must
	case listed:
		return May
	case p.Required:
		return Refuse
	}
	return Never
}

func (p *Policy) lists(peer netip.Addr) bool {
	if !peer.IsValid() {
		return p.Unix
	}
	peer = peer.Unmap().WithZone("")
	for _, r := range p.From {
		if r.Contains(peer) {
			return true
		}
	}
	return false
}
