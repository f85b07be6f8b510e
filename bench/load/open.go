package load

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// errSecure is a ticket for a gate with TLS.
var errSecure = errors.New("the gate speaks TLS (wss://), which bench does not: measure behind the TLS listener, or one without")

// An opener brings sockets through the gate: ticket, dial, upgrade; each of its lanes one at a time. With a pacer they begin
// when they are due, otherwise as soon as a lane is free.
type opener struct {
	w     *worker
	pacer *pacer
	max   int // 0: no end
	next  func() bench.Handler
	full  func() bool             // whether there are enough sockets now; nil: never
	early func() bool             // whether to break off behind the upgrade request; nil: never
	gone  func(due time.Duration) // hears of one that was broken off
	due   time.Duration           // when the socket was due that next makes a handler for
	stop  bool

	api   *bench.Target // nil: no tickets
	mint  *bench.Mint
	plain *bench.Target
	head  []byte // the upgrade request for plain

	free  []*lane
	lanes int
	begun int
	busy  int
	wait  []time.Duration // when those were due that no lane was free for
}

func newOpener(w *worker, most int, next func() bench.Handler) (*opener, error) {
	o := &opener{w: w, max: most, next: next}
	var err error
	if w.job.API == "" {
		o.head = bench.AppendUpgrade(nil, w.job.Host, []byte(w.job.Path), nil)
		o.plain, err = bench.NewTarget(w.job.Plain)
		return o, err
	}
	o.mint = bench.NewMint(w.job.API, w.job.Key, w.job.Stream, w.job.Clients)
	o.mint.Skip(w.job.Index, w.job.Share)
	o.api, err = bench.NewTarget(w.job.API)
	return o, err
}

func (o *opener) more() bool {
	return !o.stop && (o.max == 0 || o.begun < o.max) && (o.full == nil || !o.full())
}

// over says that all sockets have been opened, or have failed to.
func (o *opener) over() bool { return o.busy == 0 && len(o.wait) == 0 && !o.more() }

// tick begins what is due and what a lane has become free for, as many as there are lanes at most: what fails at once would
// else go on for ever.
func (o *opener) tick(now time.Duration) time.Duration {
	next := far
	if o.pacer != nil && !o.stop {
		next = o.w.due(o.pacer, now, func(due time.Duration) {
			if o.more() {
				o.begun++
				o.wait = append(o.wait, due)
			}
		})
	}
	for range o.w.job.Lanes {
		switch {
		case len(o.free) == 0 && o.lanes == o.w.job.Lanes:
			return next
		case len(o.wait) > 0:
			due := o.wait[0]
			if o.wait = o.wait[1:]; len(o.wait) == 0 {
				o.wait = nil
			}
			o.one(due)
		case o.pacer == nil && o.more():
			o.begun++
			o.w.Due++
			o.one(now)
		default:
			o.rest()
			return next
		}
	}
	return now
}

// rest ends the connections to the handshake that nobody will use.
func (o *opener) rest() {
	if o.busy > 0 || o.more() {
		return
	}
	for _, l := range o.free {
		l.hangUp()
	}
}

// one begins a socket that was due at due, on a lane that there is.
func (o *opener) one(due time.Duration) {
	o.busy++
	o.w.Begun++
	var l *lane
	if n := len(o.free); n > 0 {
		l, o.free = o.free[n-1], o.free[:n-1]
	} else {
		o.lanes++
		l = &lane{o: o}
		if o.api != nil {
			l.caller = bench.NewCaller(o.w.loop, o.api, l.ticket)
		}
	}
	l.begin(due)
}

// ended takes a lane back, whose socket is open or has failed.
func (o *opener) ended(l *lane) {
	o.busy--
	o.free = append(o.free, l)
}

// target is the gate at host, host:port.
func (o *opener) target(host []byte) (*bench.Target, error) {
	if t := o.w.targets[string(host)]; t != nil {
		return t, nil
	}
	at, err := resolve(string(host), "80") // once a gate: everything waits
	if err != nil {
		return nil, fmt.Errorf("bench: gate: %w", err)
	}
	t, err := bench.NewTarget(at)
	if err != nil {
		return nil, err
	}
	o.w.targets[string(host)] = t
	return t, nil
}

// A lane opens one socket at a time. It is the handler between the 101 and the verb's own.
type lane struct {
	o      *opener
	caller *bench.Caller
	req    []byte
	head   []byte
	up     bench.Upgrade
	dialed time.Duration
	due    time.Duration
}

func (l *lane) begin(due time.Duration) {
	l.due = due
	if l.o.api == nil {
		l.dial(l.o.plain, l.o.head)
		return
	}
	l.req = l.o.mint.Append(l.req[:0])
	l.caller.Post(l.req)
}

func (l *lane) ticket(a bench.Answer, err error) {
	o := l.o
	t, err := bench.TicketOf(a, err)
	if err == nil && t.Secure {
		err = errSecure
	}
	if err != nil {
		l.failed(err)
		return
	}
	record(o.w.hists.of(histTicket), o.w.loop.Now()-l.due, 1)
	to, err := o.target(t.Host)
	if err != nil {
		l.failed(err)
		return
	}
	l.head = bench.AppendUpgrade(l.head[:0], string(t.Host), t.Path, t.Secret)
	l.dial(to, l.head)
}

func (l *lane) dial(to *bench.Target, head []byte) {
	l.up, l.dialed = bench.Upgrade{Head: head, Then: l}, l.o.w.loop.Now()
	var h bench.Handler = &l.up
	if l.o.early != nil && l.o.early() {
		h = &brokenOff{l, head}
	}
	if _, err := l.o.w.loop.Dial(to, h); err != nil {
		l.failed(err)
	}
}

func (l *lane) failed(err error) {
	o := l.o
	o.w.fail(classOf(err), 1)
	if o.w.job.Insist && o.max > 0 {
		o.begun--
	}
	o.ended(l)
}

func (l *lane) hangUp() {
	if l.caller != nil {
		l.caller.HangUp()
	}
}

// Opened implements bench.Handler: the 101 is here.
func (l *lane) Opened(c *bench.Conn) {
	w := l.o.w
	record(w.hists.of(histOpen), w.loop.Now()-l.dialed, 1)
	w.Opened++
	l.o.due = l.due
	h := l.o.next()
	c.Handle(h)
	h.Opened(c)
	l.o.ended(l)
}

// Data implements bench.Handler; nothing comes while the upgrade has the socket.
func (l *lane) Data(*bench.Conn, []byte) int { return 0 }

// Closed implements bench.Handler: there was no 101.
func (l *lane) Closed(_ *bench.Conn, err error) { l.failed(err) }

// A brokenOff sends the upgrade request and is gone.
type brokenOff struct {
	l    *lane
	head []byte
}

// Opened implements bench.Handler.
func (b *brokenOff) Opened(c *bench.Conn) {
	c.Write(b.head)
	c.Reset()
	b.l.o.gone(b.l.due)
	b.l.o.ended(b.l)
}

// Data implements bench.Handler; nothing is read.
func (b *brokenOff) Data(*bench.Conn, []byte) int { return 0 }

// Closed implements bench.Handler: it did not connect.
func (b *brokenOff) Closed(_ *bench.Conn, err error) { b.l.failed(err) }
