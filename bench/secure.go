package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const secureWait = 20 * time.Second // for a handshake and the 101

// A Secure holds sockets open over TLS. crypto/tls waits where a Loop must not, so each socket has a goroutine, which answers
// pings: it is for what a server holds, not for rates.
type Secure struct {
	Address string
	Config  *tls.Config

	mu      sync.Mutex
	open    []net.Conn
	reading sync.WaitGroup
	closing atomic.Bool
	lost    atomic.Int64
}

// Open opens one socket with each of heads, which are upgrade requests, at most lanes at once. After an error some are open.
func (s *Secure) Open(ctx context.Context, heads [][]byte, lanes int) error {
	next := make(chan []byte)
	failed := make([]error, lanes)
	var all sync.WaitGroup
	for i := range failed {
		all.Go(func() {
			for head := range next {
				if failed[i] == nil {
					failed[i] = s.one(ctx, head)
				}
			}
		})
	}
	for _, head := range heads {
		next <- head
	}
	close(next)
	all.Wait()
	return errors.Join(failed...)
}

func (s *Secure) one(ctx context.Context, head []byte) error {
	ctx, cancel := context.WithTimeout(ctx, secureWait)
	defer cancel()
	c, err := (&tls.Dialer{Config: s.Config}).DialContext(ctx, "tcp4", s.Address)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	in := bufio.NewReaderSize(c, 4<<10)
	if err := upgrade(ctx, c, in, head); err != nil {
		return errors.Join(err, c.Close())
	}
	s.mu.Lock()
	s.open = append(s.open, c)
	s.mu.Unlock()
	s.reading.Go(func() { // Close waits for it
		if err := answerPings(c, in); err != nil && !s.closing.Load() {
			s.lost.Add(1)
		}
	})
	return nil
}

// upgrade sends head and reads the 101.
func upgrade(ctx context.Context, c net.Conn, in *bufio.Reader, head []byte) error {
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return err
		}
	}
	if _, err := c.Write(head); err != nil {
		return fmt.Errorf("bench: upgrade: %w", err)
	}
	var got []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return fmt.Errorf("bench: upgrade: %w", err)
		}
		got = append(got, b)
		status, n, err := parseHead(got)
		switch {
		case err != nil:
			return err
		case n > 0 && status != 101:
			return &StatusError{Status: status}
		case n > 0:
			return c.SetDeadline(time.Time{})
		}
	}
}

// answerPings reads until c ends.
func answerPings(c net.Conn, in *bufio.Reader) error {
	for {
		b, err := in.Peek(2)
		if err != nil {
			return err
		}
		if b, err = in.Peek(2 + int(b[1]&0x7f)); err != nil { // control frames have at most 125 bytes (RFC 6455 5.5)
			return err
		}
		f, n, err := ParseFrame(b)
		switch {
		case err != nil:
			return err
		case n == 0 || f.Op < OpClose:
			return ErrEcho
		case f.Op == OpClose:
			return closed(f.Payload)
		case f.Op == OpPing:
			_, err = c.Write(AppendFrame(nil, OpPong, f.Payload))
		}
		if _, gone := in.Discard(n); err != nil || gone != nil {
			return errors.Join(err, gone)
		}
	}
}

// Lost says how many sockets ended by themselves.
func (s *Secure) Lost() int { return int(s.lost.Load()) }

// Close ends all sockets and their goroutines.
func (s *Secure) Close() error {
	s.closing.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.(*tls.Conn).NetConn().Close() // without an alert: a socket's close has no error that a client could act on
	}
	s.reading.Wait()
	s.open = nil
	return nil
}
