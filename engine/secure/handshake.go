package secure

import (
	"crypto/tls"
	"fmt"
	"iter"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
)

// A handshake lives from the whole ClientHello to the end of crypto/tls's handshake, in a goroutine of its own:
//
//	loop                                    goroutine
//	hello whole ── begin ────────────────>  permit, tls.Conn.Handshake
//	bytes ── feed ── wake ───────────────>    Read: gives the permit back while there is nothing to read
//	wire  <── Do ──────────────────────────   what was written since, before each wait
//	shaken <── Do ─────────────────────────  the end: the tls.Conn is the loop's from here on
//	Gone ── gone ────────────────────────>  Read fails, nothing more is told
const (
	handshakeMax = 48 << 10     // bytes that a handshake may take from the client, certificates included
	unreadMax    = handshakeMax // of those that wait while it computes; beyond, the socket is not read
)

type handshake struct {
	s    *Server
	c    *conn
	wake chan struct{} // something to read
	gone chan struct{} // closed with the socket

	mu     sync.Mutex
	unread []byte // guarded by mu

	began mono.Time
	waits atomic.Bool // for its client

	// The goroutine's, until shaken.
	left    int      // bytes of the record under way that crypto/tls has not got yet
	taken   int      // bytes that it has got
	out     []byte   // written since the last wait
	alert   byte     // the last alert that was written without protection
	busy    bool     // it holds a permit
	secrets *secrets // apart, because the tls.Conn keeps it
}

// begin starts the goroutine for a whole ClientHello. The count of those that run is the caller's to keep.
func (c *conn) begin(hello []byte) {
	h := &handshake{s: c.s, c: c, unread: hello, secrets: new(secrets), wake: make(chan struct{}, 1), gone: make(chan struct{})}
	c.state, c.h, h.began = stateShaking, h, c.l.Now()
	c.queue()
	c.s.goroutines.Add(1)
	go h.run(c.l.Index()) // Server.Wait waits for it; Gone ends it
}

// queue puts c at the end of those whose handshakes run; those in front whose are over leave.
func (c *conn) queue() {
	p := c.s.share(c.l)
	for len(p.shaking) > 0 && p.shaking[0].state != stateShaking {
		p.shaking[0] = nil
		p.shaking = p.shaking[1:]
	}
	p.shaking = append(p.shaking, c)
}

// roomLooks is how many handshakes a newcomer looks at for one that can go.
const roomLooks = 16

// makeRoom ends the loop's oldest handshake that has waited for its client longer than anyone with a connection takes: whoever has
// many addresses could else hold all places with silence. Its goroutine ends soon; until then there is one more than Handshakes.
func (c *conn) makeRoom() bool {
	p := c.s.share(c.l)
	for range min(roomLooks, len(p.shaking)) {
		old := p.shaking[0]
		if old.state == stateShaking && c.l.Now().Sub(old.h.began) < c.s.o.Patience {
			return false // and those behind it, but for some whom we had kept waiting, for less
		}
		p.shaking[0] = nil
		p.shaking = p.shaking[1:]
		switch {
		case old.state != stateShaking:
		case old.h.waits.Load():
			old.stop(&Failure{ReasonBusy, ErrBusy}, nil)
			return true
		default: // it is we who keep it waiting
			p.shaking = append(p.shaking, old)
		}
	}
	return false
}

func (h *handshake) run(loop int) {
	defer h.s.goroutines.Done()
	defer h.s.n.running.Add(-1)
	if !h.compute() {
		return
	}
	t, err := h.shake()
	h.rest()
	select {
	case <-h.gone:
		h.secrets.wipe()
	default:
		h.s.o.Do(loop, func(*reactor.Loop) { h.c.shaken(h, t, err) })
	}
}

// shake does the handshake. A panic in it ends one socket and not the process.
func (h *handshake) shake() (t *tls.Conn, err error) {
	defer func() {
		if v := recover(); v != nil { // the value may quote what the client sent: only its type is told
			h.s.log("secure: a handshake panicked", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	t = tls.Server((*wire)(h.c), h.s.config())
	return t, t.Handshake()
}

// compute waits for a permit. false: the socket has gone.
func (h *handshake) compute() bool {
	select {
	case h.s.permits <- struct{}{}:
		h.busy = true
		return true
	case <-h.gone:
		return false
	}
}

// rest gives the permit back.
func (h *handshake) rest() {
	if h.busy {
		<-h.s.permits
		h.busy = false
	}
}

// read is wire.Read in the goroutine. It never gives bytes of two records, so that when the handshake is done, crypto/tls has
// taken its last record and not a byte behind it.
func (h *handshake) read(p []byte) (int, error) {
	for {
		n, err := h.take(p)
		if n > 0 || err != nil {
			return n, err
		}
		h.rest()
		h.waits.Store(true)
		h.flush()
		select {
		case <-h.wake:
		case <-h.gone:
			return 0, net.ErrClosed
		}
		h.waits.Store(false)
		if !h.compute() {
			return 0, net.ErrClosed
		}
	}
}

// take moves what may be read to p.
func (h *handshake) take(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left == 0 {
		if len(h.unread) < recordHeader {
			return 0, nil
		}
		h.left = recordLen(h.unread)
		if h.taken += h.left; h.taken > handshakeMax {
			return 0, errFlood
		}
	}
	n := copy(p, h.unread[:min(h.left, len(h.unread))])
	h.unread = h.unread[n:]
	h.left -= n
	return n, nil
}

// flush brings what was written to the loop. It may wait, so it is called without a permit.
func (h *handshake) flush() {
	if len(h.out) == 0 {
		return
	}
	out, id := h.out, h.c.id
	h.out = nil
	h.s.o.Do(id.Loop(), func(l *reactor.Loop) { _ = l.WriteWire(id, out) }) // ErrGone: Gone tells the goroutine
}

// write is wire.Write in the goroutine.
func (h *handshake) write(b []byte) {
	h.out = append(h.out, b...)
	for r := range records(b) {
		if r[0] == typeAlert && len(r) == recordHeader+2 {
			h.alert = r[recordHeader+1]
		}
	}
}

// feed gives the goroutine more to read, and returns how much it has; on the loop.
func (h *handshake) feed(b []byte) int {
	h.mu.Lock()
	h.unread = append(h.unread, b...)
	n := len(h.unread)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default: // it has been told
	}
	return n
}

// wire is a conn as crypto/tls sees it: the net.Conn below it. During the handshake only the goroutine calls it, later only
// the loop, which sets h to nil in between.
type wire conn

// Read never waits on the loop: empty is an error that crypto/tls takes as passing.
func (w *wire) Read(p []byte) (int, error) {
	if w.h != nil {
		return w.h.read(p)
	}
	n := copy(p, w.held[w.at:w.end])
	w.at += uint32(n)
	if n == 0 {
		return 0, errEmpty
	}
	return n, nil
}

// Write queues whole records.
func (w *wire) Write(b []byte) (int, error) {
	if w.h != nil {
		w.h.write(b)
		return len(b), nil
	}
	for range records(b) {
		w.sent++
	}
	if err := w.l.WriteWire(w.id, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// records are those that b, which crypto/tls has written, consists of.
func records(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) >= recordHeader {
			n := min(recordLen(b), len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// recordLen is how long the record is that begins with header, with it.
func recordLen(header []byte) int { return recordHeader + int(header[3])<<8 + int(header[4]) }

// empty is a temporary net.Error: crypto/tls goes on at the next Read as if nothing had happened.
type empty struct{}

var errEmpty net.Error = empty{}

func (empty) Error() string   { return "secure: no record" }
func (empty) Timeout() bool   { return true }
func (empty) Temporary() bool { return true }

// The rest of net.Conn: the socket is the reactor's to close, its deadlines are the engine's, and nobody asks where it leads.

// Close does nothing.
func (w *wire) Close() error { return nil }

// LocalAddr has no answer.
func (w *wire) LocalAddr() net.Addr { return nowhere{} }

// RemoteAddr has no answer.
func (w *wire) RemoteAddr() net.Addr { return nowhere{} }

// SetDeadline does nothing.
func (w *wire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (w *wire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "reactor" }
func (nowhere) String() string  { return "" }
