package secure

import (
	"crypto/tls"
	"errors"
	"io"

	"ticketgate/engine/reactor"
)

// The life of a conn:
//
//	hello ──whole──> shaking ──handshake done──> open ──> handed to the kernel: the conn is garbage
//	  │                 │                         │
//	  └── no TLS, busy ─┴── handshake failed ──> failed: Read says why, the reactor closes
//
// All but the goroutine of shaking (handshake.go) happens on the loop.
type stage uint8

const (
	stateHello stage = iota
	stateShaking
	stateOpen
	stateFailed
)

// A conn is the reactor.Filter of one socket.
type conn struct {
	s  *Server
	l  *reactor.Loop
	id reactor.ID

	state stage
	hello hello

	held    []byte // off the wire, not decoded: held[at:]
	at, end uint32 // open: crypto/tls may read held[at:end], one record
	sent    uint64 // open: records written under the application key
	given   uint32 // open: bytes since the last record that gave nothing was forgiven
	nothing uint8  // open: records that gave nothing

	t       *tls.Conn  // open
	h       *handshake // shaking; after a failure until the conn is garbage, because its goroutine may still ask for it
	offload *offload   // open: what the kernel needs, until it has it or never will
	err     *Failure   // failed
}

func newConn(s *Server, l *reactor.Loop, id reactor.ID) *conn { return &conn{s: s, l: l, id: id} }

// Feed implements reactor.Filter.
func (c *conn) Feed(_ *reactor.Loop, _ reactor.ID, b []byte) {
	switch c.state {
	case stateHello:
		c.held = c.s.share(c.l).pool.add(c.held, b)
		c.collect()
	case stateShaking:
		if c.h.feed(b) > unreadMax {
			c.l.Pause(c.id) // until shaken
		}
	case stateOpen:
		c.held = c.s.share(c.l).pool.add(c.held, b)
	}
}

// collect looks whether the ClientHello is whole.
func (c *conn) collect() {
	whole, bad := c.hello.look(c.held)
	switch {
	case bad != nil:
		c.stop(&Failure{ReasonMalformed, bad}, alertRecord(bad.alert))
	case !whole:
	case c.s.n.running.Add(1) > int64(c.s.o.Handshakes) && !c.makeRoom():
		c.s.n.running.Add(-1)
		c.stop(&Failure{ReasonBusy, ErrBusy}, nil)
	default:
		hello := c.held
		c.held = nil
		c.begin(hello)
	}
}

// stop ends the socket before it has been open: in order if there is a last word, else at once.
func (c *conn) stop(f *Failure, last []byte) {
	c.leave()
	c.state, c.err = stateFailed, f
	c.s.n.failed[f.Reason].Add(1)
	if last != nil {
		_ = c.l.WriteWire(c.id, last) // it fails if the socket is closed already
	} else {
		c.l.Abort(c.id)
	}
	c.s.o.Done(c.l, c.id, nil, f)
}

// leave drops what the stage holds.
func (c *conn) leave() {
	if c.held != nil {
		c.s.share(c.l).pool.put(c.held)
		c.held = nil
	}
	if c.state == stateShaking {
		close(c.h.gone)
	}
	c.forget()
	c.t = nil
}

// shaken takes the tls.Conn over from the goroutine, which has ended.
func (c *conn) shaken(h *handshake, t *tls.Conn, err error) {
	if c.state != stateShaking {
		return // the socket has gone, or was stopped, while this was on its way
	}
	c.l.Resume(c.id)
	if err != nil {
		h.secrets.wipe()
		c.stop(&Failure{reasonOf(err, h.alert), err}, h.out)
		c.l.Refilter(c.id) // Read says that it is over
		return
	}
	if len(h.out) > 0 {
		_ = c.l.WriteWire(c.id, h.out)
	}
	c.h, c.t, c.state = nil, t, stateOpen
	if len(h.unread) > 0 {
		c.held = c.s.share(c.l).pool.add(nil, h.unread)
	}
	slim(t)
	state := t.ConnectionState()
	c.s.n.handshakes.Add(1)
	c.s.n.user.Add(1)
	if state.DidResume {
		c.s.n.resumed.Add(1)
	}
	c.offload = h.secrets.offload(&state)
	c.s.o.Done(c.l, c.id, &state, nil)
	c.l.Refilter(c.id)
}

// Read implements reactor.Filter.
func (c *conn) Read(_ *reactor.Loop, _ reactor.ID, plain []byte) (int, error) {
	switch c.state {
	case stateOpen:
		return c.decode(plain)
	case stateFailed:
		return 0, c.err
	}
	return 0, nil
}

// A record that gives nothing to the handler is new keys, which cost as much as 100 short messages and may want an answer, or an
// empty one. A client has nothingMost of them, and one more for each nothingPer bytes that it says.
const (
	nothingMost = 64
	nothingPer  = 64 << 10
)

var errNothing = errors.New("secure: too many records with nothing for us in them")

// decode gives crypto/tls whole records, one at a time, until one has something for the handler.
func (c *conn) decode(plain []byte) (int, error) {
	for c.cut() {
		n, err := c.open(plain)
		switch {
		case n > 0:
			if c.offload != nil {
				c.offload.got++
			}
			if c.nothing > 0 {
				c.forgive(n)
			}
			return n, nil
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case !errors.Is(err, errEmpty):
			return 0, err
		}
		c.forget() // new keys, or a record that is not numbered: the kernel would not be in step
		if c.nothing++; c.nothing > nothingMost {
			return 0, errNothing
		}
	}
	if c.held != nil {
		c.held = c.s.share(c.l).pool.keep(c.held, int(c.at))
		c.at = 0
	}
	if c.held == nil {
		c.handOver()
	}
	return 0, nil
}

// forgive counts n bytes that the client has said for it.
func (c *conn) forgive(n int) {
	if c.given += uint32(n); c.given >= nothingPer {
		c.given -= nothingPer
		c.nothing--
	}
}

// cut finds the next whole record. Of one that is none the header is enough: crypto/tls refuses it.
func (c *conn) cut() bool {
	const longest = recordMax + 2048 // TLS 1.2; RFC 5246 6.2.3
	rest := c.held[c.at:]
	if len(rest) < recordHeader {
		return false
	}
	n := recordLen(rest)
	if rest[1] != majorVersion || rest[2] != 3 || n > recordHeader+longest {
		n = recordHeader
	}
	c.end = c.at + uint32(n)
	return n <= len(rest)
}

// Write implements reactor.Filter.
func (c *conn) Write(_ *reactor.Loop, _ reactor.ID, plain []byte) error {
	if c.state != stateOpen {
		return errNotOpen
	}
	_, err := c.t.Write(plain)
	return err
}

var errNotOpen = errors.New("secure: nothing can be said before the handshake is done")

// CloseWrite implements reactor.Filter.
func (c *conn) CloseWrite(*reactor.Loop, reactor.ID) {
	if c.state == stateOpen {
		_ = c.t.CloseWrite() // it fails if the socket cannot be written to any more
	}
}

// Held implements reactor.Filter.
func (c *conn) Held() int { return cap(c.held) }

// Gone implements reactor.Filter.
func (c *conn) Gone(*reactor.Loop, reactor.ID) {
	switch c.state {
	case stateHello, stateShaking:
		c.s.n.failed[ReasonGone].Add(1)
	case stateOpen:
		c.s.n.user.Add(-1)
	}
	c.leave()
	c.state = stateFailed
}
