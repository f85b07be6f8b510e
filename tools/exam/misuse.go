package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/tools/rig"
)

// A misuse is a wrong use of a good ticket.
type misuse struct {
	name   string
	bound  string // the Origin that the ticket is for; "": none
	status string // of the answer
	reason string // in the log
	spends bool   // the right use afterwards has the same answer; else it opens the stream of the ticket
	from   string // the address that it comes from; "": that of the caller, which the tickets are bound to
	origin string
	target func(x *misusing, t *rig.Ticket) string // nil: the ticket's
	secret func(x *misusing, t *rig.Ticket) string // nil: the ticket's
}

const (
	misusesOfAKind  = 200
	misuseLife      = 30 * time.Second // tickets.ttl, the default
	misuseAtOnce    = 16
	misuseLogged    = 10 * time.Second // until the log tells of the last, which waits for nobody
	outstandingMost = 20               // tickets.outstanding, the default
	outstandingAsk  = 50               // clients that ask for more

	originRight   = "https://app.test"
	originOther   = "https://other.test"   // on the gate's list, too
	originUnknown = "https://unknown.test" // not on it
	addressOther  = "127.0.0.9"
)

// misuseRows are all kinds. What a ticket is for stands in Redis: no part of a request can choose another stream, so the rows that
// try are of other targets than the ticket's. Nor can anybody use a ticket before its issue is answered: the URL is known to nobody
// until then, and what is sent instead is forged. The product binds no ticket to a client's certificate.
var misuseRows = []misuse{
	{name: "another secret", status: "401", reason: "secret", spends: true, secret: func(x *misusing, _ *rig.Ticket) string { return x.invented() }},
	{name: "the secret of another ticket", status: "401", reason: "secret", spends: true, secret: func(x *misusing, _ *rig.Ticket) string { return x.foreign }},
	{name: "one bit of the secret", status: "401", reason: "secret", spends: true, secret: func(_ *misusing, t *rig.Ticket) string { return flipped(t.Secret(), 40) }},
	{name: "no secret", status: "401", reason: "secret", spends: true, secret: func(*misusing, *rig.Ticket) string { return "" }},
	{name: "a malformed secret", status: "401", reason: "secret", spends: true, secret: func(*misusing, *rig.Ticket) string { return "tgs_short" }},
	{name: "another Origin", bound: originRight, status: "401", reason: "binding", spends: true, origin: originOther},
	{name: "no Origin", bound: originRight, status: "401", reason: "binding", spends: true},
	{name: "an Origin that the gate does not know", bound: originRight, status: "403", reason: "origin", origin: originUnknown},
	{name: "another address", status: "401", reason: "binding", spends: true, from: addressOther},
	{name: "before the issue is answered: other random bits", status: "401", reason: "forged",
		target: func(_ *misusing, t *rig.Ticket) string { return flippedByte(t.Path(), -32) }},
	{name: "before the issue is answered: another MAC", status: "401", reason: "forged",
		target: func(_ *misusing, t *rig.Ticket) string { return flippedByte(t.Path(), -1) }},
	{name: "on another stream: a path behind it", status: "401", reason: "malformed",
		target: func(_ *misusing, t *rig.Ticket) string { return t.Path() + "/clock" }},
	{name: "on another stream: a path before it", status: "401", reason: "malformed",
		target: func(_ *misusing, t *rig.Ticket) string { return strings.Replace(t.Path(), "/t/", "/t/clock/", 1) }},
	{name: "on another stream: a query", status: "401", reason: "malformed",
		target: func(_ *misusing, t *rig.Ticket) string { return t.Path() + "?stream=clock" }},
}

// flipped changes the character of s at position at to another of the alphabet.
func flipped(s string, at int) string {
	b := []byte(s)
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return string(b)
}

// flippedByte changes a bit of a byte of the locator in path, counted from its end if at is negative.
func flippedByte(path string, at int) string {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(path, "/t/"))
	if err != nil || len(raw) < 32 {
		return path // its right use shows
	}
	raw[len(raw)+at] ^= 1
	return "/t/" + base64.RawURLEncoding.EncodeToString(raw)
}

// misusing is what the rows share.
type misusing struct {
	*cluster
	foreign string // the secret of another ticket
	draws   atomic.Uint64

	mu      sync.Mutex
	answers map[string]int // those with 401
	odd     map[string]int // what should not be, by row
}

// invented is a well-formed secret of nobody.
func (m *misusing) invented() string {
	return fmt.Sprintf("tgs_%042dA", m.draws.Add(1))
}

func (m *misusing) note(row *misuse, format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.odd[row.name+": "+fmt.Sprintf(format, args...)]++
}

// misuses plays all rows, each ticket at one node and then, rightly, at the other.
func misuses(ctx context.Context, x *exam) error {
	told := &refusalLog{reasons: map[string]int{}}
	c, err := start(ctx, x, clusterOptions{nodes: 2, count: 1000, yaml: "tickets: { bind_ip: true }\n",
		gate: exemptLoopback + fmt.Sprintf(", origins: [none, %q, %q]", originRight, originOther), env: []string{"TICKETGATE_LOG__LEVEL=debug"}, log: told})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "a node did not stop") }()
	t, err := c.issue(ctx, 0, request{Stream: "echo", Client: "another"})
	if err != nil {
		return err
	}
	m := &misusing{cluster: c, foreign: t.Secret(), answers: map[string]int{}, odd: map[string]int{}}
	n := x.n(misusesOfAKind, 10)
	want := map[string]int{}
	for i := range misuseRows {
		row := &misuseRows[i]
		want[row.reason] += n
		each(make([]struct{}, n), misuseAtOnce, func(k int, _ struct{}) { m.one(ctx, row, fmt.Sprintf("row%d-%d", i, k), k) })
	}
	for what, k := range m.odd {
		x.want(false, "%d times %s", k, what)
	}
	x.figure("%d wrong uses of %d kinds, and the right use of each ticket at the other node: different answers with 401: %d, what should not be: %d", n*len(misuseRows),
		len(misuseRows), len(m.answers), len(m.odd))
	x.want(len(m.answers) == 1, "%d different answers with 401, want one", len(m.answers))
	missing := told.wait(ctx, want)
	x.figure("the log tells of every wrong use: %v", missing == "")
	x.want(missing == "", "the log tells too little: %s", missing)
	return c.outstanding(ctx, x)
}

// one misuses a ticket at one node and uses it rightly at the other.
func (m *misusing) one(ctx context.Context, row *misuse, client string, k int) {
	begun := time.Now()
	t, err := m.issue(ctx, k%2, request{Stream: "echo", Client: client, Origin: row.bound})
	if err != nil {
		m.note(row, "no ticket: %v", err)
		return
	}
	target, secret := t.Path(), t.Secret()
	if row.target != nil {
		target = row.target(m, t)
	}
	if row.secret != nil {
		secret = row.secret(m, t)
	}
	_, answer, err := m.use(ctx, k%2, row.from, originHead(target, secret, row.origin))
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 "+row.status+" ") {
		m.note(row, "the wrong use: %.40q %v", answer, err)
	}
	s, right, err := m.use(ctx, (k+1)%2, "", originHead(t.Path(), t.Secret(), row.bound))
	if s != nil {
		defer s.Close()
	}
	switch {
	case err != nil:
		m.note(row, "the right use: %v", err)
	case row.spends && right != answer:
		m.note(row, "the right use afterwards: %.40q", right)
	case row.spends:
	case s == nil && time.Since(begun) > misuseLife-time.Second:
		m.one(ctx, row, client+"-again", k) // the machine had something else to do
	case s == nil:
		m.note(row, "the right use afterwards: %.40q", right)
	default:
		if err := s.echo("whose stream is it?"); err != nil { // the clock would say the time
			m.note(row, "the stream is not the ticket's: %v", err)
		}
	}
}

// use sends head to node i, from an address or, with "", from that of the caller. s is the socket of a 101; all other answers are
// read to their end.
func (m *misusing) use(ctx context.Context, i int, from, head string) (s *socket, answer string, err error) {
	if from == "" {
		from = "127.0.0.1"
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(ctx, "tcp", m.nodes[i].Gate)
	if err != nil {
		return nil, "", err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * answerWithin)); err != nil {
		return nil, "", errors.Join(err, conn.Close())
	}
	answer, err = use(conn, []byte(head))
	if err == nil && strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		return &socket{Conn: conn, r: bufio.NewReader(conn)}, answer, nil
	}
	if strings.HasPrefix(answer, "HTTP/1.1 401 ") {
		m.mu.Lock()
		m.answers[answer]++
		m.mu.Unlock()
	}
	return nil, answer, errors.Join(err, conn.Close())
}

// originHead is an upgrade request with an Origin, "": without.
func originHead(target, secret, origin string) string {
	head := rig.Head("gate.test", target, secret)
	if origin != "" {
		head = strings.TrimSuffix(head, "\r\n") + "Origin: " + origin + "\r\n\r\n"
	}
	return head
}

// outstanding asks for one ticket more than a client may have.
func (c *cluster) outstanding(ctx context.Context, x *exam) error {
	n, right := x.n(outstandingAsk, 3), 0
	for i := range n {
		ok, err := c.hoard(ctx, "hoarder"+strconv.Itoa(i), 3)
		if err != nil {
			return err
		}
		if ok {
			right++
		}
	}
	x.figure("%d clients with %d unused tickets: the next was refused with 429 and issued when one of the others had been used: %d", n, outstandingMost, right)
	x.want(right == n, "only %d of %d clients were refused their ticket %d, and got it when one was used", right, n, outstandingMost+1)
	return nil
}

// hoard asks for a client's tickets at both nodes. If the first has expired before it was all done, the client tries again.
func (c *cluster) hoard(ctx context.Context, client string, tries int) (bool, error) {
	begun := time.Now()
	var first *rig.Ticket
	for i := range outstandingMost {
		t, err := c.issue(ctx, i%2, request{Stream: "echo", Client: client})
		if err != nil {
			return false, fmt.Errorf("ticket %d of %s: %w", i+1, client, err)
		}
		if i == 0 {
			first = t
		}
	}
	_, err := c.issue(ctx, 0, request{Stream: "echo", Client: client})
	no := (*rig.Refused)(nil)
	refused := errors.As(err, &no) && no.Status == 429 && no.Problem() == "rate-limited"
	if refused {
		after, err := strconv.Atoi(no.Header.Get("Retry-After"))
		refused = err == nil && after >= 1
	}
	s, err := dialRaw(ctx, c.nodes[0].Gate, first)
	if err == nil {
		err = s.Close()
	}
	if err == nil {
		_, err = c.issue(ctx, 1, request{Stream: "echo", Client: client})
	}
	if time.Since(begun) > misuseLife-time.Second && tries > 1 {
		return c.hoard(ctx, client+"-again", tries-1)
	}
	if err != nil {
		return false, fmt.Errorf("%s uses a ticket and asks for another: %w", client, err)
	}
	return refused, nil
}

// refusalLog takes nodes' logs and counts the refusals by reason.
type refusalLog struct {
	mu      sync.Mutex
	reasons map[string]int
}

// Write implements io.Writer, for a line a call.
func (l *refusalLog) Write(line []byte) (int, error) {
	var v struct{ Msg, Reason string }
	if json.Unmarshal(line, &v) == nil && v.Msg == "connection refused" {
		l.mu.Lock()
		l.reasons[v.Reason]++
		l.mu.Unlock()
	}
	return len(line), nil
}

// wait returns when the log tells of as many refusals as want says, or what is missing after misuseLogged.
func (l *refusalLog) wait(ctx context.Context, want map[string]int) (missing string) {
	for until := time.Now().Add(misuseLogged); ; {
		missing = ""
		l.mu.Lock()
		for reason, n := range want {
			if l.reasons[reason] < n {
				missing += fmt.Sprintf("%q %d of %d; ", reason, l.reasons[reason], n)
			}
		}
		l.mu.Unlock()
		if missing == "" || time.Now().After(until) || rest(ctx, sampleEvery) != nil {
			return missing
		}
	}
}
