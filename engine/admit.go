package engine

import (
	"bytes"
	"slices"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/engine/upgrade"
	"ticketgate/internal/faults"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// Admission, in the order of this file:
//
//	head      bytes > upgrade.Parse > route, Origin > locator (MAC, epoch, expiry: no I/O) > cache
//	ask       the session parks; its redemption joins the loop's batch, handed over once a round of the poller
//	answers   the store's verdicts come back as one batch; bindings are checked
//	join      the head is parsed again where it still lies, and the stream is asked
//	accept    101, or refuse: one refusal and the end

// gatePath is what all tickets' URLs begin with.
const gatePath = "/t/"

// parked is a session's claims between the store's answer and the 101.
type parked struct {
	claims   *ticket.Claims
	protocol []byte // the stream's choice, nil: ours
	accepted bool
}

// head looks for the end of the request head in in and admits or refuses what it says.
func (w *worker) head(id reactor.ID, s *session, in []byte) int {
	scan := w.scan(s)
	n, p := upgrade.Parse(in, scan, &w.req)
	switch {
	case p != nil:
		w.malformed(id, s, p)
		return len(in)
	case n == 0:
		w.keepScan(s, scan)
		return 0
	}
	w.dropSide(s)
	s.head = uint16(n)
	faults.Point(faults.Head, w.req.Secret)
	if r := w.admit(id, s, len(in) > n); r != nil {
		w.refuse(id, s, r)
		return len(in)
	}
	return 0 // the head stays until the 101 needs it
}

// scan returns how far the head has been looked at.
func (w *worker) scan(s *session) *upgrade.Scan {
	if s.side != 0 {
		return &w.begun.At(s.side).scan
	}
	w.unread = upgrade.Scan{}
	return &w.unread
}

// keepScan keeps it until more of the head is here.
func (w *worker) keepScan(s *session, scan *upgrade.Scan) {
	if s.side == 0 {
		var b *begun
		s.side, b = w.begun.Get()
		b.scan = *scan
	}
}

// admit checks w.req as far as can be done without asking anyone, and asks.
func (w *worker) admit(id reactor.ID, s *session, early bool) *Refusal {
	e := w.e
	q := &w.req
	text, ours := bytes.CutPrefix(q.Target, []byte(gatePath))
	switch {
	case !ours:
		return ErrRoute
	case !q.Upgrade:
		return errNotUpgrade
	case w.misdirected(id):
		return errMisdirected
	case e.draining.Load():
		return ErrDraining
	case e.overloaded():
		return errMemory
	case early:
		return ErrEarly
	case !e.o.Origins.allows(q.HasOrigin, q.Origin):
		return ErrOrigin
	}
	if _, ok := w.offered(); !ok {
		return errExtensions
	}
	now := w.storeTime()
	loc, err := w.checker.Check(text, now, e.o.Redeemer)
	if err != nil {
		return locatorRefusal(err)
	}
	if loc.Node != e.number() { // before the cache and the store: it may be good elsewhere
		return errElsewhere
	}
	hash := w.checker.Hash(&loc)
	if e.o.Cache.Get(hash, now).Refuses() {
		return errSpent
	}
	if w.batch == nil && e.o.Redeemer.Ready() != nil { // those of one round may all be asked for, or none
		return ErrStore
	}
	if r := w.room(id, s); r != nil {
		return r
	}
	secret, _ := w.checker.SecretHash(q.Secret) // a malformed or missing one is a wrong one, and spends the ticket
	w.ask(id, s, &loc, hash, secret)
	return nil
}

// number is what a ticket has to name as the node that spends it, 0 for the store. Who spends it may know nothing of those that another
// one does: two would spend one ticket.
func (e *Engine) number() uint16 {
	if e.owner == nil {
		return 0
	}
	return e.owner.Number()
}

// storeTimeFor is how long a loop goes by its own clock before it asks for the store's again: in it the two part by less
// than a millisecond.
const storeTimeFor = 100 * time.Millisecond

// storeTime is the store's clock as of this callback.
func (w *worker) storeTime() time.Time {
	now := w.l.Now()
	if w.storeAt == 0 || now.Sub(w.storeAt) > storeTimeFor {
		w.storeAt, w.storeWas = now, w.e.o.Redeemer.StoreTime()
	}
	return w.storeWas.Add(now.Sub(w.storeAt))
}

// locatorRefusals are what Check's errors mean here. All are looked at, whichever it is, so that none takes longer.
var locatorRefusals = [...]struct {
	err error
	no  *Refusal
}{{ticket.ErrMalformed, errMalformed}, {ticket.ErrForged, errForged}, {ticket.ErrExpired, errExpired}, {ticket.ErrEpoch, errEpoch}}

func locatorRefusal(err error) *Refusal {
	no := errMalformed
	for i := range locatorRefusals {
		if err == locatorRefusals[i].err { // Check returns these values bare
			no = locatorRefusals[i].no
		}
	}
	return no
}

// ask adds the redemption to the loop's batch and sees to it that the batch is handed over once the poller's round is done.
func (w *worker) ask(id reactor.ID, s *session, loc *ticket.Locator, h ticket.Hash, secret ticket.SecretHash) {
	s.state, s.subject, s.mark = stateAsked, loc.Subject, markOf(h)
	w.asking++
	if w.batch == nil {
		w.batch = w.freshBatch()
		w.batch.Since = w.l.Now()
		if !w.l.Later(reactor.Work{Op: opHand}) {
			defer w.hand() // the ring is full: a batch of one
		}
	}
	b := w.batch
	b.Reqs = append(b.Reqs, ticket.RedeemRequest{Ticket: h, Secret: secret, Epoch: loc.Epoch,
		Held: ticket.Held{Subject: loc.Subject}})
	b.IDs = append(b.IDs, uint64(id))
	b.Expiry = append(b.Expiry, loc.Expiry)
}

// hand gives the collected batch to the store. From here to the answer each redemption is counted, whatever becomes of its
// socket; not before, because what is counted while its reservation still stands takes two of its client's places.
func (w *worker) hand() {
	if b := w.batch; b != nil {
		w.batch = nil
		for i := range b.Reqs {
			h := &b.Reqs[i].Held
			h.Count, h.Number = w.e.o.Count.Add(h.Subject)
		}
		b.Life = w.life
		w.flying = append(w.flying, b)
		if p, ok := w.e.o.Redeemer.(Prompter); ok && p.RedeemNow(b) {
			w.answers(b)
			return
		}
		w.e.o.Redeemer.Redeem(b)
	}
}

// abandon gives back the slots of all redemptions under way. The loop has ended.
func (w *worker) abandon() {
	for _, b := range w.flying {
		for i := range b.Reqs {
			w.release(b.Reqs[i].Held.Subject)
		}
	}
}

// freshBatch returns an empty batch whose answers come back to this loop.
func (w *worker) freshBatch() *ticket.Batch {
	if n := len(w.batches); n > 0 {
		b := w.batches[n-1]
		w.batches = w.batches[:n-1]
		return b
	}
	r, i := w.l.Reactor(), w.l.Index()
	return &ticket.Batch{Loop: i, Done: func(b *ticket.Batch) { r.Post(i, reactor.Work{Op: opAnswers, P: b}) }}
}

// batchesKept is how many empty batches a loop keeps; each holds up to a round's redemptions of about 100 bytes.
const batchesKept = 16

// answers takes the store's verdicts.
func (w *worker) answers(b *ticket.Batch) {
	i := slices.Index(w.flying, b)
	w.flying = slices.Delete(w.flying, i, i+1)
	w.asking -= len(b.Reqs)
	took := w.l.Now().Sub(b.Since)
	if w.e.o.Life != nil && (b.Life != w.life || w.life == 0) {
		doubt(b.Answers)
	}
	for i := range b.Answers {
		w.stats.redeem(b.Answers[i].Result, took)
		w.answer(reactor.ID(b.IDs[i]), &b.Reqs[i], &b.Answers[i], b.Expiry[i])
	}
	w.owe(b)
	if len(w.batches) < batchesKept && cap(b.Reqs) <= 1024 {
		b.Reset()
		w.batches = append(w.batches, b)
	}
}

// doubt makes a yes that was given in another life of the node one that is not: as that life it holds no slot any more.
func doubt(as []ticket.RedeemAnswer) {
	for i := range as {
		if as[i].Result == ticket.RedeemOK {
			as[i] = ticket.RedeemAnswer{Result: ticket.RedeemDoubt}
		}
	}
}

func (w *worker) answer(id reactor.ID, q *ticket.RedeemRequest, a *ticket.RedeemAnswer, expiry uint32) {
	switch a.Result {
	case ticket.RedeemOK, ticket.RedeemSecret, ticket.RedeemUnknown:
		w.e.o.Cache.Put(q.Ticket, spentState(a.Result), expiry, w.storeTime())
	}
	s := w.e.rows.At(id.Slot())
	if !w.l.Alive(id) || s.state != stateAsked {
		w.release(q.Held.Subject) // the client left meanwhile
		return
	}
	if r := w.verdict(id, s, a); r != nil {
		w.release(q.Held.Subject)
		w.refuse(id, s, r)
		return
	}
	s.state, s.flags, s.life = stateJoining, s.flags|flagSlot, lifeOf(w.life)
	w.stats.slots[s.plan].taken.Add(1)
	w.l.Rerun(id) // Data comes with the head, and joins
}

// releaseSlot gives back the slot of s, if it holds one.
func (w *worker) releaseSlot(s *session) {
	if s.flags&flagSlot != 0 {
		s.flags &^= flagSlot
		w.stats.slots[s.plan].given.Add(1)
		w.release(s.subject)
	}
}

// release gives a slot back: here at once, in the store with the next assert.
func (w *worker) release(s ticket.Subject) {
	w.e.o.Count.Done(s)
	w.e.o.Redeemer.Touch(s)
}

func spentState(r ticket.RedeemResult) ticket.State {
	if r == ticket.RedeemUnknown {
		return ticket.Refused
	}
	return ticket.Spent
}

// verdict turns the store's answer and the ticket's bindings into nil or a refusal.
func (w *worker) verdict(id reactor.ID, s *session, a *ticket.RedeemAnswer) *Refusal {
	switch a.Result {
	case ticket.RedeemOK:
	case ticket.RedeemUnknown:
		return errUnknown
	case ticket.RedeemSecret:
		return errSecret
	case ticket.RedeemEpoch:
		return errEpoch
	default:
		return ErrStore
	}
	c, err := ticket.ParseClaims(a.Grant)
	if err != nil {
		return errUnknown
	}
	p := w.e.policy.Load()
	stream, ok := p.byName[c.Stream]
	plan, known := p.byPlan[c.Plan]
	if !ok || !known {
		return ErrStreamGone
	}
	if c.Addr.IsValid() && c.Addr != w.l.Peer(id).Addr() {
		return errBound
	}
	if r := w.takenBack(&c); r != nil {
		return r
	}
	s.stream, s.plan = stream, plan
	w.waiting[id.Slot()] = &parked{claims: &c}
	return nil
}

// takenBack is why the ticket of c opens nothing any more although the store has just spent it.
func (w *worker) takenBack(c *ticket.Claims) *Refusal {
	switch {
	case w.e.o.Revoked != nil && w.e.o.Revoked(c):
		return errRevoked
	case !c.SessionEnd.After(w.storeTime()):
		return errEnded
	}
	return nil
}

// join asks the stream, or goes on with what it has answered. in begins with the head.
func (w *worker) join(id reactor.ID, s *session, in []byte) int {
	k := w.waiting[id.Slot()]
	if len(in) > int(s.head) {
		w.refuse(id, s, ErrEarly)
		return len(in)
	}
	var scan upgrade.Scan
	if n, p := upgrade.Parse(in, &scan, &w.req); p != nil || n != int(s.head) {
		w.refuse(id, s, ErrFault) // it was whole and right before the store was asked
		return len(in)
	}
	if s.flags&flagJoined == 0 {
		if r := w.enter(id, s, k.claims); r != nil {
			w.refuse(id, s, r)
			return len(in)
		}
	}
	if s.state == stateJoining && k.accepted {
		w.switchProtocols(id, s, k)
	}
	if s.state == stateJoining {
		return 0
	}
	return len(in)
}

// enter binds the limits and hands the socket to its stream.
func (w *worker) enter(id reactor.ID, s *session, c *ticket.Claims) *Refusal {
	if c.Origin != "" && c.Origin != string(w.req.Origin) {
		return errBound
	}
	p := w.e.policy.Load()
	if plan := p.plans[s.plan]; plan.Shares() {
		if err := plan.Bind(&w.flow(s).limits, w.e.o.Table, limiter.Who{Client: c.Client, Key: c.Key, Addr: w.l.Peer(id).Addr(), Stream: c.Stream, Node: w.e.o.Node}); err != nil {
			return ErrOverloaded
		}
	}
	s.flags |= flagJoined
	s.who = w.e.names.hold(c.Client, c.Key)
	w.joining = id
	faults.Point(faults.Join, w.req.Secret)
	p.streams[s.stream].Stream.Join(Conn{w, id}, &Join{Claims: c, Request: &w.req})
	w.joining = 0
	return nil
}

// accept notes the stream's yes; join answers, now if it is what called the stream, else as soon as the loop brings the head.
func (w *worker) accept(id reactor.ID, protocol []byte) {
	k := w.waiting[id.Slot()]
	if k == nil || k.accepted {
		return
	}
	k.accepted, k.protocol = true, bytes.Clone(protocol)
	if w.joining != id {
		w.l.Rerun(id)
	}
}

// switchProtocols sends the 101 and opens the socket.
func (w *worker) switchProtocols(id reactor.ID, s *session, k *parked) {
	if r := w.takenBack(k.claims); r != nil { // once more: from here on a scan finds it
		w.refuse(id, s, r)
		return
	}
	protocol := k.protocol
	if protocol == nil {
		protocol = w.choose(k.claims)
	}
	if string(protocol) == protocolNotices {
		s.flags |= flagNotices
	}
	offered, _ := w.offered() // it was right when the store was asked
	w.text = offered.Append(w.text[:0])
	w.scratch = upgrade.AppendSwitch(w.scratch[:0], w.req.Key, protocol, w.text)
	if err := w.l.Write(id, w.scratch); err != nil {
		w.refuse(id, s, ErrOverloaded)
		return
	}
	delete(w.waiting, id.Slot())
	now := tickOf(w.l.Now())
	w.stats.opened(s.stream)
	stored := w.storeTime()
	w.stats.age.Observe(stored.Sub(k.claims.IssuedAt))
	s.state = stateOpen
	s.mark.age(stored.Sub(k.claims.IssuedAt))
	w.agree(s, offered.Window())
	w.known(id, s)
	s.endAt = now.after(k.claims.SessionEnd.Sub(stored))
	s.endCode = frame.CloseExpired
	s.pingAt = w.firstPing(now)
	s.opened, s.last = now, now
	w.seat(id, s)
	w.rearm(id, s)
	w.event(id, s, Event{Kind: EventOpened, Ticket: k.claims.ID})
	if w.e.draining.Load() {
		w.end(id, s, frame.CloseDrain, "", ByGateway)
	}
}

// protocolNotices is the subprotocol that lets the gateway add $tg objects.
const protocolNotices = "ticketgate.v1"

// choose picks the application's own subprotocol if one of the ticket's is offered, else ticketgate.v1 if offered, else
// none. The result is a ticket's or a constant's bytes.
func (w *worker) choose(c *ticket.Claims) []byte {
	var notices bool
	for token := range w.req.Protocols {
		if string(token) == protocolNotices {
			notices = true
		}
		for _, p := range c.Protocols {
			if p == string(token) {
				return []byte(p)
			}
		}
	}
	if notices {
		return []byte(protocolNotices)
	}
	return nil
}

// refuse answers r and ends the socket, if its upgrade has not been answered yet.
func (w *worker) refuse(id reactor.ID, s *session, r *Refusal) {
	switch {
	case s.state == stateGone || s.state >= stateOpen:
		return
	case r.Status == 401:
		w.stats.tickets[r.n].Add(1)
		w.reject(id, s, r.Reason, "", w.e.refused)
	default:
		retry := 0
		if r.Retry {
			retry = 1 + w.rnd.IntN(retrySpread)
		}
		request := w.requestID()
		w.scratch = upgrade.AppendRefusal(w.scratch[:0], w.e.o.Base, r.Status, r.Type, r.Title, r.Title, request, retry, r.Extra)
		w.stats.refused(r.Reason)
		w.reject(id, s, r.Reason, request, w.scratch)
	}
}

// retrySpread is the latest moment that Retry-After names, in seconds: the clients of one outage come back over it.
const retrySpread = 5

// malformed answers a head that is none.
func (w *worker) malformed(id reactor.ID, s *session, p *upgrade.Problem) {
	request := w.requestID()
	w.scratch = p.Append(w.scratch[:0], w.e.o.Base, request)
	w.stats.refused(p.Reason)
	w.reject(id, s, p.Reason, request, w.scratch)
}

// requestID names a refusal for the log.
func (w *worker) requestID() string {
	id, _ := ticket.ID("req_", w.e.o.Clock.Wall(), w.src) // ChaCha8 does not fail
	return id
}

func (w *worker) reject(id reactor.ID, s *session, reason, request string, answer []byte) {
	_ = w.l.Write(id, answer) // a client that does not take its answer loses only that
	w.event(id, s, Event{Kind: EventRefused, Reason: reason, Request: request})
	s.state = stateClosing
	w.leave(id, s, End{By: ByGateway})
	w.releaseSlot(s) // it never carried a message
	w.l.Close(id)
	w.parted(id)
}
