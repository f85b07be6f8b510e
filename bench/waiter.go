package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A Waiter stands between a client and a Redis. Behind all that the client sends together it puts a WAIT, and it keeps the answers back
// until so many replicas have acknowledged: what it costs a client not to believe an answer before.
//
//	client ── commands ──> Waiter ── commands, WAIT n ──> Redis ──> replicas
//	       <── answers ───        <── answers, number ───
type Waiter struct {
	to       string
	replicas int
	listener net.Listener
	work     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil: closed
	waits int
	err   error
}

// What a Waiter does with a client's commands.
const (
	waitMax    = 10 * time.Second // for the replicas
	waitGroup  = 4096             // commands that are answered together at most
	waitGroups = 256              // groups of a client that are under way
)

// NewWaiter listens on a free port of loopback for clients of the Redis at address, who wait for so many replicas; 0: for none, and what
// they send and get passes as it is.
func NewWaiter(address string, replicas int) (*Waiter, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &Waiter{to: address, replicas: replicas, listener: l, conns: make(map[net.Conn]bool)}
	w.work.Go(w.accept)
	return w, nil
}

// Address is where clients connect.
func (w *Waiter) Address() string { return w.listener.Addr().String() }

// Waits is how many times replicas were waited for, and Err what went wrong first: fewer of them, or none, acknowledged, or Redis and a
// client did not understand each other.
func (w *Waiter) Waits() (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waits, w.err
}

// Close ends all connections and returns when nothing is left of them. To close again is harmless.
func (w *Waiter) Close() error {
	w.mu.Lock()
	if w.conns == nil {
		w.mu.Unlock()
		return nil
	}
	for c := range w.conns {
		_ = c.Close() // it may have ended before
	}
	w.conns = nil
	w.mu.Unlock()
	err := w.listener.Close()
	w.work.Wait()
	return err
}

func (w *Waiter) accept() {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.work.Go(func() { w.serve(c) })
	}
}

// enter notes c, so that Close ends it; false: it is too late.
func (w *Waiter) enter(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		return false
	}
	w.conns[c] = true
	return true
}

func (w *Waiter) leave(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
	_ = c.Close() // by Close already, maybe
}

func (w *Waiter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.conns != nil {
		w.err = err
	}
}

// serve is one client.
func (w *Waiter) serve(client net.Conn) {
	defer w.leave(client)
	ctx, cancel := context.WithTimeout(context.Background(), redisWait)
	defer cancel()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", w.to)
	if err != nil {
		w.fail(fmt.Errorf("bench: redis: %w", err))
		return
	}
	defer w.leave(server)
	if !w.enter(client) || !w.enter(server) {
		return
	}
	groups := make(chan int, waitGroups)
	var back sync.WaitGroup
	back.Go(func() {
		if err := w.answers(server, client, groups); err != nil {
			w.fail(err)
		}
		w.leave(client) // what is not answered any more need not be asked
		w.leave(server)
		for range groups { // whoever asks must not wait for us
		}
	})
	err = w.commands(client, server, groups)
	close(groups)
	if err != nil {
		w.fail(err)
	}
	back.Wait()
}

// unlessEnded is err with what it is about, or nil if it is the end of a connection, which either side may come to at any time.
func unlessEnded(err error, what string) error {
	if err == nil || err == io.EOF || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("bench: redis: %s: %w", what, err)
}

// commands passes what a client sends, and tells how many commands each group has.
func (w *Waiter) commands(client io.Reader, server io.Writer, groups chan<- int) error {
	in := bufio.NewReaderSize(client, 64<<10)
	var raw []byte
	wait := AppendCommand(nil, "WAIT", strconv.Itoa(w.replicas), strconv.FormatInt(waitMax.Milliseconds(), 10))
	for {
		raw = raw[:0]
		n := 0
		for n == 0 || in.Buffered() > 0 && n < waitGroup {
			if _, err := readValue(in, &raw, 0); err != nil {
				return unlessEnded(err, "a client's command")
			}
			n++
		}
		if w.replicas > 0 {
			raw = append(raw, wait...)
		}
		groups <- n
		if _, err := server.Write(raw); err != nil {
			return unlessEnded(err, "a command on its way")
		}
	}
}

// answers passes the answers of each group when those for whom it waits have it. The connection's end is no error while nothing is due.
func (w *Waiter) answers(server io.Reader, client io.Writer, groups <-chan int) error {
	out := bufio.NewReaderSize(server, 64<<10)
	var held []byte
	for n := range groups {
		held = held[:0]
		for n > 0 {
			v, err := readValue(out, &held, 0)
			if err != nil {
				return unlessEnded(err, "an answer")
			}
			if _, unasked := v.(pushed); !unasked {
				n--
			}
		}
		if w.replicas > 0 {
			v, err := readValue(out, nil, 0)
			if err != nil {
				return unlessEnded(err, "how many replicas have it")
			}
			if have, ok := v.(int64); !ok || have < int64(w.replicas) {
				return fmt.Errorf("bench: redis: %v of %d replicas have it after %s", v, w.replicas, waitMax)
			}
			w.mu.Lock()
			w.waits++
			w.mu.Unlock()
		}
		if _, err := client.Write(held); err != nil {
			return unlessEnded(err, "an answer on its way")
		}
	}
	return nil
}
