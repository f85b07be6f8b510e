package engine

import (
	"crypto/tls"
	"errors"
	"net/netip"

	"ticketgate/engine/proxy"
	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// What comes before the request's head, in the order of this file:
//
//	greet     accept: is a PROXY header expected of this peer, and may it be here at all
//	proxied   the header, which says whose socket it is; only now its address is asked for
//	hello     the address may stay: TLS, if the gate has it
//	secured   the handshake is done, or not
//
// Nobody is answered before the head: what ends here ends by RST, or by TLS's own alert.

// Why sockets end here: metric labels beside those of perimeter.go and of package secure.
const (
	awayProxy     = "proxy"       // no PROXY header of one who must send it, or a wrong one
	awayUnlisted  = "proxy-peer"  // a peer that must not speak for others where only such are taken
	awayProxyLate = "proxy-late"  // half a header
	awayTLSLate   = "tls-timeout" // half a handshake
)

// greet decides on a just accepted socket.
func (w *worker) greet(id reactor.ID, s *session) {
	s.state = stateProxy
	switch peer := w.l.Peer(id).Addr(); w.e.o.Proxy.Expect(peer) {
	case proxy.Refuse:
		w.turnAway(id, awayUnlisted)
	case proxy.Never:
		w.hello(id, s, peer)
	default:
		w.rearm(id, s)
	}
}

// proxied looks for a PROXY header in front of in, all that has come.
func (w *worker) proxied(id reactor.ID, s *session, in []byte) int {
	own := w.l.Peer(id)
	h, n, err := proxy.Parse(in)
	switch {
	case errors.Is(err, proxy.ErrAbsent) && w.e.o.Proxy.Expect(own.Addr()) == proxy.May:
	case err != nil:
		w.turnAway(id, awayProxy)
		return len(in)
	case n == 0:
		return 0
	}
	peer := h.Peer(own)
	w.l.SetPeer(id, peer)
	if !w.hello(id, s, peer.Addr()) || s.state == stateTLS {
		return n // what follows is the filter's, or nobody's
	}
	return n + w.head(id, s, in[n:])
}

// hello goes on with a socket whose address is known, and reports whether it may stay.
func (w *worker) hello(id reactor.ID, s *session, peer netip.Addr) bool {
	if !w.meet(id, s, peer) {
		return false
	}
	s.state = stateHead
	if w.e.secure != nil {
		s.state = stateTLS
		w.e.secure.Start(w.l, id)
	}
	w.rearm(id, s)
	return true
}

// secured is told by package secure how a handshake has ended. A socket whose handshake has failed is closing already.
func (e *Engine) secured(l *reactor.Loop, id reactor.ID, state *tls.ConnectionState, err error) {
	w := (*handler)(e).worker(l)
	s := e.rows.At(id.Slot())
	if !l.Alive(id) || s.state != stateTLS {
		return
	}
	if err != nil {
		reason := secure.ReasonInternal
		if f, ok := errors.AsType[*secure.Failure](err); ok {
			reason = f.Reason
		}
		w.stats.refused(reason.String())
		s.state = stateClosing
		w.parted(id)
		return
	}
	s.state = stateHead
	s.last = tickOf(l.Now())
	if state.ServerName != "" {
		w.hosts[id.Slot()] = state.ServerName
	}
	w.rearm(id, s)
}

// misdirected reports whether the request's host is another than the one that TLS was for (RFC 9110 section 15.5.20): a
// certificate of one must not open what is another's. Who names nobody in TLS may ask for anyone.
func (w *worker) misdirected(id reactor.ID) bool {
	if w.e.secure == nil {
		return false
	}
	name, ok := w.hosts[id.Slot()]
	delete(w.hosts, id.Slot())
	return ok && !secure.HostMatches(name, string(w.req.Host))
}
