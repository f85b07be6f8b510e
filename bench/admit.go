package bench

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Admissions runs lanes that each bring one socket after the other through a gate: ticket, open, close. With Heads the
// tickets were fetched before. With Keep a socket stays open instead of being closed, and an admission ends with the 101.
type Admissions struct {
	Loop *Loop
	API  *Target // where Mint's requests go; not used with Heads
	Gate *Target
	Host string // of the gate, as in the Host header
	Mint *Mint  // not used with Heads
	Keep bool   // leave sockets open; they answer pings until HangUp, or the loop's end
	Max  int    // admissions to make at most, 0: until Stop

	// Hello is a text message that a kept socket begins with, as a protocol of its own wants it; its server then asks with {}, now and
	// then, whether the client is there, and hears {}. nil: no such protocol.
	Hello []byte

	Heads [][]byte       // upgrade requests, each used once; nil: ask for tickets
	Then  func() Handler // takes over a kept socket; its Opened is called; nil: one that answers pings

	Done    uint64
	Latency Hist // from the request for the ticket, or the dial, to the last byte
	Lost    int  // kept sockets that are gone again
	Pings   int  // that kept sockets have answered
	Err     error

	begun int
	busy  int
	stop  bool
}

// Start begins with n lanes.
func (a *Admissions) Start(n int) {
	a.stop = false
	for range n {
		w := &lane{a: a}
		if a.Heads == nil {
			w.caller = NewCaller(a.Loop, a.API, w.ticket)
		}
		a.busy++
		w.begin()
	}
}

// Again gives a finished Admissions another set of Heads.
func (a *Admissions) Again(heads [][]byte) { a.Heads, a.begun = heads, 0 }

// Stop begins no more; Idle says when what is under way has ended.
func (a *Admissions) Stop() { a.stop = true }

// HangUp closes the kept sockets, without a close frame. Those that Then took over are not its own.
func (a *Admissions) HangUp() {
	for _, c := range a.Loop.conns {
		if c == nil {
			continue
		}
		if k, ok := c.h.(*kept); ok && k.a == a {
			c.Close()
		}
	}
}

// Idle says that nothing is under way.
func (a *Admissions) Idle() bool { return a.busy == 0 }

func (a *Admissions) fail(err error) {
	if a.Err == nil {
		a.Err = err
	}
	a.stop = true
}

// more says whether another admission is wanted.
func (a *Admissions) more() bool {
	return !a.stop && (a.Max == 0 || a.begun < a.Max) && (a.Heads == nil || a.begun < len(a.Heads))
}

// A lane is the Handler of its gate socket, from the 101 on.
type lane struct {
	a      *Admissions
	caller *Caller
	up     Upgrade
	req    []byte
	head   []byte
	start  time.Duration
	bye    bool // the server's close frame is here
}

func (w *lane) begin() {
	a := w.a
	if !a.more() {
		a.busy--
		if w.caller != nil {
			w.caller.HangUp()
		}
		return
	}
	w.start = a.Loop.Now()
	if a.Heads != nil {
		w.head = a.Heads[a.begun]
		a.begun++
		w.dial()
		return
	}
	a.begun++
	w.req = a.Mint.Append(w.req[:0])
	w.caller.Post(w.req)
}

func (w *lane) ticket(an Answer, err error) {
	t, err := TicketOf(an, err)
	if err != nil {
		w.end(fmt.Errorf("ticket: %w", err))
		return
	}
	w.head = AppendUpgrade(w.head[:0], w.a.Host, t.Path, t.Secret)
	w.dial()
}

func (w *lane) dial() {
	w.up, w.bye = Upgrade{Head: w.head, Then: w}, false
	if _, err := w.a.Loop.Dial(w.a.Gate, &w.up); err != nil {
		w.end(err)
	}
}

// end counts an admission and begins the next.
func (w *lane) end(err error) {
	if err != nil {
		w.a.fail(err)
	} else {
		w.a.Done++
		w.a.Latency.Record(w.a.Loop.Now() - w.start)
	}
	w.begin()
}

// Opened implements Handler: the 101 is here.
func (w *lane) Opened(c *Conn) {
	if w.a.Keep {
		w.keep(c)
		return
	}
	c.Write(PoliteClose)
}

func (w *lane) keep(c *Conn) {
	if w.a.Then == nil {
		c.Handle(&kept{w.a})
		if w.a.Hello != nil {
			c.Write(AppendFrame(nil, OpText, w.a.Hello))
		}
	} else {
		h := w.a.Then()
		c.Handle(h)
		h.Opened(c)
	}
	w.end(nil)
}

// Data implements Handler. It reads over everything up to the server's close frame; the server then ends the
// connection (RFC 6455 7.1.1).
func (w *lane) Data(c *Conn, b []byte) int {
	f, n, err := ParseFrame(b)
	if err == nil && n > 0 && f.Op == OpClose {
		w.bye = true
		if cl := closed(f.Payload); cl.Code != 1000 {
			err = cl
		}
	}
	if err != nil {
		c.Close()
		w.end(err)
	}
	return n
}

// Closed implements Handler. After the server's close frame the end is what a lane waits for.
func (w *lane) Closed(_ *Conn, err error) {
	switch {
	case err == io.EOF && w.bye:
		err = nil
	case err == io.EOF:
		err = fmt.Errorf("bench: ended without a close frame: %w", io.ErrUnexpectedEOF)
	}
	w.end(err)
}

// stillThere is a question, and its answer, of a protocol with a Hello.
const stillThere = "{}"

// kept is the Handler of a socket that stays open.
type kept struct{ a *Admissions }

// Opened implements Handler; the socket was open before.
func (k *kept) Opened(*Conn) {}

// Data implements Handler.
func (k *kept) Data(c *Conn, b []byte) int {
	f, n, err := ParseFrame(b)
	if err == nil && n > 0 && f.Op >= OpClose {
		if cl := answerControl(c, f); cl != nil {
			err = cl
		} else if f.Op == OpPing {
			k.a.Pings++
		}
	}
	if err == nil && n > 0 && f.Op == OpText && k.a.Hello != nil && string(f.Payload) == stillThere {
		c.Write(AppendFrame(nil, OpText, f.Payload))
		k.a.Pings++
	}
	if err != nil {
		k.a.Err = errors.Join(k.a.Err, err)
		n = len(b)
	}
	return n
}

// Closed implements Handler.
func (k *kept) Closed(*Conn, error) { k.a.Lost++ }
