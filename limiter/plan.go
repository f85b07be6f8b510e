package limiter

import (
	"errors"
	"slices"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/stat"
)

// The path of a message through its plan, in the order of this file:
//
//	Bind     opening socket   finds the session's buckets once
//	Message  each frame       looks at all limits of the direction, then takes from all or from none
//	Tally    each frame       counts what was decided, in the loop's own counters
//	Refund   closing socket   puts back what a message took that was still to wait
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

// seen is what Sees, Private and Holds say of a direction.
type seen struct{ messages, bytes, whole, shared, holds bool }

// Connections is how many sockets there may be at once.
type Connections struct {
	Count uint32
	Per   Per // never by connection, ip or node
	Full  WhenFull
}

// WhenFull is what happens to who asks for a ticket while all slots are taken.
type WhenFull uint8

// What may happen. Nobody who is evicted is one who holds an unused ticket.
const (
	Reject      WhenFull = iota // no ticket
	EvictOldest                 // the socket that was opened first is closed, with 4409, and then the ticket is made
	EvictIdlest                 // that whose last message is the longest ago
	WarnFull                    // a ticket is made all the same: count and log
)

var whenFull = map[string]WhenFull{"reject": Reject, "evict-oldest": EvictOldest, "evict-idlest": EvictIdlest, "warn": WarnFull}

// Evicts says that a socket is closed for a newcomer.
func (w WhenFull) Evicts() bool { return w == EvictOldest || w == EvictIdlest }

// Tickets is how often tickets may be asked for.
type Tickets struct {
	Rate  Rate
	Burst uint64
	Per   Per  // never by connection
	Hard  bool // false: count what exceeds it, and issue
	Meter Meter

	Fixed   bool // as in Limit
	Cluster bool
}

// Leased says that a bank keeps t: it holds over nodes, or over restarts, or both.
func (t *Tickets) Leased() bool { return t.Fixed || t.Cluster }

// Terms are what t's buckets in the bank are like.
func (t *Tickets) Terms() Terms { return Terms{Rate: t.Rate, Burst: t.Burst, Fixed: t.Fixed} }

// Home is the node that t's buckets in the bank are of, "" for all; node is this one.
func (t *Tickets) Home(node string) string { return home(t.Cluster, node) }

func newTickets(r Rate, burst uint64, per Per, hard bool) Tickets {
	if burst == 0 {
		burst = r.N
	}
	return Tickets{Rate: r, Burst: burst, Per: per, Hard: hard, Meter: NewMeter(r, burst)}
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

	MaxDelay time.Duration // with Delay
	Fixed    bool          // window: fixed; Burst is Rate.N
	Cluster  bool          // scope: cluster
	Down     Down          // where it is leased: what it does without the store
}

// Leased says that l's tokens are leased from a bank: it holds over nodes, or over restarts, or both.
func (l *Limit) Leased() bool { return l.Fixed || l.Cluster }

// Terms are what l's buckets in the bank are like.
func (l *Limit) Terms() Terms { return Terms{Rate: l.Rate, Burst: l.Burst, Fixed: l.Fixed} }

// Bytes says that l counts bytes, not messages.
func (l *Limit) Bytes() bool { return l.Counts == BytesIn || l.Counts == BytesOut }

// Limits returns the limits that Message asks, by Index. The slice is the plan's: nobody writes to it.
func (p *Plan) Limits() []Limit { return p.limits }

// An Action is what happens to a message, from the mildest to the most severe.
type Action uint8

// The actions. A message under Pass, Warn and Pause goes on at once, and one under Delay when its time has come; of these
// alone anything is taken.
const (
	Pass       Action = iota
	Warn              // a soft limit was exceeded: count and log
	Pause             // the message goes on; then do not read from its sender for Verdict.Wait
	Delay             // the message is paid for and goes on after Verdict.Wait; until then do not read from its sender
	Hold              // the same, but it is not paid for: ask again after Verdict.Wait
	DropOldest        // the message waits in place of the oldest that do; ask again after Verdict.Wait
	Drop              // this message is lost, whole; tell the sender
	Close             // close the socket with 4429 and the limit's Reason
)

var actions = map[string]Action{"close": Close, "drop-newest": Drop, "drop-oldest": DropOldest, "delay": Delay, "pause": Pause, "warn": Warn}

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
	most   time.Duration // with Delay, how long a message may wait
	action Action
	kind   uint8 // messages or bytes
	where  place
	word   uint8 // of the Row, which is the limit's Index
}

// place is where a rule's bucket is.
type place uint8

const (
	inRow   place = iota // in the session's own word
	inTable              // in the Table's, which the word names
	inPurse              // in Purses, so does it
)

// waits says that messages wait for this rule.
func (u *rule) waits() bool { return u.action >= Pause && u.action <= DropOldest }

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
		u := rule{meter: l.Meter, limit: l, most: l.MaxDelay, action: l.Action, word: uint8(i)}
		switch {
		case l.Leased():
			u.where = inPurse
		case l.Per != PerConnection:
			u.where = inTable
		}
		if l.Bytes() {
			u.kind = payload
		}
		p.rules[d] = append(p.rules[d], u)
		s, sized := &p.sees[d], l.Bytes()
		s.messages = s.messages || !sized
		s.bytes = s.bytes || sized
		s.holds = s.holds || u.where == inPurse || u.action == Delay || u.action == DropOldest
		s.whole = s.whole || sized && u.action == Drop || s.holds
		s.shared = s.shared || u.where != inRow
	}
}

// Sees tells what Message wants to know in direction d: the beginnings of messages; the lengths of frames; whole: a
// message's full length before its first frame goes on, since one that is dropped, or has to wait, must not have begun.
func (p *Plan) Sees(d Direction) (messages, bytes, whole bool) {
	s := &p.sees[d]
	return s.messages, s.bytes, s.whole
}

// Private reports whether all buckets of direction d are the session's own.
func (p *Plan) Private(d Direction) bool { return !p.sees[d].shared }

// Holds reports whether messages of direction d may have to wait: verdicts Delay, Hold and DropOldest.
func (p *Plan) Holds(d Direction) bool { return p.sees[d].holds }

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

// ErrNoBank is a plan with limits over the cluster, or in fixed windows, where there is no bank to keep them.
var ErrNoBank = errors.New("limiter: no bank keeps the limits of the plan")

// Shares says that the plan has limits whose buckets several sockets share: a Row must be bound before the first Message.
func (p *Plan) Shares() bool {
	for i := range p.limits {
		if p.limits[i].Per != PerConnection {
			return true
		}
	}
	return false
}

// Leased says that the plan has limits that a bank keeps.
func (p *Plan) Leased() bool {
	return p.Tickets.Leased() || slices.ContainsFunc(p.limits, func(l Limit) bool { return l.Leased() })
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
	var ref Ref
	switch {
	case !l.Leased():
		ref, ok = t.Hold(t.Key(p.Name+"/"+l.Name, string(l.Per), name))
	case t.purses == nil:
		return 0, ErrNoBank
	default:
		ref, ok = t.purses.Hold(l, Bucket(t.purses.subject, p.Name, l.Name, l.Per, name, l.Home(w.Node)))
	}
	if !ok {
		return 0, ErrFull
	}
	return ref, nil
}

// Home is the node that l's buckets in the bank are of, "" for all; node is this one.
func (l *Limit) Home(node string) string { return home(l.Cluster, node) }

func home(cluster bool, node string) string {
	if cluster {
		return ""
	}
	return node
}

// Unbind gives back what r holds and makes it zero; of a zero Row it does nothing. The row's loop calls it.
func (p *Plan) Unbind(r *Row, t *Table) {
	for i := range p.limits {
		switch l := &p.limits[i]; {
		case r.words[i] == 0 || l.Per == PerConnection:
		case l.Leased():
			t.purses.Release(Ref(r.words[i]))
		default:
			t.Release(Ref(r.words[i]))
		}
	}
	*r = Row{}
}

// A Verdict is what the limits say of a message.
type Verdict struct {
	Action Action
	Limit  *Limit        // the one whose action it is; nil if all passed
	Wait   time.Duration // until it would have passed, or Never; with Pause, until reading goes on; with Delay, until it does

	marks marks // one field: with more than four it would not be returned in registers
}

// marks are bits of a Verdict, by rule of the direction.
type marks uint32

const (
	overs       marks = 1       // rule 0 was exceeded
	degraded    marks = 1 << 8  // rule 0 has decided without the bank
	unknown     marks = 1 << 16 // some rule does not know yet
	allOvers    marks = 1<<8 - 1
	allDegraded       = allOvers << 8
)

// Asked says of a Hold that nobody knows yet whether the limit is exceeded.
func (v *Verdict) Asked() bool { return v.marks&unknown != 0 }

// Waited is what made a message wait, for Again: nothing if nobody knew.
func (v *Verdict) Waited() uint8 {
	if v.Action != Hold || v.Asked() {
		return 0
	}
	return uint8(v.marks & allOvers)
}

// Again says that a message which had to wait, as Waited told, has v now: the limits that made it wait count it as refused.
func (v *Verdict) Again(waited uint8) { v.marks |= marks(waited) }

// Message asks all limits of direction d: with first those on messages, and those on bytes for the given payload bytes.
// Call it for every frame as it begins, first for the first of a message, which is one call for both; where Sees says
// whole, once for the message with all its bytes. Of a message that was dropped nothing more is asked.
//
// The most severe action of the limits that are exceeded is the verdict, and of equal ones the first by name (of those that
// wait, the longest). If that is Hold or more, nothing is taken from any bucket; else from all but the exceeded Warn limits.
// An exceeded Pause limit is charged as well: its bucket goes into debt, and Wait is how long until the debt is paid. So
// in the time t at most burst + rate*t, one message more, and what the caller had read before it stopped go on. A debt
// reaches at most 4.6 years. A Delay limit is charged in the same way, but the message goes on when its debt is paid; the next
// waits behind it, on whichever socket. One that would wait for more than the limit's MaxDelay is Close.
//
// Where a bank keeps the bucket, what Pause and Delay let wait is not charged (Hold): it is the bank's turn to say when.
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
	if v.Action < Hold {
		a.take(rules, &v)
	}
	return v
}

// Refund puts back what a message took that had to wait and will not go on: its socket is closed. The row is bound.
func (p *Plan) Refund(r *Row, t *Table, d Direction, bytes int64) {
	for i := range p.rules[d] {
		u := &p.rules[d][i]
		n := bytes
		if u.kind == messages {
			n = 1
		}
		word := &r.words[u.word]
		switch {
		case n <= 0 || u.action == Warn: // it may not have been charged
		case u.where == inRow:
			*word -= u.meter.price(n)
		case u.where == inTable:
			t.At(Ref(*word)).Add(-u.meter.price(n))
		default:
			t.purses.put(Ref(*word), n, fromBank, t.purses.round(Ref(*word)))
		}
	}
}

// asked is what Message was asked, and what it saw.
type asked struct {
	row   *Row
	table *Table
	now   mono.Time
	n     [2]int64 // how many messages, 1 or 0 for a frame that continues one, and bytes
	run   bool     // they are several
	saw   [rowWords]step
}

// A step is a bucket's word before the message and after it; equal if nothing is to be taken. Of a purse it is the source and
// the round.
type step struct{ old, after int64 }

// next returns the word after the message, how long until it would pass or its debt is paid, and whether it goes on.
func (u *rule) next(word int64, a *asked) (after int64, until time.Duration, ok bool) {
	if u.action == Pause || u.action == Delay {
		if after, until = u.meter.owe(word, a.now, a.n[u.kind]); u.action == Delay && until > u.most {
			return word, until, false
		}
		return after, until, true
	}
	return u.meter.try(word, a.now, a.n[u.kind])
}

// look finds the verdict of all rules and takes nothing.
func (a *asked) look(rules []rule, v *Verdict) {
	for i := range rules {
		u := &rules[i]
		word := a.row.words[u.word]
		if u.where != inRow {
			if u.where == inPurse {
				a.seePurse(i, u, v)
				continue
			}
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
		action := u.action
		if !ok && action == Delay { // for longer than it may
			action = Close
		}
		v.note(i, u, action, until)
	}
}

// seePurse notes what rule i says of its purse.
func (a *asked) seePurse(i int, u *rule, v *Verdict) {
	n, ref, s := a.n[u.kind], Ref(a.row.words[u.word]), &a.saw[i]
	*s = step{}
	v.marks &^= degraded << i
	if n <= 0 {
		return
	}
	b := a.table.purses
	s.after = b.round(ref)
	from, until := b.look(ref, n, a.now, u.waits(), !a.run)
	s.old = int64(from)
	switch from {
	case fromLocal, fromAll:
		v.marks |= degraded << i
	case fromLater:
		if v.marks |= unknown; u.action == Warn {
			s.old = int64(fromDebt)
			return
		}
		v.note(i, u, Hold, until)
	case fromNobody:
		switch {
		case u.action == Delay && until > u.most:
			v.note(i, u, Close, until)
		case u.action == Delay || u.action == Pause:
			v.note(i, u, Hold, until)
		default:
			v.note(i, u, u.action, until)
		}
	}
}

// tier sorts actions: with the message goes on, nobody knows, it does not.
func (a Action) tier() int {
	switch {
	case a < Hold:
		return 0
	case a == Hold:
		return 1
	}
	return 2
}

// note makes action, which is u's, the verdict, unless it is milder than what v has. Of a message that is refused, only those
// that refuse it remain noted.
func (v *Verdict) note(i int, u *rule, action Action, until time.Duration) {
	switch now, was := action.tier(), v.Action.tier(); {
	case now < was:
		return
	case now > was:
		v.marks &^= allOvers
	}
	v.marks |= overs << i
	longest := action >= Pause && action <= Hold && v.Action >= Pause && v.Action.tier() == action.tier()
	switch {
	case action > v.Action:
		if longest {
			until = max(until, v.Wait)
		}
		v.Action, v.Limit, v.Wait = action, u.limit, until
	case longest && until > v.Wait:
		if v.Wait = until; action == v.Action {
			v.Limit = u.limit
		}
	}
}

// take takes from all buckets, which look found willing. When another loop has changed one since, it is looked at again.
func (a *asked) take(rules []rule, v *Verdict) {
	for i := range rules {
		u, s := &rules[i], &a.saw[i]
		switch u.where {
		case inRow:
			a.row.words[u.word] = s.after
			continue
		case inPurse:
			if !a.takePurse(i, u, v) {
				a.undo(rules[:i])
				return
			}
			continue
		}
		w := a.table.At(Ref(a.row.words[u.word]))
		for s.old != s.after && !w.CompareAndSwap(s.old, s.after) {
			if a.see(i, u, w.Load(), v); v.Action >= Hold {
				a.undo(rules[:i])
				return
			}
		}
	}
}

// takePurse takes from the purse of rule i; false: others were faster, and the message must not go on.
func (a *asked) takePurse(i int, u *rule, v *Verdict) bool {
	ref, b := Ref(a.row.words[u.word]), a.table.purses
	for source(a.saw[i].old) != fromNobody && !b.take(ref, a.n[u.kind], source(a.saw[i].old), a.now) {
		if a.seePurse(i, u, v); v.Action >= Hold {
			return false
		}
	}
	return true
}

// undo puts back what was taken under rules, unless somebody else has taken from a bucket since.
func (a *asked) undo(rules []rule) {
	for i := range rules {
		u, s := &rules[i], a.saw[i]
		word := &a.row.words[u.word]
		switch u.where {
		case inTable:
			a.table.At(Ref(*word)).CompareAndSwap(s.after, s.old)
		case inPurse:
			a.table.purses.put(Ref(*word), a.n[u.kind], source(s.old), s.after)
		default:
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

	Degraded stat.Counter // allowed while the bank could not be asked: store_down
}

// Tally counts a verdict of Message, asked with the same d and first, in ds. When a message is refused, the limits that did
// not refuse it count nothing. What waits is counted when it goes on, as refused by the limit that made it wait. Only the
// loop that owns ds calls it.
func (p *Plan) Tally(ds []Decisions, d Direction, first bool, v Verdict) {
	for i := range p.rules[d] {
		u := &p.rules[d][i]
		if u.kind == messages && !first {
			continue
		}
		c := &ds[u.word]
		switch {
		case v.Action == Hold || v.Action == DropOldest: // nothing is decided yet
		case v.marks&(overs<<i) == 0:
			switch {
			case v.Action >= Hold:
			case v.marks&(degraded<<i) != 0:
				c.Degraded.Add(1)
			default:
				c.Allow.Add(1)
			}
		case u.action == Warn:
			c.Soft.Add(1)
		default:
			c.Refuse.Add(1)
		}
	}
}
