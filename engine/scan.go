package engine

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/ticket"
)

// Scans: who wants certain sockets has all looked at, on all loops at once, in the order of their descriptors.
//
//	Sweep, Close, Connections   any goroutine   give each loop the scan
//	look                        loop            a turn: at most 4,096 rows, or half a millisecond; then the sockets have theirs
//	ended                       last loop       tells how many were met
//
// A scan costs 0.15 to 0.25 us a row. So a loop is through with 10,000 sockets in five rounds, and with 500,000 in 100 ms of its time.
const (
	scanRows = 4096                   // rows in a turn
	scanStep = 64                     // rows between looks at the clock
	scanTurn = 500 * time.Microsecond // a turn's time
)

// A Socket is an open socket as a scan sees it. It is good until the call that brought it returns.
type Socket struct {
	ID     reactor.ID
	Stream string
	Plan   string
	Issued time.Time // when its ticket was issued, by the store's clock; up to 16 ms late

	w     *worker
	s     *session
	text  []byte // client and key, once asked for
	key   int    // where the key begins
	named bool
}

// Client is whose socket it is. The bytes are good until the next call for another socket.
func (s *Socket) Client() []byte { s.name(); return s.text[:s.key] }

// Key is the credential that its ticket was asked for with.
func (s *Socket) Key() []byte { s.name(); return s.text[s.key:] }

func (s *Socket) name() {
	if !s.named {
		s.text, s.key = s.w.e.names.both(s.text[:0], s.s.who)
		s.named = true
	}
}

// Peer is where it comes from.
func (s *Socket) Peer() netip.Addr { return s.w.l.Peer(s.ID).Addr() }

// Subject is whose slot it holds.
func (s *Socket) Subject() ticket.Subject { return s.s.subject }

// From tells whether it is the socket of the ticket h of subject u.
func (s *Socket) From(u ticket.Subject, h ticket.Hash) bool {
	return s.s.subject == u && s.s.mark.is(h)
}

// A Sentence is what becomes of a socket that a sweep has met.
type Sentence struct {
	Code frame.Code
	Over time.Duration // at a random moment within it; 0: at once
}

// scan is one request to all loops.
type scan struct {
	visit func(w *worker, s *Socket) bool // true: it counts
	full  func(w *worker) bool            // the loop need not go on; nil: it has to
	met   atomic.Int64
	left  atomic.Int32 // loops that are not through
	ended func(met int)
}

// each starts k at slot from. ended is called on the last loop that is through, or on this goroutine; it must not wait.
func (e *Engine) each(from uint32, k *scan) {
	k.left.Store(int32(len(e.workers)))
	for i := range e.workers {
		e.r.Post(i, reactor.Work{Op: opScan, N: int64(from), P: k})
	}
}

// visit looks at sockets for a turn.
func (w *worker) visit(k *scan, from uint32) {
	see := &w.sight
	began, stored, now := w.e.o.Clock.Now(), w.storeTime(), tickOf(w.l.Now())
	see.w = w
	for rows := 0; ; rows += scanStep {
		if rows >= scanRows || w.e.o.Clock.Now().Sub(began) >= scanTurn {
			w.l.NextRound(reactor.Work{Op: opScan, P: k, N: int64(from)})
			break
		}
		from = w.l.EachFrom(from, scanStep, func(id reactor.ID) {
			if s := w.e.rows.At(id.Slot()); s.state == stateOpen {
				see.ID, see.s, see.named = id, s, false
				see.Stream, see.Plan = w.entry(s).Name, w.plan(s).Name
				see.Issued = s.mark.issued(stored.Add(-now.since(s.opened)))
				if k.visit(w, see) {
					k.met.Add(1)
				}
			}
		})
		if from == 0 || k.full != nil && k.full(w) {
			if k.left.Add(-1) == 0 && k.ended != nil {
				k.ended(int(k.met.Load()))
			}
			break
		}
	}
}

// Sweep asks judge about every socket that is open when its loop comes to it, and closes those for which it answers true. judge is
// called on all loops, at the same time; it does not wait. A socket that already waits for
// an earlier end keeps that. ended may be nil; it gets how many sockets are or will be closed, is called on a loop, and does not wait. Whoever needs a
// socket gone makes sure that Options.Revoked refuses it first: those that are not open yet are not swept.
func (e *Engine) Sweep(judge func(*Socket) (Sentence, bool), ended func(closed int)) {
	e.each(0, &scan{ended: ended, visit: func(w *worker, s *Socket) bool {
		sentence, ok := judge(s)
		if ok {
			w.sentence(s, sentence)
		}
		return ok
	}})
}

// sentence closes a socket, now or later.
func (w *worker) sentence(k *Socket, how Sentence) {
	id, s := k.ID, k.s
	if how.Over <= 0 {
		w.end(id, s, how.Code, "", ByGateway)
		return
	}
	if at := tickOf(w.l.Now()).after(w.within(how.Over)); !s.endAt.passed(at) {
		s.endAt, s.endCode = at, how.Code
		w.rearm(id, s)
	}
}

// A Selector says which sockets are meant: all of its fields that are not empty hold. Of an empty one no socket is meant.
type Selector struct {
	Client, Key  string
	Stream, Plan string
	Ticket       string    // public id of the one that it was opened with
	Conn         string    // public id
	Until        time.Time // its ticket was issued at or before
}

// Close closes the open sockets that sel means, at random moments within over, with code. ended may be nil; it gets how many they are,
// is called on a loop, or on this goroutine, and does not wait. Any goroutine but a loop's may call it.
func (e *Engine) Close(sel Selector, code frame.Code, over time.Duration, ended func(closed int)) {
	m, ok := e.matcher(&sel)
	if !ok {
		if ended != nil {
			ended(0)
		}
		return
	}
	how := Sentence{code, over}
	if m.conn != 0 {
		e.closeOne(m, how, ended)
		return
	}
	e.Sweep(func(s *Socket) (Sentence, bool) { return how, m.means(s) }, ended)
}

// Count tells ended how many sockets Close would close now.
func (e *Engine) Count(sel Selector, ended func(met int)) {
	m, ok := e.matcher(&sel)
	if !ok {
		ended(0)
		return
	}
	e.each(0, &scan{ended: ended, visit: func(_ *worker, s *Socket) bool { return m.means(s) }})
}

// closeOne is Close for a socket whose place is known.
func (e *Engine) closeOne(m *matcher, how Sentence, ended func(int)) {
	e.Do(m.conn.Loop(), func(l *reactor.Loop) {
		w, n := (*handler)(e).worker(l), 0
		if s := e.rows.At(m.conn.Slot()); l.Alive(m.conn) && s.state == stateOpen {
			see := w.see(m.conn, s)
			if m.means(see) {
				n = 1
				w.sentence(see, how)
			}
		}
		if ended != nil {
			ended(n)
		}
	})
}

// see makes a Socket of its own.
func (w *worker) see(id reactor.ID, s *session) *Socket {
	opened := w.storeTime().Add(-tickOf(w.l.Now()).since(s.opened))
	return &Socket{ID: id, w: w, s: s, Stream: w.entry(s).Name, Plan: w.plan(s).Name, Issued: s.mark.issued(opened)}
}

// matcher is a Selector, taken apart.
type matcher struct {
	*Selector
	subject ticket.Subject
	hash    ticket.Hash
	conn    reactor.ID
}

// matcher takes sel apart; false: it means no socket of this node.
func (e *Engine) matcher(sel *Selector) (m *matcher, ok bool) {
	m = &matcher{Selector: sel}
	if *sel == (Selector{Until: sel.Until}) {
		return nil, false
	}
	if sel.Ticket != "" {
		var err error
		if _, m.subject, m.hash, err = ticket.ParsePublicID(sel.Ticket); err != nil {
			return nil, false
		}
	}
	if sel.Conn != "" {
		if m.conn, ok = e.connID(sel.Conn); !ok {
			return nil, false
		}
	}
	return m, true
}

func (m *matcher) means(s *Socket) bool {
	switch {
	case m.Stream != "" && m.Stream != s.Stream, m.Plan != "" && m.Plan != s.Plan,
		m.Ticket != "" && !s.From(m.subject, m.hash), m.conn != 0 && m.conn != s.ID,
		!m.Until.IsZero() && s.Issued.After(m.Until.Add(ageUnit)),
		m.Client != "" && string(s.Client()) != m.Client, m.Key != "" && string(s.Key()) != m.Key:
		return false
	}
	return true
}

// A Connection is what can be told of an open socket.
type Connection struct {
	ID     string
	Client string
	Key    string
	Stream string
	Plan   string
	Peer   netip.Addr
	Opened time.Time     // wall clock
	Idle   time.Duration // since the last message, in either direction
	Queue  int           // bytes that wait for it

	slot uint32
}

// A Filter says which connections are listed; zero fields say nothing.
type Filter struct {
	Selector
	Peer  netip.Prefix
	Age   time.Duration // open for at least
	Queue int           // bytes waiting, at least
}

// Connections lists open sockets in the order of their places, from place from on: most at the most, 1 or more. next is where to go on; 0:
// there are no more. The list is no snapshot: sockets open and close while it is made. Any goroutine but a loop's may call it.
func (e *Engine) Connections(ctx context.Context, f *Filter, from uint32, most int) (list []Connection, next uint32, err error) {
	found := make(chan []Connection, 1)
	e.find(f, from, most, func(all []Connection) { found <- all })
	select {
	case all := <-found:
		list, next = page(all, most)
		return list, next, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// page is the first most of all, and where the next begins.
func page(all []Connection, most int) (list []Connection, next uint32) {
	slices.SortFunc(all, func(a, b Connection) int { return int(a.slot) - int(b.slot) })
	if len(all) > most {
		return all[:most], all[most].slot
	}
	return all, 0
}

// find gives ended, on a loop or on this goroutine, of each loop those that f means, most and one at the most.
func (e *Engine) find(f *Filter, from uint32, most int, ended func([]Connection)) {
	m, all := &matcher{Selector: &f.Selector}, f.Selector == (Selector{})
	if !all {
		var ok bool
		if m, ok = e.matcher(&f.Selector); !ok {
			ended(nil)
			return
		}
	}
	parts := make([][]Connection, len(e.workers))
	visit := func(w *worker, s *Socket) bool {
		part := &parts[w.l.Index()]
		if len(*part) > most || !all && !m.means(s) || !f.means(w, s) {
			return false
		}
		*part = append(*part, w.connection(s))
		return true
	}
	e.each(from, &scan{visit: visit, full: func(w *worker) bool { return len(parts[w.l.Index()]) > most }, ended: func(int) { ended(slices.Concat(parts...)) }})
}

func (f *Filter) means(w *worker, s *Socket) bool {
	switch {
	case f.Peer.IsValid() && !f.Peer.Contains(s.Peer()), f.Queue > 0 && w.l.Queued(s.ID) < f.Queue,
		f.Age > 0 && tickOf(w.l.Now()).since(s.s.opened) < f.Age:
		return false
	}
	return true
}

func (w *worker) connection(s *Socket) Connection {
	now := tickOf(w.l.Now())
	return Connection{
		ID: w.e.connName(s.ID), Client: string(s.Client()), Key: string(s.Key()), Stream: s.Stream, Plan: s.Plan, Peer: s.Peer(),
		Opened: w.e.o.Clock.Wall().Add(-now.since(s.s.opened)), Idle: max(0, now.since(s.s.last)), Queue: w.l.Queued(s.ID), slot: s.ID.Slot(),
	}
}
