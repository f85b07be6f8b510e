package relay

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/engine/upgrade"
	"ticketgate/internal/mono"
)

// Joining, in the order of this file:
//
//	Join      what the backend must hear of the client's request is copied
//	dial      the next target in turn; one that refuses is followed by the next, each once, within DialTimeout
//	request   connected: the upgrade request goes out, HeadTimeout begins
//	answer    a complete, valid 101 opens the pair; anything else is one refusal, and the connection is not used again
//
// No byte of the client's reaches the backend before that: the engine hands messages to the relay only once Accept has
// led to the client's own 101.

// A joining is a pair whose backend has not said yes: about 200 bytes and what it forwards, for DialTimeout + HeadTimeout
// at most.
type joining struct {
	client    reactor.ID
	protocols []string
	headers   []upgrade.Header
	first     int       // target of the first dial
	tried     int       // targets dialled, or found without an address
	began     mono.Time // of the dial under way
	dialBy    mono.Time
	key       [upgrade.KeyLen]byte
	scan      upgrade.Scan
}

// Join implements engine.Stream.
func (r *Relay) Join(c engine.Conn, j *engine.Join) {
	l := c.Loop()
	g := &joining{
		client:    c.ID(),
		protocols: offer(j),
		headers:   r.forwarded(j.Request),
		first:     int(r.turn.Add(1)-1) % len(r.targets),
		dialBy:    l.Now().Add(r.o.DialTimeout),
	}
	r.dial(l, c, g)
}

// notices is the gateway's own subprotocol, of which backends know nothing.
const notices = "ticketgate.v1"

// offer lists the client's subprotocols that the ticket allows.
func offer(j *engine.Join) []string {
	var ps []string
	for token := range j.Request.Protocols {
		for _, p := range j.Claims.Protocols {
			if p == string(token) && p != notices {
				ps = append(ps, p)
			}
		}
	}
	return ps
}

// forwarded copies the fields of the client's request that the backend gets.
func (r *Relay) forwarded(q *upgrade.Request) []upgrade.Header {
	if len(r.o.ForwardHeaders) == 0 {
		return nil
	}
	var hs []upgrade.Header
	for name, value := range q.Headers {
		for _, want := range r.o.ForwardHeaders {
			if strings.EqualFold(want, string(name)) {
				hs = append(hs, upgrade.Header{Name: want, Value: string(value)})
			}
		}
	}
	return hs
}

// dial begins a connect to the first target not yet tried that can be dialled, or refuses c.
func (r *Relay) dial(l *reactor.Loop, c engine.Conn, g *joining) {
	for g.tried < len(r.targets) {
		i := (g.first + g.tried) % len(r.targets)
		g.tried++
		g.began = l.Now()
		t := r.targets[i]
		addr, ok := t.pick()
		if !ok {
			t.count(resultRefused, 0)
			continue
		}
		id, err := l.Dial(r.o.Kind, addr, netip.Addr{})
		if err != nil {
			t.count(resultRefused, 0)
			continue
		}
		*r.rows.At(id.Slot()) = row{client: g.client, target: uint16(i), state: stateDialing}
		r.lane(l).joining[id.Slot()] = g
		l.Arm(id, g.dialBy)
		c.SetWord(uint64(id))
		return
	}
	c.Refuse(engine.ErrBackend)
}

// request asks the backend, to which id is connected now, for the upgrade.
func (r *Relay) request(l *reactor.Loop, id reactor.ID, w *row) {
	n := r.lane(l)
	g := n.joining[id.Slot()]
	if w.state != stateDialing || g == nil {
		return
	}
	w.state = stateHead
	var nonce [16]byte
	n.read(nonce[:])
	base64.StdEncoding.Encode(g.key[:], nonce[:])
	t := r.targets[w.target]
	var err error
	n.scratch, err = upgrade.AppendRequest(n.scratch[:0], t.field, t.path, g.key[:], g.protocols, g.headers...)
	if err == nil {
		err = l.Write(id, n.scratch)
	}
	if err != nil {
		r.reject(l, id, w, resultRejected, engine.ErrBackend)
		return
	}
	l.Arm(id, l.Now().Add(r.o.HeadTimeout))
}

// answer looks for the backend's 101 in in.
func (r *Relay) answer(l *reactor.Loop, id reactor.ID, w *row, in []byte) int {
	g := r.lane(l).joining[id.Slot()]
	res := upgrade.Response{Key: g.key[:], Offered: g.protocols}
	used, problem := upgrade.ParseResponse(in, &g.scan, &res)
	switch {
	case problem != nil:
		r.reject(l, id, w, resultRejected, engine.ErrBackend)
		return len(in)
	case used == 0:
		return 0
	}
	r.leaveJoining(l, id, w, resultOK)
	w.state = stateOpen
	r.targets[w.target].open.Add(1)
	l.Disarm(id)
	r.engine.ConnOf(l, w.client).Accept(bytes.Clone(res.Protocol))
	l.Rerun(id) // what came behind the 101 has its turn after the client's, in which that opens
	return used
}

// reject gives an attempt up and refuses the client with why.
func (r *Relay) reject(l *reactor.Loop, id reactor.ID, w *row, how result, why *engine.Refusal) {
	r.leaveJoining(l, id, w, how)
	w.state = stateClosing
	l.Abort(id)
	r.engine.ConnOf(l, w.client).Refuse(why)
}

// undialled goes on to the next target, or refuses the client: the connect to id failed.
func (r *Relay) undialled(l *reactor.Loop, id reactor.ID, w *row) {
	g := r.leaveJoining(l, id, w, resultRefused)
	c := r.engine.ConnOf(l, w.client)
	if l.Now() >= g.dialBy {
		c.Refuse(engine.ErrBackendTimeout)
		return
	}
	r.dial(l, c, g)
}

// leaveJoining forgets what only an attempt needs and counts how it ended.
func (r *Relay) leaveJoining(l *reactor.Loop, id reactor.ID, w *row, how result) *joining {
	n := r.lane(l)
	g := n.joining[id.Slot()]
	delete(n.joining, id.Slot())
	r.targets[w.target].count(how, l.Now().Sub(g.began))
	return g
}

// read fills b with random bytes.
func (n *lane) read(b []byte) { _, _ = n.rnd.Read(b) } // never fails, as ChaCha8.Read says
