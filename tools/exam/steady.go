package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/engine/frame"
)

// Sockets that were there before and stay: both ends of a relay say something each second, whatever the other says. A message tells
// whose it is, which, and when it was due, by the clock that all processes of a machine share.

const (
	steadyEvery = time.Second
	steadyHead  = 16 + 16 + 16 + 8
	steadySize  = 128 // bytes of a message

	steadySamples = 3 // of what is wrong that a process tells
)

// steadyFigures are what one process has seen since it was last asked.
type steadyFigures struct {
	Messages, Lost, Repeated, Foreign, Altered int64
	Gone                                       int64 // sockets that ended before they should
	P99, Max                                   time.Duration
	Samples                                    []string // of what is wrong
}

func (f *steadyFigures) add(o *steadyFigures) {
	f.Messages += o.Messages
	f.Lost += o.Lost
	f.Repeated += o.Repeated
	f.Foreign += o.Foreign
	f.Altered += o.Altered
	f.Gone += o.Gone
	f.P99, f.Max = max(f.P99, o.P99), max(f.Max, o.Max) // each has seen enough to have a p99 of its own
	f.Samples = append(f.Samples, o.Samples...)
}

func (f *steadyFigures) wrong() int64 {
	return f.Lost + f.Repeated + f.Foreign + f.Altered + f.Gone
}

func (f *steadyFigures) String() string {
	return fmt.Sprintf("%d messages, p99 %v, longest %v; lost %d, repeated %d, foreign %d, altered %d, sockets lost %d", f.Messages,
		f.P99.Round(time.Microsecond), f.Max.Round(time.Microsecond), f.Lost, f.Repeated, f.Foreign, f.Altered, f.Gone)
}

// steadyBook collects them.
type steadyBook struct {
	mu   sync.Mutex
	f    steadyFigures
	took []time.Duration
}

// mark returns what has come since the last mark.
func (b *steadyBook) mark() *steadyFigures {
	b.mu.Lock()
	f, took := b.f, b.took
	b.f, b.took = steadyFigures{}, nil
	b.mu.Unlock()
	slices.Sort(took)
	f.P99, f.Max = quantile(took, 0.99), quantile(took, 1)
	return &f
}

func (b *steadyBook) bad(count *int64, n int64, format string, args ...any) {
	*count += n
	if len(b.f.Samples) < steadySamples {
		b.f.Samples = append(b.f.Samples, fmt.Sprintf(format, args...))
	}
}

// heard judges a message on a socket whose next is number next, and returns which is the one after it.
func (b *steadyBook) heard(socket, next uint64, text []byte, now int64) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var whose, n, due uint64
	var sum uint32
	b.f.Messages++
	if len(text) == steadySize {
		_, err := fmt.Sscanf(string(text[:steadyHead]), "%16x%16x%16x%8x", &whose, &n, &due, &sum)
		if err == nil && sum == steadySum(text) {
			switch {
			case whose != socket:
				b.bad(&b.f.Foreign, 1, "socket %x got message %d of %x", socket, n, whose)
			case n < next:
				b.bad(&b.f.Repeated, 1, "socket %x got message %d again, or late: %d was next", socket, n, next)
			default:
				if n > next {
					b.bad(&b.f.Lost, int64(n-next), "socket %x got message %d, %d was next", socket, n, next)
				}
				b.took = append(b.took, time.Duration(now-int64(due)))
				return n + 1
			}
			return next
		}
	}
	b.bad(&b.f.Altered, 1, "socket %x got %.60q", socket, text)
	return next
}

// gone notes that a socket ended; by what it says is lost, if it knows.
func (b *steadyBook) gone(socket uint64, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad(&b.f.Gone, 1, "socket %x: %v", socket, why)
}

func (b *steadyBook) missing(socket, said, heard uint64) {
	if said == heard {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad(&b.f.Lost, int64(max(said, heard)-min(said, heard)), "socket %x: %d messages came of %d", socket, heard, said)
}

func steadySum(text []byte) uint32 {
	return crc32.Update(crc32.Checksum(text[:steadyHead-8], castagnoli), castagnoli, text[steadyHead:])
}

// shared is the time of the clock that all processes share and nobody sets, in nanoseconds.
func shared() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // there is no Linux without it
	}
	return t.Nano()
}

// steadyEnd is one side of a relayed socket.
type steadyEnd struct {
	*socket
	number uint64
	by     side
	book   *steadyBook

	mu   sync.Mutex // a frame is being written
	said uint64
	wire []byte
}

// write sends a frame, masked if it is a client's.
func (e *steadyEnd) write(op frame.Op, payload []byte) error {
	h := frame.Header{Fin: true, Op: op}
	if e.by == fromClient {
		e.wire = appendMasked(e.wire[:0], h, payload)
	} else {
		h.Len = int64(len(payload))
		e.wire = append(frame.Append(e.wire[:0], h), payload...)
	}
	_, err := e.Write(e.wire)
	return err
}

// say sends the next message, which was due so long ago.
func (e *steadyEnd) say(late time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := fmt.Appendf(nil, "%016x%016x%016x%08x", e.number, e.said, uint64(shared()-int64(late)), 0)
	for i := len(text); i < steadySize; i++ {
		text = append(text, byte('a'+(int(e.number)+int(e.said)+i)%26))
	}
	copy(text[steadyHead-8:], fmt.Sprintf("%08x", steadySum(text)))
	e.said++
	return e.write(frame.Text, text)
}

// keepOn says a message each second until ctx ends.
func (e *steadyEnd) keepOn(ctx context.Context, first time.Duration) {
	due(ctx, first, steadyEvery, func(_ int, at time.Time) bool { return e.say(time.Since(at)) == nil }) // its reader notices the end
}

// end says that all is said.
func (e *steadyEnd) end() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.write(frame.Text, fmt.Appendf(nil, "%s%d", last, e.said))
}

// hear reads until the other side has said all, or the socket ends: then err says how. heard are the messages so far.
func (e *steadyEnd) hear(heard uint64) error {
	for {
		f, err := e.read()
		switch {
		case err != nil:
			return err
		case f.op == frame.Close:
			return fmt.Errorf("closed with %d", f.code())
		case f.op == frame.Ping:
			e.mu.Lock()
			err := e.write(frame.Pong, f.payload)
			e.mu.Unlock()
			if err != nil {
				return err
			}
		case f.op.Control():
		default:
			now := shared()
			if text, ok := strings.CutPrefix(string(f.payload), last); ok {
				said, err := strconv.ParseUint(text, 10, 64)
				e.book.missing(e.number, said, heard)
				return err
			}
			heard = e.book.heard(e.number, heard, f.payload, now)
		}
	}
}
