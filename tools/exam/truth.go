package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

// A truth is the clients' own count of their sockets, which no gateway is asked for. A socket counts from its 101 until its client
// says goodbye, or hears it. The count is looked at with every change, so no instant is missed.
type truth struct {
	limit int

	mu    sync.Mutex
	open  map[string][]*counted
	total int
	most  int // of one client, ever
	above int // openings beyond the limit

	replaced int // closed with 4409
	lost     int // ended neither so nor by their client
}

// counted is an open socket.
type counted struct {
	*socket
	gone bool // guarded by truth.mu
}

func newTruth(limit int) *truth { return &truth{limit: limit, open: map[string][]*counted{}} }

// opened counts s, and answers its pings until it ends.
func (t *truth) opened(client string, s *socket) {
	k := &counted{socket: s}
	t.mu.Lock()
	t.open[client] = append(t.open[client], k)
	t.total++
	n := len(t.open[client])
	t.most = max(t.most, n)
	if n > t.limit {
		t.above++
	}
	t.mu.Unlock()
	go func() { // ends with the socket, which leave or closeAll closes
		code := k.answer()
		t.forget(client, k, code)
		_ = k.Close()
	}()
}

// forget counts k no more, which has heard code; left: it has gone by itself.
func (t *truth) forget(client string, k *counted, code frame.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.gone {
		return
	}
	switch code {
	case left:
	case frame.CloseReplaced:
		t.replaced++
	default:
		t.lost++
	}
	k.gone = true
	t.total--
	list := t.open[client]
	t.open[client] = slices.DeleteFunc(list, func(c *counted) bool { return c == k })
}

// of is how many sockets a client has.
func (t *truth) of(client string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open[client])
}

// all is how many there are.
func (t *truth) all() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// left stands for the code that a client says itself.
const left = frame.CloseNormal

// ends are how many sockets were closed for others, and how many ended for no reason.
func (t *truth) ends() (replaced, lost int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.replaced, t.lost
}

// leave ends the oldest n of client's sockets.
func (t *truth) leave(client string, n int) {
	t.mu.Lock()
	list := slices.Clone(t.open[client])
	t.mu.Unlock()
	for _, k := range list[:min(n, len(list))] {
		t.forget(client, k, left)
		_ = k.send(frame.Close, []byte{3, 0xe8}) // if it has ended meanwhile, it has
	}
}

// closeAll ends every socket.
func (t *truth) closeAll() {
	t.mu.Lock()
	var all []*counted
	for _, list := range t.open {
		all = append(all, list...)
	}
	t.mu.Unlock()
	for _, k := range all {
		_ = k.Close()
	}
}

// What one who wants a socket is told.
type wish int

const (
	admitted wish = iota
	full          // 429 connection-limit, with Retry-After
	busy          // 503 with Retry-After, 429 of another kind, or no answer: nothing is known of the limit
)

// want asks node i for a ticket, opens a socket with it at node j, and counts it. An answer that breaks a promise is an error.
func (c *cluster) want(ctx context.Context, t *truth, client string, i, j int) (wish, error) {
	k, err := c.issue(ctx, i, request{Stream: "echo", Client: client})
	var no *rig.Refused
	switch {
	case errors.As(err, &no):
		if seconds, err := strconv.Atoi(no.Header.Get("Retry-After")); err != nil || seconds < 1 {
			return busy, errors.New("status " + strconv.Itoa(no.Status) + " with Retry-After " + strconv.Quote(no.Header.Get("Retry-After")))
		}
		switch {
		case no.Status == http.StatusTooManyRequests && no.Problem() == "connection-limit":
			return full, nil
		case no.Status == http.StatusTooManyRequests, no.Status == http.StatusServiceUnavailable:
			return busy, nil
		}
		return busy, err
	case err != nil:
		return busy, nil //nolint:nilerr // the node is gone, perhaps
	}
	s, err := dialRaw(ctx, c.nodes[j].Gate, k)
	var status statusError
	switch {
	case errors.As(err, &status) && status != http.StatusServiceUnavailable:
		return busy, errors.New("a fresh ticket is answered with " + status.Error())
	case err != nil:
		return busy, nil //nolint:nilerr // so is this one
	}
	t.opened(client, s)
	return admitted, nil
}
