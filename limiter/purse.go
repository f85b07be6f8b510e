package limiter

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/ticket"
)

// Limits that hold over nodes or restarts, in the order of this file and the next:
//
//	Hold      opening socket  finds the purse of a limit and its subject; a new one is filled ahead of the first message
//	look      each frame      what the purse says; it asks for more when less than half a batch is left
//	take      each frame      spends
//	Tell      teller.go       one goroutine brings what purses ask to the bank, 256 at once, and what it answers back
//	Release   closing socket  an idle purse gives its tokens back, and then its place
//
// A loop never waits for the bank. Where a purse does not know yet, the message waits, and its socket is not read.

// Purses are a node's tokens of buckets in a bank. Admitted in the cluster is at most what the bank has given out, which is
// the limit; a node's purse holds at most one batch of it back from the others, and for a second at most while it is idle.
//
//	empty ──ask──> asked ──answer──> tokens ──spent, half a batch left──> asked ...
//	                 │                  └──idle for a second──> given back, once
//	                 ├──nothing there──> dry until the bank has some: the limit is exceeded
//	                 └──no answer──> down: store_down, until there is one
type Purses struct {
	bank    Bank
	subject func(kind, name string) ticket.Subject
	clk     mono.Clock
	purses  []purse

	answers func()        // called when the bank has answered
	head    atomic.Uint32 // of those that ask, linked by next
	wake    chan struct{} // has a value when one has asked and nobody looked yet

	mu      sync.Mutex
	index   *offheap.Index // by subject
	free    []uint32
	made    uint32
	held    int
	left    []uint32 // without holders, to be looked at by the teller
	refused uint64

	terms atomic.Pointer[[]purseTerms] // only added to, under mu

	teller teller
}

// purseTerms are a limit as its purses know it.
type purseTerms struct {
	Terms
	down  Down
	meter Meter // of a token bucket
	every time.Duration
	most  int64 // a batch has at most so many
	first int64 // and the first one
}

// purse is one bucket's tokens at this node, without pointers.
type purse struct {
	// Any loop.
	tokens atomic.Int64
	ends   atomic.Int64 // mono.Time: from then on tokens are void; 0: never
	round  atomic.Int64 // how often they have become void
	dry    atomic.Int64 // mono.Time: the bank has none until then
	again  atomic.Int64 // mono.Time: the bank was down, and is not asked until then
	local  atomic.Int64 // while down: bucket of this node, or of a fixed window what is left of it
	debt   atomic.Int64 // spent without the bank, to be told
	taken  atomic.Int64 // since the teller looked
	need   atomic.Int64 // what a message that waits takes
	queue  atomic.Int64 // messages that wait since the bank's last answer
	batch  atomic.Int64 // how many are asked for
	state  atomic.Uint32
	next   atomic.Uint32 // of those that ask
	terms  atomic.Uint32 // number in Purses.terms

	// Under Purses.mu.
	subject uint64
	chain   uint32
	holders uint32
	parting bool // in left

	// The teller's.
	warm   bool      // in teller.warm
	window int64     // of tokens, as the bank names it
	rest   int64     // in the bank after its last answer
	at     mono.Time // of that
}

// The states of a purse, which may be combined.
const (
	purseAsked uint32 = 1 << iota // it waits for the bank
	purseDown                     // the bank's last answer did not come
	purseKnown                    // the bank has answered once
)

// pursesMax keeps a table in 32 MiB of addresses.
const pursesMax = 1 << 18

// NewPurses returns empty purses, for at most size buckets at a time, up to 262,144. subject is a keyed hash that all nodes
// have in common (ticket.KeyRing.Subject): the bank learns no names, and nobody outside can choose some that share a
// bucket. Run or Tell must be called, or nobody asks the bank.
func NewPurses(bank Bank, size int, subject func(kind, name string) ticket.Subject, clk mono.Clock) *Purses {
	size = min(max(size, 1), pursesMax)
	b := &Purses{bank: bank, subject: subject, clk: clk, index: offheap.NewIndex(), answers: func() {}, wake: make(chan struct{}, 1)}
	b.purses = offheap.Make[purse](b, size)
	b.terms.Store(new([]purseTerms))
	return b
}

// OnAnswer has f called whenever the bank has answered, or has not, what some purses had asked: who waits may ask again. It is called
// by the goroutine of Tell. Before the first Tell.
func (b *Purses) OnAnswer(f func()) { b.answers = f }

func (b *Purses) at(r Ref) *purse { return &b.purses[r-1] }

// Bucket is the bucket in the bank of a limit of a plan; name is Per.Name's, node the one that the bucket is of, or "".
// subject is a keyed hash that all nodes have in common.
func Bucket(subject func(kind, name string) ticket.Subject, plan, limit string, per Per, name, node string) ticket.Subject {
	kind := "limit " + plan + "/" + limit + " " + string(per)
	if node != "" {
		kind += " at " + node
	}
	return subject(kind, name)
}

// register returns the number of what l says.
func (b *Purses) register(l *Limit) uint32 {
	t, all := l.Terms(), *b.terms.Load()
	for i := range all {
		if k := &all[i]; k.Terms == t && k.down == l.Down {
			return uint32(i)
		}
	}
	k := purseTerms{Terms: t, down: l.Down, meter: NewMeter(t.Rate, t.Burst), every: max(t.Rate.Per/time.Duration(min(t.Rate.N, 1<<62)), 1)}
	k.most = max(t.Most()/batchPart, 1)
	k.first = 1
	if t.Rate.Bytes {
		k.first = firstBytes
	}
	k.first = min(k.first, k.most)
	more := append(slices.Clone(all), k)
	b.terms.Store(&more)
	return uint32(len(all))
}

func (b *Purses) termsOf(p *purse) *purseTerms { return &(*b.terms.Load())[p.terms.Load()] }

const (
	batchPart  = 10       // a batch is at most this part of the burst
	firstBytes = 16 << 10 // a node's first batch of a limit on bytes; of messages, one
)

// Hold finds or makes the purse of l's bucket s and holds it until Release. false: all purses are in use; the caller
// refuses. Any goroutine may call it.
func (b *Purses) Hold(l *Limit, s ticket.Subject) (Ref, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.find(uint64(s))
	terms := b.register(l)
	if n == 0 {
		switch k := len(b.free); {
		case k > 0:
			n, b.free = b.free[k-1], b.free[:k-1]
		case int(b.made) < len(b.purses):
			b.made++
			n = b.made
		default:
			b.refused++
			return 0, false
		}
		p := b.at(Ref(n))
		p.subject = uint64(s)
		p.batch.Store((*b.terms.Load())[terms].first)
		b.index.Enter(n, uint64(s), &p.chain, b.of)
	}
	p := b.at(Ref(n))
	p.terms.Store(terms) // those of the newest plan: a reload may have changed them
	if p.holders == 0 {
		b.held++
	}
	p.holders++
	if p.tokens.Load() == 0 {
		b.ask(Ref(n), p)
	}
	return Ref(n), true
}

// of is for the index.
func (b *Purses) of(n uint32) (hash uint64, next *uint32) {
	p := b.at(Ref(n))
	return p.subject, &p.chain
}

func (b *Purses) find(s uint64) uint32 {
	n := *b.index.First(s)
	for n != 0 && b.at(Ref(n)).subject != s {
		n = b.at(Ref(n)).chain
	}
	return n
}

// Release gives back what Hold returned, once. Any goroutine may call it.
func (b *Purses) Release(r Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.at(r)
	if p.holders == 0 {
		panic("limiter: Release of a purse that nobody holds")
	}
	if p.holders--; p.holders == 0 {
		b.held--
		b.part(uint32(r), p)
	}
}

// part has the teller look whether p may go.
func (b *Purses) part(n uint32, p *purse) {
	if !p.parting {
		p.parting = true
		b.left = append(b.left, n)
	}
}

// ask has the teller bring p's business to the bank, unless it does already.
func (b *Purses) ask(r Ref, p *purse) {
	for {
		s := p.state.Load()
		if s&purseAsked != 0 {
			return
		}
		if p.state.CompareAndSwap(s, s|purseAsked) {
			break
		}
	}
	for {
		head := b.head.Load()
		p.next.Store(head)
		if b.head.CompareAndSwap(head, uint32(r)) {
			break
		}
	}
	select {
	case b.wake <- struct{}{}:
	default: // the teller has not looked yet
	}
}

// A source is what a message would be paid from.
type source uint8

const (
	fromNobody source = iota // it must not go on: dry, or denied
	fromBank                 // tokens of the purse
	fromLocal                // store_down: local
	fromAll                  // store_down: allow
	fromLater                // nobody knows yet: ask again
	fromDebt                 // it goes on, and the bank is told
)

// How long a message waits before it asks its purse again: an answer takes about a millisecond, and a store that hangs is
// given up after its timeout.
const askedWait = 2 * time.Millisecond

// look tells what n would be paid from, and if it must wait, how long. waits: the message would wait in a queue, which
// gets longer. alone: n is one message, so it may be more than a batch. look takes nothing, allocates nothing and takes no
// lock.
func (b *Purses) look(r Ref, n int64, now mono.Time, waits, alone bool) (from source, until time.Duration) {
	p := b.at(r)
	t := b.termsOf(p)
	have := p.left(now)
	if have >= n {
		return fromBank, 0
	}
	if n > t.Most() && !waits {
		return fromNobody, Never
	}
	switch state := p.state.Load(); {
	case state&purseDown != 0:
		if now >= mono.Time(p.again.Load()) {
			b.ask(r, p)
		}
		return b.without(p, t, n, now)
	case now < mono.Time(p.dry.Load()):
		until = mono.Time(p.dry.Load()).Sub(now)
		if waits {
			until += min(time.Duration(p.queue.Add(1)-1)*t.every, queueWait)
		}
		return fromNobody, until
	}
	if alone {
		p.need.Store(max(p.need.Load(), n))
	}
	b.ask(r, p)
	return fromLater, askedWait
}

// queueWait bounds what those in front add to a message's wait: then it asks again.
const queueWait = time.Second

// left is how many tokens p has that are not void.
func (p *purse) left(now mono.Time) int64 {
	if ends := p.ends.Load(); ends != 0 && now >= mono.Time(ends) {
		return 0
	}
	return p.tokens.Load()
}

// without decides by store_down.
func (b *Purses) without(p *purse, t *purseTerms, n int64, now mono.Time) (from source, until time.Duration) {
	switch {
	case t.down == DownAllow:
		return fromAll, 0
	case t.down == DownDeny:
		return fromNobody, max(mono.Time(p.again.Load()).Sub(now), time.Millisecond)
	case t.Fixed:
		ends := mono.Time(p.ends.Load())
		switch {
		case now >= ends: // the teller begins the next window
			return fromLater, askedWait
		case p.local.Load() >= n:
			return fromLocal, 0
		}
		return fromNobody, ends.Sub(now)
	}
	if _, until, ok := t.meter.try(p.local.Load(), now, n); !ok {
		return fromNobody, until
	}
	return fromLocal, 0
}

// take takes n from where look has found them; false: others were faster, and look must be asked again.
func (b *Purses) take(r Ref, n int64, from source, now mono.Time) bool {
	p := b.at(r)
	t := b.termsOf(p)
	switch from {
	case fromBank:
		for {
			have := p.tokens.Load()
			if have < n || p.left(now) < n {
				return false
			}
			if p.tokens.CompareAndSwap(have, have-n) {
				p.taken.Add(n)
				if 2*(have-n) < p.batch.Load() && now >= mono.Time(p.dry.Load()) {
					b.ask(r, p)
				}
				return true
			}
		}
	case fromLocal:
		for {
			old := p.local.Load()
			after := old - n
			if t.Fixed {
				if old < n {
					return false
				}
			} else {
				var ok bool
				if after, _, ok = t.meter.try(old, now, n); !ok {
					return false
				}
			}
			if p.local.CompareAndSwap(old, after) {
				p.owe(n, t)
				return true
			}
		}
	case fromAll, fromDebt:
		p.owe(n, t)
		return true
	}
	return false
}

// owe adds n, or takes -n away; no more than a bucketful matters.
func (p *purse) owe(n int64, t *purseTerms) {
	for {
		old := p.debt.Load()
		if p.debt.CompareAndSwap(old, max(min(old+n, t.Most()), 0)) {
			return
		}
	}
}

// round is what put must be told, read before take.
func (b *Purses) round(r Ref) int64 { return b.at(r).round.Load() }

// put undoes a take of n, if its tokens have not become void since round.
func (b *Purses) put(r Ref, n int64, from source, round int64) {
	p := b.at(r)
	t := b.termsOf(p)
	switch from {
	case fromBank:
		if p.round.Load() == round {
			p.tokens.Add(n)
		}
	case fromLocal:
		p.owe(-n, t)
		switch {
		case !t.Fixed:
			p.local.Add(-t.meter.cost(n))
		case p.round.Load() == round:
			p.local.Add(n)
		}
	case fromAll, fromDebt:
		p.owe(-n, t)
	}
}

// PursesStats is how full Purses are.
type PursesStats struct {
	Size    int    // purses there are
	Held    int    // those that sockets hold
	Kept    int    // those that are still to give something back
	Down    bool   // the bank's last answer did not come: store_down decides
	Refused uint64 // Holds without room
	Asks    uint64 // of purses that were brought to the bank
	Failed  uint64 // those of them that it did not answer
}

// Stats adds b's figures to s. Any goroutine may call it.
func (b *Purses) Stats(s *PursesStats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Size += len(b.purses)
	s.Held += b.held
	s.Kept += int(b.made) - len(b.free) - b.held
	s.Down = s.Down || b.teller.down.Load()
	s.Refused += b.refused
	s.Asks += b.teller.asks.Load()
	s.Failed += b.teller.failed.Load()
}

// Down reports whether the bank did not answer when it was asked last. Any goroutine may call it.
func (b *Purses) Down() bool { return b.teller.down.Load() }
