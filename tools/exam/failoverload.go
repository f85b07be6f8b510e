package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/ticket"
	"ticketgate/tools/rig"
)

const (
	failoverFlying = 4 // tickets that are used at the same time: each use is a connection
	failoverAgain  = 100 * time.Millisecond
)

// spendable is a ticket and whom it is for.
type spendable struct {
	*rig.Ticket
	client string
}

func makeDir(dir, name string) error { return os.Mkdir(filepath.Join(dir, name), 0o700) }

// subject is the subject of a ticket's client, which stands in the clear in the locator (ADMISSION: bytes 9 to 17).
func subject(t *rig.Ticket) (ticket.Subject, error) {
	raw, err := base64.RawURLEncoding.DecodeString(path.Base(t.Path()))
	if err != nil || len(raw) != 51 {
		return 0, errors.Join(fmt.Errorf("no locator in %d bytes", len(raw)), err)
	}
	return ticket.Subject(binary.BigEndian.Uint64(raw[9:17])), nil
}

// beside is a key in the slot of a ticket.
func (f *failoverRun) beside(t *spendable) string {
	s, err := subject(t.Ticket)
	if err != nil { // its slot has been asked for before
		return "stuffing"
	}
	return fmt.Sprintf("stuffing:{%04x}", s.Tag())
}

// slot is the hash slot of a ticket, 0 where there are none.
func (f *failoverRun) slot(t *rig.Ticket) (int, error) {
	s, err := subject(t)
	if err != nil {
		return 0, err
	}
	for _, server := range f.servers { // any that runs knows
		if v, err := server.Do("CLUSTER", "KEYSLOT", fmt.Sprintf("tg:{%04x}:t:", s.Tag())); err == nil {
			n, _ := v.(int64)
			return int(n), nil
		}
	}
	return 0, errors.New("no server of the cluster answers")
}

// ask asks node i for a ticket; nil: it was refused as it may be.
func (f *failoverRun) ask(ctx context.Context, client string, i int) (*rig.Ticket, error) {
	d := deed{client: client, node: i, from: time.Now()}
	t, err := f.issue(ctx, i, request{Stream: "echo", Client: client})
	d.to = time.Now()
	var no *rig.Refused
	switch {
	case err == nil:
		d.status, d.ticket = http.StatusCreated, t.Path()
		f.tickets.Store(d.ticket, t)
	case errors.As(err, &no):
		d.status = no.Status
		limit := no.Status == http.StatusTooManyRequests && no.Problem() == "connection-limit"
		if !limit && no.Status != http.StatusServiceUnavailable || seconds(no.Header) < 1 {
			f.odd("issue: status %d %s, Retry-After %q", no.Status, no.Problem(), no.Header.Get("Retry-After"))
		}
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		f.odd("issue: %s", plain(err))
	}
	f.h.issued(&d)
	return t, nil
}

// askOn asks until there is a ticket, now at one node and now at another.
func (f *failoverRun) askOn(ctx context.Context, client string) (*rig.Ticket, error) {
	ctx, cancel := context.WithTimeout(ctx, failoverPatience)
	defer cancel()
	for n := 0; ; n++ {
		if t, err := f.ask(ctx, client, n%len(f.nodes)); err != nil || t != nil {
			return t, err
		}
		if err := rest(ctx, failoverAgain); err != nil {
			return nil, fmt.Errorf("no ticket for %s: %w", client, err)
		}
	}
}

// known is a ticket by its path, nil: none.
func (f *failoverRun) known(path string) *rig.Ticket {
	t, _ := f.tickets.Load(path)
	k, _ := t.(*rig.Ticket)
	return k
}

// volley uses a ticket so many times at once, over nodes from i on, and returns the socket that it opened (the first, if more did) and
// what was answered.
func (f *failoverRun) volley(ctx context.Context, t *spendable, i, uses int) (opened *socket, statuses []int) {
	conns := make([]net.Conn, uses)
	d := net.Dialer{Timeout: httpTimeout}
	for k := range conns {
		conn, err := d.DialContext(ctx, "tcp", f.nodes[(i+k)%len(f.nodes)].Gate)
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(2 * httpTimeout))
		}
		if err != nil {
			if ctx.Err() == nil {
				f.odd("use: %s", plain(err))
			}
			continue
		}
		conns[k] = conn
	}
	statuses = make([]int, uses)
	sockets := make([]*socket, uses)
	var wg sync.WaitGroup
	gun := make(chan struct{})
	for k, conn := range conns {
		if conn != nil {
			wg.Go(func() {
				<-gun
				sockets[k], statuses[k] = f.use(conn, t, (i+k)%len(f.nodes))
			})
		}
	}
	close(gun)
	wg.Wait()
	for _, s := range sockets {
		switch {
		case s == nil:
		case opened == nil:
			opened = s
		default:
			_ = s.Close() // the history has it
		}
	}
	return opened, statuses
}

// use is one use of a ticket on a connection to node i, which stays open only if it becomes a socket.
func (f *failoverRun) use(conn net.Conn, t *spendable, i int) (*socket, int) {
	s := &socket{Conn: conn, r: bufio.NewReader(conn)}
	u := deed{client: t.client, ticket: t.Path(), node: i, from: time.Now()}
	retry := 0
	_, err := conn.Write([]byte(rig.Head("gate.test", t.Path(), t.Secret())))
	if err == nil {
		var a *http.Response
		if a, err = http.ReadResponse(s.r, nil); err == nil {
			u.status, retry = a.StatusCode, seconds(a.Header)
			_ = a.Body.Close() // nothing is read of it
		}
	}
	u.to = time.Now()
	f.h.used(&u)
	switch {
	case err != nil:
		f.odd("use: %s", plain(err))
	case !statusOK(u.status, retry):
		f.odd("use: status %d, Retry-After %d", u.status, retry)
	}
	if u.status == http.StatusSwitchingProtocols && conn.SetDeadline(time.Time{}) == nil {
		return s, u.status
	}
	_ = conn.Close() // it was refused
	return nil, u.status
}

// leave says goodbye.
func (f *failoverRun) leave(t *spendable, s *socket) {
	if f.h.left(t.client, t.Path()) {
		_ = s.send(frame.Close, []byte{3, 0xe8}) // if it has ended meanwhile, it has
	}
}

// stay answers the pings of a socket until it ends.
func (f *failoverRun) stay(t *spendable, s *socket) {
	code := s.answer()
	if f.h.left(t.client, t.Path()) {
		f.mu.Lock()
		f.closed[strconv.Itoa(int(code))]++
		f.mu.Unlock()
	}
	_ = s.Close() // its end was heard
}

// spendAll uses each ticket once, each at one node, of which the others hear nothing, and returns how many opened.
func (f *failoverRun) spendAll(ctx context.Context, all []*spendable) (opened int, err error) {
	for i, t := range all {
		s, _ := f.volley(ctx, t, i, 1)
		if s == nil {
			continue // the store was too slow: 503
		}
		opened++
		f.leave(t, s)
		_ = s.Close() // the goodbye is sent
	}
	return opened, ctx.Err()
}

// replayed is what came of tickets that were used again.
type replayed struct{ tickets, opened int }

// replay uses each of the tickets at each node, again where the answer is 503, until their life is over. unclear uses had nothing but 503.
func (f *failoverRun) replay(ctx context.Context, all []*spendable) (r replayed, unclear int, err error) {
	r.tickets = len(all)
	type use struct {
		t    *spendable
		node int
	}
	var left []use
	for _, t := range all {
		for i := range f.nodes {
			left = append(left, use{t, i})
		}
	}
	for until := time.Now().Add(failoverLife / 2); len(left) > 0; {
		var again []use
		for _, u := range left {
			s, statuses := f.volley(ctx, u.t, u.node, 1)
			if s != nil {
				r.opened++
				_ = s.Close() // the history has it
			}
			if statuses[0] == http.StatusServiceUnavailable {
				again = append(again, u)
			}
		}
		left = again
		if ctx.Err() != nil || time.Now().After(until) {
			break
		}
		if len(left) > 0 {
			_ = rest(ctx, failoverPoll) // then the loop sees that ctx has ended
		}
	}
	return r, len(left), ctx.Err()
}

// failoverLoad are clients that ask for more sockets than they may have, on and on.
type failoverLoad struct {
	stop context.CancelFunc
	work sync.WaitGroup // clients
	held sync.WaitGroup // sockets
}

// end waits until all have said goodbye. It may be called again.
func (l *failoverLoad) end() {
	l.stop()
	l.work.Wait()
	l.held.Wait()
}

// load starts the clients.
func (f *failoverRun) load(ctx context.Context) *failoverLoad {
	running, stop := context.WithCancel(ctx)
	l := &failoverLoad{stop: stop}
	flying := make(chan struct{}, failoverFlying)
	uses := f.x.n(replayUses, 12)
	for k, client := range f.clients {
		rnd := rand.New(rand.NewPCG(f.x.seed, uint64(k)))
		l.work.Go(func() { f.client(ctx, running, l, client, rnd, flying, uses) })
	}
	return l
}

// client has one client want two sockets more than it may have at once, each by a ticket that is used many times, and leave some by
// chance, until running ends. ctx is for what is under way then.
func (f *failoverRun) client(ctx, running context.Context, l *failoverLoad, client string, rnd *rand.Rand, flying chan struct{}, uses int) {
	type held struct {
		t *spendable
		s *socket
	}
	var mu sync.Mutex
	var mine []held
	leave := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		n = min(n, len(mine))
		for _, m := range mine[:n] {
			f.leave(m.t, m.s)
		}
		mine = mine[n:]
	}
	for running.Err() == nil {
		var wg sync.WaitGroup
		for range failoverLimit + 2 {
			i, j := rnd.IntN(len(f.nodes)), rnd.IntN(len(f.nodes))
			wg.Go(func() {
				flying <- struct{}{}
				defer func() { <-flying }()
				t, err := f.ask(ctx, client, i)
				if err != nil || t == nil {
					return // there will be another
				}
				k := &spendable{t, client}
				s, _ := f.volley(ctx, k, j, uses)
				if s == nil {
					return
				}
				mu.Lock()
				mine = append(mine, held{k, s})
				mu.Unlock()
				l.held.Go(func() { f.stay(k, s) })
			})
		}
		wg.Wait()
		mu.Lock()
		full := len(mine) >= failoverLimit
		mu.Unlock()
		if full || rnd.IntN(4) == 0 {
			leave(1 + rnd.IntN(failoverLimit))
		}
		_ = rest(running, failoverAgain) // then the loop ends
	}
	leave(failoverLimit + 2 + len(mine))
}
