package load

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// errSecure is a ticket for a gate with TLS.
var errSecure = errors.New("the gate speaks TLS (wss://), which bench does not: measure behind the TLS listener, or one without")

// insistPause is how long an opener that insists rests after a failure: a server that refuses everything is not made to do it as
// often as it can.
const insistPause = 50 * time.Millisecond

// An opener brings sockets through the gate, one at a time on each of its lanes: ticket, dial, upgrade.
type opener struct {
	queue
	max   int // sockets; 0: no end
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

	resolve func(host, port string) (string, error)
	unknown map[string]unknown // by host:port: gates that have no address
}

// An unknown gate is not asked for again before its time: the resolver may take many seconds, and everything waits for it.
type unknown struct {
	err   error
	again time.Duration
}

// unknownFor is how long a gate without an address stays so.
const unknownFor = time.Minute

func newOpener(w *worker, most int, next func() bench.Handler) (*opener, error) {
	o := &opener{max: most, next: next, resolve: resolve, unknown: make(map[string]unknown)}
	o.queue = queue{w: w, more: o.wanted, make: o.lane}
	var err error
	if w.job.API == "" {
		o.head = bench.AppendUpgrade(nil, w.job.Host, []byte(w.job.Path), nil)
		o.plain, err = bench.NewTarget(w.job.Plain)
		return o, err
	}
	o.mint = w.mint()
	o.api, err = bench.NewTarget(w.job.API)
	return o, err
}

func (o *opener) wanted() bool {
	return !o.stop && (o.max == 0 || o.begun < o.max) && (o.full == nil || !o.full())
}

func (o *opener) lane() starter {
	l := &lane{o: o}
	l.wait.expired = l.late
	if o.api != nil {
		l.caller = bench.NewCaller(o.w.loop, o.api, l.ticket)
	}
	return l
}

// target is the gate at host, host:port.
func (o *opener) target(host []byte) (*bench.Target, error) {
	if t := o.w.targets[string(host)]; t != nil {
		return t, nil
	}
	now := o.w.loop.Now()
	if u, ok := o.unknown[string(host)]; ok && now < u.again {
		return nil, u.err
	}
	at, err := o.resolve(string(host), "80") // once a gate: everything waits, and is not late for that
	o.w.waits.shift(o.w.loop.Now() - now)
	if err != nil {
		err = fmt.Errorf("bench: gate: %w", err)
		o.unknown[string(host)] = unknown{err, o.w.loop.Now() + unknownFor}
		return nil, err
	}
	t, err := bench.NewTarget(at)
	if err != nil {
		return nil, err
	}
	o.w.targets[string(host)] = t
	o.w.gates = append(o.w.gates, at)
	return t, o.w.report() // now: whoever is behind it is to be looked at before the first socket
}

// A lane opens one socket at a time. It is the handler between the 101 and the verb's own.
type lane struct {
	o      *opener
	caller *bench.Caller
	conn   *bench.Conn // nil: nothing was dialled
	wait   wait        // for the ticket, then for the 101
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
	l.o.w.waits.begin(&l.wait, l.o.w.loop.Now())
	l.caller.Post(l.req)
}

func (l *lane) ticket(a bench.Answer, err error) {
	o := l.o
	l.wait.end()
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
	var err error
	if l.conn, err = l.o.w.loop.Dial(to, h); err != nil {
		l.failed(err)
		return
	}
	l.o.w.waits.begin(&l.wait, l.dialed)
}

// late gives up the ticket, or the connection.
func (l *lane) late() {
	if l.conn != nil {
		l.conn.Close()
	} else {
		l.caller.HangUp()
	}
	l.failed(errLate)
}

// ended gives the lane back.
func (l *lane) ended() {
	l.over()
	l.o.ended(l)
}

// over forgets what was under way.
func (l *lane) over() {
	l.wait.end()
	l.conn = nil
}

func (l *lane) failed(err error) {
	o := l.o
	if o.gone != nil { // churn: this was an operation
		o.w.failed(err, l.due)
	} else {
		o.w.fail(o.w.class(err), 1)
	}
	if o.w.job.Insist && o.max > 0 {
		o.begun--
		o.pause = o.w.loop.Now() + insistPause
	}
	if o.max > 0 { // each socket is tried for once, or pauses are made for all lanes
		l.ended()
		return
	}
	l.over()
	o.queue.failed(l)
}

func (l *lane) hangUp() {
	if l.caller != nil {
		l.caller.HangUp()
	}
}

func (l *lane) since() time.Duration { return l.due }

// Opened implements bench.Handler: the 101 is here.
func (l *lane) Opened(c *bench.Conn) {
	w := l.o.w
	from := l.dialed
	if l.o.api == nil { // the wait for a lane shows in no ticket's time
		from = l.due
	}
	record(w.hists.of(histOpen), w.loop.Now()-from, 1)
	w.Opened++
	l.o.due = l.due
	h := l.o.next()
	c.Handle(h)
	h.Opened(c)
	l.ended()
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
	b.l.ended()
}

// Data implements bench.Handler; nothing is read.
func (b *brokenOff) Data(*bench.Conn, []byte) int { return 0 }

// Closed implements bench.Handler: it did not connect.
func (b *brokenOff) Closed(_ *bench.Conn, err error) { b.l.failed(err) }
