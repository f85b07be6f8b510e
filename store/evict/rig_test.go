package evict_test

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ticketgate/store/evict"
	"ticketgate/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a store that counts one subject, and nodes with sockets, whose messages may be lost or late.
type world struct {
	t     *testing.T
	mu    sync.Mutex
	limit int
	// reserved are unused tickets; held are the sockets of each node as it has told the store.
	reserved int
	held     map[ticket.Incarnation]int
	nodes    []*host

	listeners map[string]func([]byte)
	lose      func(channel string, payload []byte) bool // nil: nothing
	lost      [][]byte
	sent      int
}

// host is a node.
type host struct {
	*evict.Evictor
	w       *world
	life    ticket.Incarnation
	open    []socket
	evicted []uint64
	slow    time.Duration // an eviction takes
	result  evict.Result  // 0: as it is
	deaf    bool          // the store does not acknowledge
}

type socket struct {
	id      uint64
	since   time.Time
	idle    time.Time
	leaving bool
}

const subject = ticket.Subject(77)

func newWorld(t *testing.T, limit, nodes int) *world {
	w := &world{t: t, limit: limit, held: map[ticket.Incarnation]int{}, listeners: map[string]func([]byte){}}
	for i := range nodes {
		h := &host{w: w, life: ticket.Incarnation(0xa1 + i)}
		h.Evictor = evict.New(evict.Options{Node: h, Sockets: h, Bus: w, Rand: rand.Reader})
		h.Live(h.life)
		w.nodes = append(w.nodes, h)
	}
	return w
}

func (w *world) close() {
	for _, h := range w.nodes {
		h.Close()
	}
}

// Publish implements evict.Bus.
func (w *world) Publish(ctx context.Context, ms []ticket.Message) error {
	for _, m := range ms {
		w.mu.Lock()
		w.sent++
		to := w.listeners[m.Channel]
		lost := w.lose != nil && w.lose(m.Channel, m.Payload)
		if lost {
			w.lost = append(w.lost, m.Payload)
		}
		w.mu.Unlock()
		if to != nil && !lost {
			to(slices.Clone(m.Payload))
		}
	}
	return ctx.Err()
}

// Subscribe implements evict.Bus.
func (w *world) Subscribe(ctx context.Context, channel string, payload func([]byte), _ func(bool)) {
	w.mu.Lock()
	w.listeners[channel] = payload
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	delete(w.listeners, channel)
	w.mu.Unlock()
}

// count is how many messages were sent.
func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

func (w *world) listener(channel string) func([]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listeners[channel]
}

// late delivers the only message that was lost, and waits until it has been dealt with.
func (w *world) late(channel string) {
	w.t.Helper()
	w.mu.Lock()
	lost := w.lost
	w.mu.Unlock()
	if len(lost) != 1 {
		w.t.Fatalf("%d messages were lost, want 1", len(lost))
	}
	w.listener(channel)(lost[0])
	synctest.Wait()
}

// add opens a socket at h, so long ago.
func (w *world) add(h *host, id uint64, opened, idle time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h.open = append(h.open, socket{id: id, since: time.Now().Add(-opened), idle: time.Now().Add(-idle)})
	w.held[h.life]++
}

// issue is the store's answer; issued tickets stay reserved.
func (w *world) issue() (a ticket.IssueAnswer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.Used, a.Reserved = uint32(w.reserved), uint32(w.reserved)
	for i, n := range w.held {
		if a.Used += uint32(n); n > 0 {
			a.Counted = append(a.Counted, i)
		}
	}
	slices.Sort(a.Counted)
	if int(a.Used) >= w.limit {
		a.Result = ticket.IssueFull
		return a
	}
	w.reserved++
	return ticket.IssueAnswer{Result: ticket.IssueOK, Used: a.Used + 1}
}

// want asks at h for a ticket: what came of it, after how long, and how often the store was asked.
func (h *host) want(idlest bool) (a ticket.IssueAnswer, took time.Duration, asked int) {
	start := time.Now()
	n := ticket.Newcomer{Subject: subject, Limit: uint32(h.w.limit), Unused: 20, Idlest: idlest}
	h.Issue(context.Background(), n, func(context.Context) ticket.IssueAnswer {
		asked++
		a = h.w.issue()
		return a
	})
	return a, time.Since(start), asked
}

func (h *host) Incarnation() ticket.Incarnation { return h.life }
func (h *host) StoreTime() time.Time            { return time.Now() }

// Tell implements evict.Node.
func (h *host) Tell(context.Context, ticket.Subject) error {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.deaf {
		return ticket.ErrUnavailable
	}
	h.w.held[h.life] = len(h.open)
	return nil
}

// Victim implements evict.Sockets.
func (h *host) Victim(_ context.Context, u ticket.Subject, idlest bool) (v evict.Victim, ok bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if u != subject {
		h.w.t.Errorf("asked for subject %d", u)
	}
	for _, s := range h.open {
		ago := time.Since(s.since)
		if idlest {
			ago = time.Since(s.idle)
		}
		if !s.leaving && (!ok || ago > v.Ago) {
			v, ok = evict.Victim{Socket: s.id, Ago: ago}, true
		}
	}
	return v, ok
}

// Evict implements evict.Sockets.
func (h *host) Evict(ctx context.Context, id uint64, u ticket.Subject, within time.Duration) evict.Result {
	h.w.mu.Lock()
	i := slices.IndexFunc(h.open, func(s socket) bool { return s.id == id })
	switch {
	case h.result != 0:
		defer h.w.mu.Unlock()
		return h.result
	case i < 0 || u != subject:
		defer h.w.mu.Unlock()
		return evict.Gone
	case h.open[i].leaving:
		defer h.w.mu.Unlock()
		return evict.Taken
	case within <= 0:
		defer h.w.mu.Unlock()
		return evict.Late
	}
	h.open[i].leaving = true
	h.evicted = append(h.evicted, id)
	slow := h.slow
	h.w.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return evict.Doubt
	}
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.open = slices.DeleteFunc(h.open, func(s socket) bool { return s.id == id })
	return evict.Done
}

// evictions are the sockets that had to go.
func (w *world) evictions() (all []uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.nodes {
		all = append(all, h.evicted...)
	}
	return all
}
