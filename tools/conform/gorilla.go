package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/gorilla/websocket"
)

// GorillaOptions say where gorilla/websocket goes as a client.
type GorillaOptions struct {
	Target  func(ctx context.Context) (Target, error) // for one case
	Deflate bool                                      // permessage-deflate is on, and offered
	AtOnce  int                                       // cases at a time, 0: one
}

// RunGorilla plays the cases in which the tester keeps to the rules, with gorilla/websocket as the client: what the tester
// of this package believes to be legal is what another library sends. Fragments are about as long as the case's, pings are
// sent before the message that they would interrupt, and section 13 is left out: gorilla has but one offer.
func RunGorilla(ctx context.Context, cases []*Case, o GorillaOptions) []Result {
	may := slices.DeleteFunc(slices.Clone(cases), func(c *Case) bool {
		return !c.legal() || c.Section() == "13" || c.Offer != "" && !o.Deflate
	})
	return playAll(may, o.AtOnce, func(c *Case) Result {
		begun := time.Now()
		res := Result{Case: c}
		if err := o.one(ctx, c, &res); err != nil {
			res.Verdict, res.Why = Failed, err.Error()
		}
		res.Took = time.Since(begun)
		return res
	})
}

// one plays one case. An error is a wrong behaviour; how the connection ended is in res.
func (o *GorillaOptions) one(ctx context.Context, c *Case, res *Result) error {
	to, err := o.Target(ctx)
	if err != nil {
		return err
	}
	g := &gorilla{events: make(chan Event, arrivalsBuffered), ended: make(chan error, 1)}
	d := websocket.Dialer{HandshakeTimeout: upgradeWithin, EnableCompression: o.Deflate, ReadBufferSize: readBuffer,
		WriteBufferSize: fragmentOf(c), NetDialContext: g.dial}
	conn, a, err := d.DialContext(ctx, "ws://"+to.Addr+to.Path, to.Header)
	if err != nil {
		return err
	}
	g.Conn = conn
	defer func() { _ = conn.Close() }() // closed by the other side already
	if on := a.Header.Get("Sec-WebSocket-Extensions") != ""; on != o.Deflate {
		return fmt.Errorf("compression negotiated: %t, configured: %t", on, o.Deflate)
	}
	conn.SetPongHandler(func(payload string) error {
		g.events <- event(opPong, payload)
		return nil
	})
	go g.read() // ends with the connection; leave waits
	err = g.script(c)
	var wrong error
	res.Ending, wrong = g.leave()
	return errors.Join(err, wrong)
}

// fragmentOf is the size of c's fragments, as a write buffer: gorilla sends a frame when it is full.
func fragmentOf(c *Case) int {
	if c.Frames < 2 {
		return readBuffer
	}
	return max(1, c.Bytes/c.Frames)
}

// gorilla is a client under way.
type gorilla struct {
	*websocket.Conn
	events chan Event
	ended  chan error // how reading ended
	chop   int        // octets a write
	op     int        // of the message being put together
	msg    []byte
}

func (g *gorilla) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	return &chopper{c, g}, err
}

// chopper is a connection that writes in pieces.
type chopper struct {
	net.Conn
	g *gorilla
}

// Write implements net.Conn.
func (c *chopper) Write(b []byte) (int, error) {
	s := Socket{conn: c.Conn}
	return len(b), s.write(b, c.g.chop)
}

// read tells of all messages until the connection ends.
func (g *gorilla) read() {
	for {
		kind, msg, err := g.ReadMessage()
		if err != nil {
			g.ended <- err
			return
		}
		g.events <- Event{byte(kind), msg}
	}
}

// script sends the parts in turn, each after what the one before has to bring.
func (g *gorilla) script(c *Case) error {
	for part := range c.Parts {
		g.chop = part.Chop
		if err := g.SetWriteDeadline(time.Now().Add(part.patience())); err != nil {
			return err
		}
		for i := range part.Frames {
			if err := g.frame(&part.Frames[i]); err != nil {
				return err
			}
		}
		for _, want := range part.Want {
			if err := g.expect(want, part.patience()); err != nil {
				return err
			}
		}
	}
	return nil
}

// frame sends a control frame, and a message when its last frame is here.
func (g *gorilla) frame(f *Frame) error {
	if f.Op >= opClose {
		return g.WriteControl(int(f.Op), f.Payload, time.Now().Add(patience))
	}
	if f.Op != opContinuation {
		g.op, g.msg = int(f.Op), nil
	}
	if g.msg = append(g.msg, f.Payload...); !f.Fin {
		return nil
	}
	w, err := g.NextWriter(g.op)
	if err != nil {
		return err
	}
	_, err = w.Write(g.msg)
	return errors.Join(err, w.Close())
}

// expect waits for one event.
func (g *gorilla) expect(want Event, within time.Duration) error {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case got := <-g.events:
		if !same([]Event{got}, []Event{want}) {
			return errors.New("got " + describe([]Event{got}) + ", want " + describe([]Event{want}))
		}
		return nil
	case err := <-g.ended:
		g.ended <- err
		return fmt.Errorf("the connection ended: %w", err)
	case <-t.C:
		return fmt.Errorf("nothing within %v, want %s", within, describe([]Event{want}))
	}
}

// leave closes with 1000 and waits for the answer.
func (g *gorilla) leave() (Ending, error) {
	_ = g.WriteControl(opClose, closeFrame(codeNormal, "").Payload, time.Now().Add(patience)) // the reader knows what became of it
	_ = g.SetReadDeadline(time.Now().Add(patience))                                           // else the connection is gone already
	err := <-g.ended
	var hung *websocket.CloseError
	switch {
	case !errors.As(err, &hung) || hung.Code == websocket.CloseAbnormalClosure:
		return Unclean, fmt.Errorf("no close frame: %w", err)
	case hung.Code != codeNormal:
		return WrongCode, fmt.Errorf("closed with %d, want %d", hung.Code, codeNormal)
	case len(g.events) > 0:
		return Clean, fmt.Errorf("%d events that nobody asked for", len(g.events))
	default:
		return Clean, nil
	}
}
