package handshake

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"ticketgate/limiter"
	"ticketgate/ticket"
)

// storeMax bounds a call to the store that does not keep its own, shorter time.
const storeMax = 2 * time.Second

// issue is POST /v1/tickets: cheap checks first, the store last.
//
//	draining 503 > key 401 > body 400 > for whom 403 > stream 404, 403 > params 400 > rate 429 > mint > store 429, 503 > 201
func (r *request) issue() {
	begin := r.now()
	if !r.open() || !r.identify() || !r.noQuery() {
		return
	}
	a, ok := r.ask()
	if !ok || !r.speakFor(a.client) {
		return
	}
	g, ok := r.grant(&a)
	if !ok || !r.rate(g) {
		return
	}
	t, used, no := r.s.issue(g)
	r.s.stats.took(no == nil, r.now().Sub(begin))
	if no != nil {
		r.refuseIssue(g, no)
		return
	}
	r.s.stats.issue(g.claims.Stream, g.plan.Name)
	r.answer(fasthttp.StatusCreated, r.s.appendTicket(nil, g, t, used))
}

// open refuses while the node goes away, or has no memory for what a ticket is for.
func (r *request) open() bool {
	if r.s.o.Draining() || r.s.stopping.Load() {
		return r.refuse(r.s.later(draining))
	}
	if r.s.o.Overloaded() {
		return r.refuse(r.s.later(shortOfMemory))
	}
	return true
}

func (r *request) noQuery() bool {
	if r.query != "" {
		return r.refuse(&problem{reason: badQuery})
	}
	return true
}

// ask reads the body.
func (r *request) ask() (a ask, ok bool) {
	h := &r.ctx.Request.Header
	mediaType, _, _ := bytes.Cut(h.ContentType(), []byte{';'})
	if !bytes.EqualFold(bytes.TrimSpace(mediaType), []byte("application/json")) || len(h.Peek("Content-Encoding")) > 0 {
		return a, r.refuse(&problem{reason: badMedia})
	}
	a, wrong := parseAsk(r.ctx.PostBody())
	if wrong != "" {
		return a, r.refuse(&problem{reason: badBody, detail: wrong})
	}
	return a, true
}

// A grant is what a ticket will be for: claims without an id, and whose slot it takes.
type grant struct {
	claims  ticket.Claims
	ends    time.Time // of the credential; zero: never
	plan    *limiter.Plan
	subject ticket.Subject
}

// grant decides what the caller gets.
func (r *request) grant(a *ask) (g *grant, ok bool) {
	stream, no := r.policy.stream(&r.who, a.stream)
	if no != none {
		return nil, r.refuse(&problem{reason: no})
	}
	plan, no := r.policy.plan(&r.who)
	if no != none {
		return nil, r.refuse(&problem{reason: no})
	}
	if wrong := stream.checkParams(a); wrong != "" {
		return nil, r.refuse(&problem{reason: badParams, detail: wrong})
	}
	if a.resume != "" {
		return nil, r.refuse(&problem{reason: badParams, detail: "resume: this stream keeps nothing to resume from"})
	}
	g = &grant{ends: r.who.Expires, plan: plan, subject: r.subject(plan, a.stream)}
	g.claims = ticket.Claims{
		Client: r.client, Key: r.who.Key, Product: r.who.Product, Plan: plan.Name, Stream: a.stream,
		Params: a.params, Protocols: a.protocols, Origin: a.origin, Addr: r.bound(), Limit: plan.Connections.Count,
	}
	return g, true
}

// counted is whose sockets and tickets limits add up; stream is "" where none is asked for.
func (r *request) counted(plan *limiter.Plan, stream string) *limiter.Who {
	return &limiter.Who{Client: r.client, Key: r.who.Key, Addr: r.peer(), Stream: stream, Plan: plan.Name, Node: r.s.o.Name}
}

// subject is whose slot a socket of stream takes.
func (r *request) subject(plan *limiter.Plan, stream string) ticket.Subject {
	per := plan.Connections.Per
	name, _ := per.Name(r.counted(plan, stream)) // all that connections may be per is known here
	return r.s.o.Keys.Subject(string(per), name)
}

func (r *request) bound() netip.Addr {
	if r.s.o.BindIP {
		return r.peer()
	}
	return netip.Addr{}
}

// rate takes one from the plan's limit on tickets, and tells what is left (draft-ietf-httpapi-ratelimit-headers).
func (r *request) rate(g *grant) bool {
	t := &g.plan.Tickets
	name, ok := t.Per.Name(r.counted(g.plan, g.claims.Stream))
	if !ok { // per ip, and who asks over a unix socket has no address: config refuses the two together
		return r.refuse(r.s.later(tooManyCallers))
	}
	if t.Leased() {
		return r.lease(g, name)
	}
	ref, ok := r.s.rates.Hold(r.s.rates.Key(g.plan.Name+"/tickets", string(t.Per), name))
	if !ok { // every bucket is in use: the limit cannot be kept, so nobody is let in
		return r.refuse(r.s.later(tooManyCallers))
	}
	defer r.s.rates.Release(ref)
	word, now := r.s.rates.At(ref), r.now()
	ok, wait := t.Meter.TakeShared(word, now, 1)
	r.s.stats.decide(g.plan.Name, "tickets", decision(ok, t.Hard))
	left, reset := t.Meter.Left(word.Load(), now)
	r.ctx.Response.Header.Set("RateLimit-Policy", policyOf(t))
	if ok || !t.Hard {
		r.ctx.Response.Header.Set("RateLimit", remaining("tickets", left, ceilSeconds(reset)))
		return true
	}
	return r.tooFast(g, wait)
}

// tooFast refuses for wait.
func (r *request) tooFast(g *grant, wait time.Duration) bool {
	r.ctx.Response.Header.Set("RateLimit", remaining("tickets", 0, ceilSeconds(wait)))
	return r.refuse(&problem{
		reason: tooFast, limit: "tickets", retry: r.s.seconds(wait),
		detail: `limit "tickets" of plan "` + g.plan.Name + `" is ` + perPeriod(g.plan.Tickets.Rate),
	})
}

// lease is rate where a bank keeps the limit: one token for each ticket, exact over all nodes. With the bank down it fails closed, also
// where the limit only warns: the ticket would need the store as well.
func (r *request) lease(g *grant, name string) bool {
	t := &g.plan.Tickets
	a, err := r.s.lease(limiter.Ask{Bucket: r.s.ticketBucket(g.plan, name), Terms: t.Terms(), Want: 1})
	if err != nil {
		r.s.stats.decide(g.plan.Name, "tickets", "refuse")
		return r.refuse(r.s.later(storeDown))
	}
	ok := a.Given == 1
	r.s.stats.decide(g.plan.Name, "tickets", decision(ok, t.Hard))
	r.ctx.Response.Header.Set("RateLimit-Policy", policyOf(t))
	if ok || !t.Hard {
		r.ctx.Response.Header.Set("RateLimit", remaining("tickets", uint64(a.Remaining), ceilSeconds(resets(&a))))
		return true
	}
	return r.tooFast(g, max(a.Wait, a.Ends))
}

// ticketBucket is the bucket in the bank of a plan's limit on tickets.
func (s *Server) ticketBucket(plan *limiter.Plan, name string) ticket.Subject {
	t := &plan.Tickets
	return limiter.Bucket(s.o.Keys.Subject, plan.Name, "tickets", t.Per, name, t.Home(s.o.Name))
}

// errNoBank is a plan whose limits nobody keeps.
var errNoBank = errors.New("no bank keeps the limits of the plan")

// lease asks the bank for one bucket.
func (s *Server) lease(q limiter.Ask) (limiter.Grant, error) {
	if s.o.Bank == nil {
		return limiter.Grant{}, errNoBank
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeMax)
	defer cancel()
	var g [1]limiter.Grant
	err := s.o.Bank.Lease(ctx, []limiter.Ask{q}, g[:])
	return g[0], err
}

// issue makes a ticket, or has room made for it first where the plan says so.
func (s *Server) issue(g *grant) (t *ticket.Minted, used uint32, no *problem) {
	try := func(ctx context.Context) (a ticket.IssueAnswer) {
		t, a, no = s.make(ctx, g)
		used = a.Used
		return a
	}
	c := &g.plan.Connections
	if c.Full.Evicts() && s.o.Evictor != nil {
		s.o.Evictor.Issue(context.Background(), ticket.Newcomer{Subject: g.subject, Limit: c.Count, Unused: uint32(s.o.Outstanding), Idlest: c.Full == limiter.EvictIdlest}, try)
	} else {
		try(context.Background())
	}
	s.decided(g, used, no)
	return t, used, no
}

// make mints a ticket and puts it in the store, under the epoch of now: once more if the node learns of a new one.
func (s *Server) make(ctx context.Context, g *grant) (*ticket.Minted, ticket.IssueAnswer, *problem) {
	var nothing ticket.IssueAnswer
	for try := 0; ; try++ {
		epoch := s.o.Node.Epoch(g.subject)
		if epoch == 0 {
			return nil, nothing, s.later(storeDown)
		}
		t, no := s.mint(g, epoch)
		if no != nil {
			return nil, nothing, no
		}
		a, err := s.put(ctx, g, t)
		if err != nil {
			if !errors.Is(err, ticket.ErrUnavailable) {
				s.log.Error("issue failed", "error", err)
			}
			return nil, nothing, s.later(storeDown)
		}
		if a.Result == ticket.IssueEpoch && try == 0 && s.o.Node.Epoch(g.subject) != epoch {
			continue
		}
		return t, a, s.verdict(a.Result)
	}
}

// decided counts what the limit on connections has said, and logs what it has let pass.
func (s *Server) decided(g *grant, used uint32, no *problem) {
	c := &g.plan.Connections
	switch {
	case no == nil && used <= c.Count:
		s.stats.decide(g.plan.Name, "connections", "allow")
	case no == nil: // only where the plan warns
		s.stats.decide(g.plan.Name, "connections", "soft")
		if s.soft.first(g.subject, s.o.Clock.Now()) {
			s.log.Warn("limit exceeded", "limit", "connections", "plan", g.plan.Name, "client", g.claims.Client, "key", g.claims.Key,
				"count", c.Count, "used", used)
		}
	case no.reason == tooManySockets:
		s.stats.decide(g.plan.Name, "connections", "refuse")
	}
}

// mint draws the ticket, and dates the claims by the store's clock.
func (s *Server) mint(g *grant, epoch ticket.Epoch) (*ticket.Minted, *problem) {
	now := s.o.Node.StoreTime()
	t, err := s.minter.Mint(now.Add(s.o.TTL), epoch, g.subject, s.o.Node.Number())
	if err != nil {
		s.log.Error("no ticket can be made", "error", err)
		return nil, s.later(noRandom)
	}
	session := s.o.SessionMax - time.Duration(s.chance.upTo(int64(s.o.SessionMax/10)))
	g.claims.IssuedAt, g.claims.SessionEnd = now, now.Add(session)
	if !g.ends.IsZero() && g.ends.Before(g.claims.SessionEnd) {
		g.claims.SessionEnd = g.ends
	}
	if s.o.Revoked != nil && !s.o.Revoked.Issue(&g.claims) {
		return nil, &problem{reason: blocked}
	}
	g.claims.ID = ticket.PublicID(now, g.subject, t.Hash)
	return t, nil
}

func (s *Server) put(ctx context.Context, g *grant, t *ticket.Minted) (ticket.IssueAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, storeMax)
	defer cancel()
	limit := g.plan.Connections.Count
	if g.plan.Connections.Full == limiter.WarnFull {
		limit = ticket.NoLimit
	}
	return s.o.Node.Issue(ctx, &ticket.IssueRequest{
		Ticket: t.Hash, Secret: t.SecretHash, Subject: g.subject,
		Limit: limit, Outstanding: uint32(s.o.Outstanding), Life: s.o.TTL,
		Owner: g.claims.Key, Grant: ticket.AppendClaims(nil, &g.claims),
		Epoch: t.Locator.Epoch, Node: t.Locator.Node,
	})
}

// verdict is what the store's answer means for the caller; nil: issued.
func (s *Server) verdict(v ticket.IssueResult) *problem {
	switch v {
	case ticket.IssueOK:
		return nil
	case ticket.IssueFull:
		return &problem{reason: tooManySockets, limit: "connections", retry: s.seconds(fullWait)}
	case ticket.IssueOutstanding: // each lapses within a ticket's life, so then there is room
		return &problem{reason: tooManyTickets, limit: "tickets", retry: s.seconds(s.o.TTL)}
	case ticket.IssueDuplicate:
		s.log.Error("a ticket was drawn twice: the random source is broken")
		return s.later(noRandom)
	}
	return s.later(storeDown) // IssueEpoch, twice: the node has not followed the store yet
}

// fullWait is for who has all its sockets open. Nobody knows when one closes; a slot of a crashed node is free in 50 s.
const fullWait = 5 * time.Second

func (r *request) refuseIssue(g *grant, p *problem) {
	if p.reason != tooManySockets {
		r.refuse(p)
		return
	}
	count := strconv.FormatUint(uint64(g.plan.Connections.Count), 10)
	p.detail = `limit "connections" of plan "` + g.plan.Name + `" is ` + count
	h := &r.ctx.Response.Header
	h.Set("RateLimit-Policy", `"connections";q=`+count+`;qu="concurrent-requests", `+policyOf(&g.plan.Tickets))
	h.Set("RateLimit", remaining("connections", 0, int(fullWait/time.Second)))
	r.refuse(p)
}

// appendTicket appends the answer: all that opens the socket, once.
func (s *Server) appendTicket(dst []byte, g *grant, t *ticket.Minted, used uint32) []byte {
	c := &g.claims
	dst = slices.Grow(dst, 512)
	dst = appendString(append(dst, `{"id":`...), c.ID)
	dst = append(append(append(dst, `,"url":"`...), s.o.GateURL...), "/t/"...)
	dst = append(append(dst, t.Text[:]...), `","protocols":["ticketgate.v1",`...)
	for _, p := range c.Protocols {
		dst = append(appendString(dst, p), ',')
	}
	dst = append(append(append(dst, '"'), t.Secret[:]...), `"],"expires_in":`...)
	dst = strconv.AppendInt(dst, int64(s.o.TTL/time.Second), 10)
	dst = c.SessionEnd.UTC().AppendFormat(append(dst, `,"session_expires_at":"`...), time.RFC3339)
	dst = appendString(append(dst, `","plan":`...), c.Plan)
	dst = strconv.AppendUint(append(dst, `,"connections":{"used":`...), uint64(used), 10)
	dst = strconv.AppendUint(append(dst, `,"limit":`...), uint64(c.Limit), 10)
	return append(dst, "}}"...)
}
