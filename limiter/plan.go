package limiter

import (
	"errors"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/stat"
)

// The path of a message through its plan, in the order of this file:
//
//	Bind     opening socket   finds the session's buckets once
//	Message  each frame       looks at all limits of the direction, then takes from all or from none
//	Tally    each frame       counts what was decided, in the loop's own counters
//	Unbind   closing socket   gives the shared buckets back

// A Plan is the limits of one plan, compiled. It is immutable.
type Plan struct {
	Name        string
	Connections Connections
	Tickets     Tickets

	limits []Limit // what Message asks
	rules  [2][]rule
	sees   [2]seen
}

// seen is what Sees and Private say of a direction.
type seen struct{ messages, bytes, whole, shared bool }

// Connections is how many sockets there may be at once.
type Connections struct {
	Count uint32
	Per   Per // never by connection, ip or node
}

// Tickets is how often tickets may be asked for.
type Tickets struct {
	Rate  Rate
	Burst uint64
	Per   Per  // never by connection
	Hard  bool // false: count what exceeds it, and issue
	Meter Meter
}

func newTickets(r Rate, burst uint64, per Per, hard bool) Tickets {
	if burst == 0 {
		burst = r.N
	}
	return Tickets{r, burst, per, hard, NewMeter(r, burst)}
}

// A Limit is one limit on messages or bytes.
type Limit struct {
	Index  int    // its place in Plan.Limits, and that of its Decisions
	Name   string // as configured
	Reason string // "limit:<name>", for the close frame
	Counts string // MessagesIn, MessagesOut, BytesIn or BytesOut
	Per    Per
	Rate   Rate
	Burst  uint64
	Action Action // when it is exceeded
	Meter  Meter
}

// Bytes says that l counts bytes, not messages.
func (l *Limit) Bytes() bool { return l.Counts == BytesIn || l.Counts == BytesOut }

// Limits returns the limits that Message asks, by Index. The slice is the plan's: nobody writes to it.
func (p *Plan) Limits() []Limit { return p.limits }

// An Action is what happens to a message, from the mildest to the most severe.
type Action uint8

// The actions. A message under Pass, Warn and Pause goes on.
const (
	Pass  Action = iota
	Warn         // a soft limit was exceeded: count and log
	Pause        // the message goes on; then do not read from its sender for Verdict.Wait
	Drop         // this message is lost, whole; tell the sender
	Close        // close the socket with 4429 and the limit's Reason
)

var actions = map[string]Action{"close": Close, "drop-newest": Drop, "pause": Pause, "warn": Warn}

// Direction is which way a message goes, seen from the gateway's client.
type Direction uint8

// The directions: from the client, and to it.
const (
	In Direction = iota
	Out
)

// A rule is a Limit as Message reads it, in less than a cache line.
type rule struct {
	meter  Meter
	limit  *Limit
	action Action
	kind   uint8 // messages or bytes
	shared bool
	word   uint8 // of the Row, which is the limit's Index
}

const (
	messages = iota
	payload
)

func (p *Plan) arrange() {
	for i := range p.limits {
		l := &p.limits[i]
		d := In
		if l.Counts == MessagesOut || l.Counts == BytesOut {
			d = Out
		}
		u := rule{meter: l.Meter, limit: l, action: l.Action, shared: l.Per != PerConnection, word: uint8(i)}
		if l.Bytes() {
			u.kind = payload
		}
		p.rules[d] = append(p.rules[d], u)
		s, sized := &p.sees[d], l.Bytes()
		s.messages = s.messages || !sized
		s.bytes = s.bytes || sized
		s.whole = s.whole || sized && u.action == Drop
		s.shared = s.shared || u.shared
	}
}

// Sees tells what Message wants to know in direction d: the beginnings of messages; the lengths of frames; whole: a
// message's full length before its first frame goes on, since one that is dropped must not have begun.
func (p *Plan) Sees(d Direction) (messages, bytes, whole bool) {
	s := &p.sees[d]
	return s.messages, s.bytes, s.whole
}

// Private reports whether all buckets of direction d are the session's own.
func (p *Plan) Private(d Direction) bool { return !p.sees[d].shared }

// rowWords is how many limits on messages and bytes a plan may have.
const rowWords = 8

// Row is a session's share of its plan's limits, 64 bytes without pointers: by Limit.Index the bucket itself, or the Ref of
// a shared one. The zero Row is not bound; where the plan shares nothing, that makes no difference, and a session whose
// buckets are full needs none. Its loop owns it.
type Row struct{ words [rowWords]int64 }

// ErrFull is a Table without room for another bucket: the session cannot be limited, so it is refused.
var ErrFull = errors.New("limiter: every shared bucket is in use")

// ErrNoName is a session without the name that a limit of its plan adds up by. It is refused: nameless sessions would
// use up one common bucket.
var ErrNoName = errors.New("limiter: the session has no name to be limited by")

// Shares says that the plan has limits whose buckets several sockets share: a Row must be bound before the first Message.
func (p *Plan) Shares() bool {
	for i := range p.limits {
		if p.limits[i].Per != PerConnection {
			return true
		}
	}
	return false
}

// Full says that r holds no more than a zero Row: it shares nothing, and at now its buckets are full. The row's loop calls
// it.
func (p *Plan) Full(r *Row, now mono.Time) bool {
	for i := range p.limits {
		if p.limits[i].Per != PerConnection && r.words[i] != 0 || !Full(r.words[i], now) {
			return false
		}
	}
	return true
}

// Bind fills r, which is zero, with full buckets of its own and with the shared ones that w names. On ErrFull and ErrNoName
// r is zero and nothing is held. The row's loop calls it, once, before the first Message.
func (p *Plan) Bind(r *Row, t *Table, w Who) error {
	w.Plan = p.Name
	for i := range p.limits {
		l := &p.limits[i]
		if l.Per == PerConnection {
			continue
		}
		ref, err := p.hold(l, t, &w)
		if err != nil {
			p.Unbind(r, t)
			return err
		}
		r.words[i] = int64(ref)
	}
	return nil
}

func (p *Plan) hold(l *Limit, t *Table, w *Who) (Ref, error) {
	name, ok := l.Per.Name(w)
	if !ok {
		return 0, errNoName(l)
	}
	ref, ok := t.Hold(t.Key(p.Name+"/"+l.Name, string(l.Per), name))
	if !ok {
		return 0, ErrFull
	}
	return ref, nil
}

// Unbind gives back what r holds and makes it zero; of a zero Row it does nothing. The row's loop calls it.
func (p *Plan) Unbind(r *Row, t *Table) {
	for i := range p.limits {
		if p.limits[i].Per != PerConnection && r.words[i] != 0 {
			t.Release(Ref(r.words[i]))
		}
	}
	*r = Row{}
}

// A Verdict is what the limits say of a message.
type Verdict struct {
	Action Action
	Limit  *Limit        // the one whose action it is; nil if all passed
	Wait   time.Duration // until it would have passed, or Never; with Pause, until reading goes on

	over uint8 // bit i: rule i of the direction was exceeded
}

// Message asks all limits of direction d: with first those on messages, and those on bytes for the given payload bytes.
// Call it for every frame as it begins, first for the first of a message, which is one call for both; where Sees says
// whole, once for the message with all its bytes. Of a message that was dropped nothing more is asked.
//
// The most severe action of the limits that are exceeded is the verdict, and of equal ones the first by name (of pauses,
// the longest). If that is Drop or Close, nothing is taken from any bucket; else from all but the exceeded Warn limits.
// An exceeded Pause limit is charged as well: its bucket goes into debt, and Wait is how long until the debt is paid. So
// in the time t at most burst + rate*t, one message more, and what the caller had read before it stopped go on. A debt
// reaches at most 4.6 years.
//
// When another loop empties a shared bucket between the look and the taking, the verdict changes to that limit's action,
// and what had been taken is put back; but a shared bucket that another loop changed in those nanoseconds keeps it, so
// that no limit is ever exceeded.
//
// The row's loop calls it. It takes no lock, looks nothing up and does not allocate.
func (p *Plan) Message(r *Row, t *Table, d Direction, first bool, bytes int64, now mono.Time) (v Verdict) {
	rules := p.rules[d]
	if len(rules) == 0 {
		return v
	}
	a := asked{row: r, table: t, now: now, n: [2]int64{0, bytes}}
	if first {
		a.n[messages] = 1
	}
	a.look(rules, &v)
	if v.Action < Drop {
		a.take(rules, &v)
	}
	return v
}

// asked is what Message was asked, and what it saw.
type asked struct {
	row   *Row
	table *Table
	now   mono.Time
	n     [2]int64 // how many messages, 1 or 0 for a frame that continues one, and bytes
	saw   [rowWords]step
}

// A step is a bucket's word before the message and after it; equal if nothing is to be taken.
type step struct{ old, after int64 }

// next returns the word after the message, how long until it would pass or its debt is paid, and whether it goes on.
func (u *rule) next(word int64, a *asked) (after int64, until time.Duration, ok bool) {
	if u.action == Pause {
		after, until = u.meter.owe(word, a.now, a.n[u.kind])
		return after, until, true
	}
	return u.meter.try(word, a.now, a.n[u.kind])
}

// look finds the verdict of all rules and takes nothing.
func (a *asked) look(rules []rule, v *Verdict) {
	for i := range rules {
		u := &rules[i]
		word := a.row.words[u.word]
		if u.shared {
			word = a.table.At(Ref(word)).Load()
		}
		a.see(i, u, word, v)
	}
}

// see notes what rule i says of its bucket's word.
func (a *asked) see(i int, u *rule, word int64, v *Verdict) {
	after, until, ok := u.next(word, a)
	a.saw[i] = step{word, after}
	if !ok || until > 0 {
		v.note(i, u, until)
	}
}

// note makes u's action the verdict, unless it is milder than what v has. Of a message that is refused, only those that
// refuse it remain noted.
func (v *Verdict) note(i int, u *rule, until time.Duration) {
	switch {
	case v.Action >= Drop && u.action < Drop:
		return
	case v.Action < Drop && u.action >= Drop:
		v.over = 0
	}
	v.over |= 1 << i
	if u.action > v.Action || u.action == Pause && v.Action == Pause && until > v.Wait {
		v.Action, v.Limit, v.Wait = u.action, u.limit, until
	}
}

// take takes from all buckets, which look found willing. When another loop has changed one since, it is looked at again.
func (a *asked) take(rules []rule, v *Verdict) {
	for i := range rules {
		u, s := &rules[i], &a.saw[i]
		if !u.shared {
			a.row.words[u.word] = s.after
			continue
		}
		w := a.table.At(Ref(a.row.words[u.word]))
		for s.old != s.after && !w.CompareAndSwap(s.old, s.after) {
			if a.see(i, u, w.Load(), v); v.Action >= Drop {
				a.undo(rules[:i])
				return
			}
		}
	}
}

// undo puts back what was taken under rules, unless somebody else has taken from a bucket since.
func (a *asked) undo(rules []rule) {
	for i := range rules {
		u, s := &rules[i], a.saw[i]
		word := &a.row.words[u.word]
		if u.shared {
			a.table.At(Ref(*word)).CompareAndSwap(s.after, s.old)
		} else {
			*word = s.old
		}
	}
}

// Decisions is how often a limit allowed and not, for one loop: that loop writes, any goroutine reads. A loop keeps one for
// each of Plan.Limits, by Index.
type Decisions struct {
	Allow  stat.Counter
	Refuse stat.Counter // also a pause, which enforces the limit
	Soft   stat.Counter // exceeded, but only warned
}

// Tally counts a verdict of Message, asked with the same d and first, in ds. When a message is refused, the limits that did
// not refuse it count nothing. Only the loop that owns ds calls it.
func (p *Plan) Tally(ds []Decisions, d Direction, first bool, v Verdict) {
	for i := range p.rules[d] {
		u := &p.rules[d][i]
		if u.kind == messages && !first {
			continue
		}
		c := &ds[u.word]
		switch {
		case v.over&(1<<i) == 0:
			if v.Action < Drop {
				c.Allow.Add(1)
			}
		case u.action == Warn:
			c.Soft.Add(1)
		default:
			c.Refuse.Add(1)
		}
	}
}
