package revoke

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"ticketgate/ticket"
)

// A Set is what one node knows to be revoked: at most Max. Any goroutine may use it. What a loop asks takes a read lock for up to six
// look-ups, and none while nothing is revoked.
//
//	what.Ticket ──> byTicket, bySubject     the first of these fields that is not empty
//	     Client ──> byClient                finds the item; the others are compared
//	     Key    ──> byKey
//	     Stream ──> byStream
//	     Plan   ──> byPlan
//	     Conn                               is nobody's ticket: told to the engine once
type Set struct {
	size   atomic.Int32 // of items
	untold atomic.Int32 // those that the log does not have

	mu        sync.RWMutex
	items     map[string]*item // by id
	byTicket  map[string][]*item
	bySubject map[ticket.Subject][]*item
	byClient  map[string][]*item
	byKey     map[string][]*item
	byStream  map[string][]*item
	byPlan    map[string][]*item
	lifts     map[Selector]time.Time // what bars them since before is over
	added     uint64                 // items ever, for Since
}

// item is a revocation in a Set.
type item struct {
	Revocation
	number  uint64 // in the order in which this node heard of them
	told    bool   // the log has it
	subject ticket.Subject
	hash    ticket.Hash
}

// NewSet returns an empty Set.
func NewSet() *Set {
	s := &Set{}
	s.items, s.lifts = map[string]*item{}, map[Selector]time.Time{}
	s.byTicket, s.bySubject = map[string][]*item{}, map[ticket.Subject][]*item{}
	s.byClient, s.byKey, s.byStream, s.byPlan = map[string][]*item{}, map[string][]*item{}, map[string][]*item{}, map[string][]*item{}
	return s
}

// Added is what Add has done.
type Added uint8

// What Add may do.
const (
	New     Added = iota + 1 // it was not known
	Known                    // it was
	Over                     // it may be forgotten already
	NoRoom                   // the Set is full
	Invalid                  // it breaks a rule of Check
)

// Add takes r in. told: the log has it. now is the store's clock.
func (s *Set) Add(r *Revocation, told bool, now time.Time) Added {
	if r.Check() != nil {
		return Invalid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.items[r.ID]; ok {
		s.tell(i, i.told || told)
		return Known
	}
	switch {
	case !r.Until.After(now):
		return Over
	case len(s.items) >= Max:
		return NoRoom
	}
	s.added++
	i := &item{Revocation: *r, number: s.added, told: told}
	s.items[r.ID] = i
	if !told {
		s.untold.Add(1)
	}
	s.size.Store(int32(len(s.items)))
	switch {
	case r.Lift:
		if s.lifts[r.What].Before(r.At) {
			s.lifts[r.What] = r.At
		}
	case r.What.Conn == "":
		s.enter(i)
	}
	return New
}

// tell notes whether the log has i.
func (s *Set) tell(i *item, told bool) {
	switch {
	case told && !i.told:
		s.untold.Add(-1)
	case !told && i.told:
		s.untold.Add(1)
	}
	i.told = told
}

// enter puts i under what finds it.
func (s *Set) enter(i *item) {
	switch w := &i.What; {
	case w.Ticket != "":
		_, i.subject, i.hash, _ = ticket.ParsePublicID(w.Ticket) // Check has looked at it
		s.byTicket[w.Ticket] = append(s.byTicket[w.Ticket], i)
		s.bySubject[i.subject] = append(s.bySubject[i.subject], i)
	default:
		index, name := s.index(w)
		index[name] = append(index[name], i)
	}
}

func (s *Set) index(w *Selector) (map[string][]*item, string) {
	switch {
	case w.Client != "":
		return s.byClient, w.Client
	case w.Key != "":
		return s.byKey, w.Key
	case w.Stream != "":
		return s.byStream, w.Stream
	default:
		return s.byPlan, w.Plan
	}
}

// leave takes i out of everything but items.
func (s *Set) leave(i *item) {
	drop := func(list []*item) []*item { return slices.DeleteFunc(list, func(o *item) bool { return o == i }) }
	switch w := &i.What; {
	case i.Lift:
		if !s.lifts[*w].After(i.At) {
			delete(s.lifts, *w)
		}
	case w.Conn != "":
	case w.Ticket != "":
		put(s.byTicket, w.Ticket, drop(s.byTicket[w.Ticket]))
		put(s.bySubject, i.subject, drop(s.bySubject[i.subject]))
	default:
		index, name := s.index(w)
		put(index, name, drop(index[name]))
	}
}

func put[K comparable](m map[K][]*item, k K, list []*item) {
	if len(list) == 0 {
		delete(m, k)
		return
	}
	m[k] = list
}

// Expire forgets what may be forgotten at now. It looks at all items.
func (s *Set) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.items {
		if !i.Until.After(now) {
			delete(s.items, id)
			s.tell(i, true)
			s.leave(i)
		}
	}
	s.size.Store(int32(len(s.items)))
}

// Len is how many revocations are known.
func (s *Set) Len() int { return int(s.size.Load()) }

// Number is how many have ever been taken in, for Socket.
func (s *Set) Number() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.added
}

// Conns are the revocations of single connections that were taken in after number after.
func (s *Set) Conns(after uint64) (list []Revocation) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, i := range s.items {
		if i.number > after && i.What.Conn != "" && !i.Lift {
			list = append(list, i.Revocation)
		}
	}
	return list
}

// bearer is whoever holds a ticket, used or not.
type bearer struct {
	client, key, stream, plan string
	issued                    time.Time
	now                       time.Time // zero: nothing bars
}

// means tells whether i is about b.
func (i *item) means(b *bearer) bool {
	w := &i.What
	return (w.Client == "" || w.Client == b.client) && (w.Key == "" || w.Key == b.key) &&
		(w.Stream == "" || w.Stream == b.stream) && (w.Plan == "" || w.Plan == b.plan)
}

// bars tells whether what i means gets nothing new at now.
func (s *Set) bars(i *item, now time.Time) bool {
	return i.Barred.After(now) && s.lifts[i.What].Before(i.At)
}

// takes tells whether i takes back what was issued at t.
func (i *item) takes(t time.Time) bool { return !t.After(i.At.Add(Slack)) }

// Redeem reports whether the ticket of c opens nothing any more. now is the store's clock. It allocates nothing.
func (s *Set) Redeem(c *ticket.Claims, now time.Time) bool {
	if s.size.Load() == 0 {
		return false
	}
	b := bearer{c.Client, c.Key, c.Stream, c.Plan, c.IssuedAt, now}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.refuses(s.byTicket[c.ID], &b) || s.refuses(s.byClient[c.Client], &b) || s.refuses(s.byKey[c.Key], &b) ||
		s.refuses(s.byStream[c.Stream], &b) || s.refuses(s.byPlan[c.Plan], &b)
}

func (s *Set) refuses(list []*item, b *bearer) bool {
	for _, i := range list {
		if i.means(b) && (!i.Spare && i.takes(b.issued) || s.bars(i, b.now)) {
			return true
		}
	}
	return false
}

// Key reports whether a key is revoked: it gets nothing, whatever for.
func (s *Set) Key(id string, now time.Time) bool {
	if s.size.Load() == 0 {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, i := range s.byKey[id] {
		if i.What == (Selector{Key: id}) && s.bars(i, now) {
			return true
		}
	}
	return false
}

// Issue reports whether a ticket may be issued for c at now. If so, and something that c names was revoked just now, c.IssuedAt is set
// behind that: the ticket is not one of those that were meant.
func (s *Set) Issue(c *ticket.Claims, now time.Time) bool {
	if s.size.Load() == 0 {
		return true
	}
	b := bearer{c.Client, c.Key, c.Stream, c.Plan, c.IssuedAt, now}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, list := range [...][]*item{s.byClient[c.Client], s.byKey[c.Key], s.byStream[c.Stream], s.byPlan[c.Plan]} {
		for _, i := range list {
			switch {
			case !i.means(&b):
			case s.bars(i, now):
				return false
			case i.takes(c.IssuedAt):
				c.IssuedAt = i.At.Add(Slack + time.Millisecond)
			}
		}
	}
	return true
}

// A Holder is an open socket, as far as a Set wants to know. Its bytes are read during the call only.
type Holder struct {
	Client, Key  []byte
	Stream, Plan string
	Issued       time.Time // its ticket
	Subject      ticket.Subject
	Opener
}

// An Opener knows what a socket was opened with.
type Opener interface {
	// From reports whether it was ticket h of subject u, which is the Holder's.
	From(u ticket.Subject, h ticket.Hash) bool
}

// A Verdict is what becomes of an open socket.
type Verdict struct {
	Code uint16
	Over time.Duration // of which a part may have passed since At
	At   time.Time
}

// Socket tells whether h is to be closed for a revocation that was taken in after number after, and how: the soonest of them.
func (s *Set) Socket(h *Holder, after uint64, now time.Time) (v Verdict, ok bool) {
	if s.size.Load() == 0 {
		return v, false
	}
	// The texts are only compared, so they need not be copied for it.
	client, key := unsafe.String(unsafe.SliceData(h.Client), len(h.Client)), unsafe.String(unsafe.SliceData(h.Key), len(h.Key))
	b := bearer{client, key, h.Stream, h.Plan, h.Issued, now}
	s.mu.RLock()
	defer s.mu.RUnlock()
	see := func(i *item) {
		if i.number <= after || !i.means(&b) || !i.takes(b.issued) && !s.bars(i, now) {
			return
		}
		if !ok || i.Over < v.Over {
			v, ok = Verdict{i.Code, i.Over, i.At}, true
		}
	}
	for _, list := range [...][]*item{s.byClient[client], s.byKey[key], s.byStream[h.Stream], s.byPlan[h.Plan]} {
		for _, i := range list {
			see(i)
		}
	}
	for _, i := range s.bySubject[h.Subject] {
		if h.From(i.subject, i.hash) {
			see(i)
		}
	}
	return v, ok
}

// Untell makes all that is known count as not in the log.
func (s *Set) Untell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.items {
		s.tell(i, false)
	}
}

// Untold are at most most revocations that the log does not have, those first that came first.
func (s *Set) Untold(most int) (list []Revocation) {
	if s.untold.Load() == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var waiting []*item
	for _, i := range s.items {
		if !i.told {
			waiting = append(waiting, i)
		}
	}
	slices.SortFunc(waiting, func(a, b *item) int { return int(int64(a.number) - int64(b.number)) })
	for _, i := range waiting[:min(most, len(waiting))] {
		list = append(list, i.Revocation)
	}
	return list
}

// Told notes that the log has these, or that it does not.
func (s *Set) Told(list []Revocation, told bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range list {
		if i, ok := s.items[list[k].ID]; ok {
			s.tell(i, told)
		}
	}
}

// Waiting is how many the log does not have.
func (s *Set) Waiting() int { return int(s.untold.Load()) }

// Ticket returns the revocation of one ticket, if there is any.
func (s *Set) Ticket(id string) (r Revocation, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if list := s.byTicket[id]; len(list) > 0 {
		return list[0].Revocation, true
	}
	return r, false
}

// Barring returns what bars exactly what w says, until the last of it ends.
func (s *Set) Barring(w Selector, now time.Time) (list []Revocation) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	index, name := s.index(&w)
	for _, i := range index[name] {
		if i.What == w && s.bars(i, now) {
			list = append(list, i.Revocation)
		}
	}
	return list
}
