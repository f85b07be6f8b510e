package conform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// EchoBackend is a WebSocket server of another library, gorilla/websocket, that sends every message back whole. It stands
// behind a gateway that relays.
type EchoBackend struct {
	ln      net.Listener
	srv     http.Server
	deflate bool
	done    chan error // how srv ended
	running sync.WaitGroup
}

// NewEchoBackend returns a backend on a free loopback port, which accepts permessage-deflate or not. Close ends it.
func NewEchoBackend(deflate bool) (*EchoBackend, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &EchoBackend{ln: ln, deflate: deflate, done: make(chan error, 1)}
	b.srv.Handler = http.HandlerFunc(b.serve)
	b.srv.ReadHeaderTimeout = upgradeWithin
	go func() { b.done <- b.srv.Serve(ln) }() // Close waits
	return b, nil
}

// URL is where it listens.
func (b *EchoBackend) URL() string { return "ws://" + b.Addr() + "/" }

// Addr is its host:port.
func (b *EchoBackend) Addr() string { return b.ln.Addr().String() }

// Close ends the listener, and returns when every connection has ended: their clients end them.
func (b *EchoBackend) Close() error {
	err := b.srv.Close()
	b.running.Wait()
	if ended := <-b.done; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// serve echoes until the client closes.
func (b *EchoBackend) serve(w http.ResponseWriter, q *http.Request) {
	b.running.Add(1)
	defer b.running.Done()
	u := websocket.Upgrader{ReadBufferSize: readBuffer, WriteBufferSize: readBuffer, EnableCompression: b.deflate}
	c, err := u.Upgrade(w, q, nil)
	if err != nil {
		return // it has answered
	}
	defer func() { _ = c.Close() }() // its end is no news
	for {
		kind, msg, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, msg) != nil {
			return
		}
	}
}

// Examiner is a backend that plays cases against the client side of a gateway. A client on the gateway's other side, ours
// too, sends everything back.
type Examiner struct {
	ln   *net.TCPListener
	seed uint64
}

// NewExaminer returns an examiner on a free loopback port; seed makes its clients' keys.
func NewExaminer(seed uint64) (*Examiner, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &Examiner{ln, seed}, nil
}

// URL is where it listens.
func (e *Examiner) URL() string { return "ws://" + e.ln.Addr().String() + "/" }

// Close ends the listener.
func (e *Examiner) Close() error { return e.ln.Close() }

// Open is an Options.Open, for one case at a time: a client goes to the gateway, and the gateway comes here.
func (e *Examiner) Open(ctx context.Context, to Target) (*Link, error) {
	type dialled struct {
		s   *Socket
		err error
	}
	client := make(chan dialled, 1)
	go func() { // ends with the upgrade, which is bounded
		s, err := Dial(ctx, to, "", e.seed)
		client <- dialled{s, err}
	}()
	backend, err := e.accept()
	d := <-client
	if err = errors.Join(err, d.err); err != nil {
		if backend != nil {
			_ = backend.Close() // of no use
		}
		if d.s != nil {
			_ = d.s.Close() // of no use
		}
		return nil, err
	}
	end := make(chan farEnd, 1)
	go func() { // ends with its connection, at the latest when Far is tired of waiting
		code, err := d.s.echo()
		if err != nil {
			_ = d.s.Close() // so that nobody waits for its echo
		}
		end <- farEnd{code, err}
	}()
	return &Link{Socket: backend, Far: func() (uint16, error) { return far(d.s, end) }}, nil
}

func (e *Examiner) accept() (*Socket, error) {
	if err := e.ln.SetDeadline(time.Now().Add(upgradeWithin)); err != nil {
		return nil, err
	}
	conn, err := e.ln.Accept()
	if err != nil {
		return nil, err
	}
	s, err := Serve(conn, e.seed)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

// farEnd is how the client on the other side ended.
type farEnd struct {
	code uint16
	err  error
}

// far waits for the end of the client on the other side.
func far(s *Socket, end <-chan farEnd) (uint16, error) {
	defer func() { _ = s.Close() }() // closed by the other side already
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case e := <-end:
		return e.code, e.err
	case <-t.C:
		err := errors.Join(fmt.Errorf("still open after %v", patience), s.Close())
		<-end
		return 0, err
	}
}

// echo sends back every message whole, until a close frame and the end of the connection.
func (s *Socket) echo() (uint16, error) {
	for {
		ev, c, err := s.receive()
		switch {
		case err != nil:
			return 0, fmt.Errorf("no close frame, then %w", err)
		case c != nil:
			return s.leave(c.code)
		case ev.Op == opPong:
			continue
		case ev.Op == opPing:
			ev.Op = opPong
		}
		// What cannot be sent any more is no news: the close frame, or its absence, is.
		_ = s.send(&Part{Frames: []Frame{{Fin: true, Op: ev.Op, Payload: ev.Data}}})
	}
}

// leave answers a close frame and waits for the end of the connection.
func (s *Socket) leave(code uint16) (uint16, error) {
	_ = s.send(&Part{Frames: []Frame{answerTo(code)}}) // its connection may be gone by now
	if _, _, err := s.receive(); err != io.EOF {
		return code, fmt.Errorf("behind its close frame: %w", err)
	}
	return code, nil
}

// answerTo is the close frame that answers one with code (5.5.1).
func answerTo(code uint16) Frame {
	if code == codeNone {
		return Frame{Fin: true, Op: opClose}
	}
	return closeFrame(code, "")
}
