package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[4] = test{"fragment limits: bytes, count and time of a message in pieces, all sockets at once", fragmentLimits}
}

const (
	fragmentSockets = 1000
	fragmentMemory  = 96 << 20 // resident memory may grow by so much
	fragmentLimit   = 64 << 10 // websocket.max_message
	fragmentSize    = 1 << 10
	fragmentCount   = 128 // websocket.max_fragments
	assemblyTime    = 10 * time.Second
	answerWithin    = 5 * time.Second // before a socket that gives no answer is given up
)

// pace is how fast clocks run: the short form has deadlines of a tenth.
func (x *exam) pace(d time.Duration) time.Duration {
	if x.size < 0.1 {
		return d / 10
	}
	return d
}

// fragmentLimits plays each of three offences on many sockets at once; each socket is its own client.
func fragmentLimits(ctx context.Context, x *exam) error {
	assembly := x.pace(assemblyTime)
	c, err := start(ctx, x, clusterOptions{memory: true, yaml: fmt.Sprintf("websocket: { assembly: %s }\n", assembly)})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := x.n(fragmentSockets, 20)
	before, err := residentBytes(c.nodes[0].PID())
	if err != nil {
		return err
	}
	peak, stop := watchMemory(c.nodes[0].PID())
	for _, part := range []offenceInPieces{
		{"bytes over the limit", frame.CloseTooBig, tooLong, 0},
		{"fragment over the count", frame.ClosePolicy, tooMany, 0},
		{"first fragment, then silence", frame.ClosePolicy, unfinished, assembly},
	} {
		if err := c.inPieces(ctx, x, n, &part); err != nil {
			stop()
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	stop()
	grown := peak.Load() - before
	x.figure("resident memory %+.1f MiB at its peak", float64(grown)/(1<<20))
	x.wantMemory(grown <= fragmentMemory, "memory grew by %d bytes, want at most %d", grown, fragmentMemory)
	return nil
}

// offenceInPieces is one way to misuse fragments.
type offenceInPieces struct {
	name string
	code frame.Code
	// play sends all that is allowed, calls ready and waits until every socket has come so far; then it offends, and returns
	// when it had done so.
	play  func(s *socket, i int, ready func()) (time.Time, error)
	after time.Duration // when the close is due, as from the offence; it may come a tenth earlier or later
}

// inPieces plays p on n new sockets.
func (c *cluster) inPieces(ctx context.Context, x *exam, n int, p *offenceInPieces) error {
	sockets, err := c.openMany(ctx, n, "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	var all, done sync.WaitGroup
	all.Add(n)
	var mu sync.Mutex
	var took []time.Duration
	right := 0
	for i, s := range sockets {
		done.Go(func() {
			late, code, err := p.one(s, i, &all)
			mu.Lock()
			defer mu.Unlock()
			x.want(err == nil, "%s: socket %d: %v", p.name, i, err)
			if err != nil {
				return
			}
			x.want(code == p.code, "%s: socket %d: closed with %d, want %d", p.name, i, code, p.code)
			if code == p.code {
				right++
			}
			took = append(took, late)
		})
	}
	done.Wait()
	first, last := quantile(took, 0), quantile(took, 1)
	x.figure("%s: %d sockets, right code %d, close frames %v to %v after it", p.name, n, right, first.Round(time.Millisecond), last.Round(time.Millisecond))
	if p.after > 0 {
		x.want(first >= p.after/2, "%s: closed after %v, before its time", p.name, first)
		x.wantTime(first >= p.after-p.after/10 && last <= p.after+p.after/10, "%s: closed %v to %v after it, want %v", p.name, first, last, p.after)
	}
	return nil
}

// one plays p on s and waits for the close frame.
func (p *offenceInPieces) one(s *socket, i int, all *sync.WaitGroup) (time.Duration, frame.Code, error) {
	var once sync.Once
	ready := func() {
		once.Do(all.Done)
		all.Wait()
	}
	defer once.Do(all.Done) // whoever fails keeps nobody waiting
	if err := s.SetDeadline(time.Now().Add(p.after + 4*answerWithin)); err != nil {
		return 0, 0, err
	}
	at, err := p.play(s, i, ready)
	if err != nil {
		return 0, 0, err
	}
	code, err := s.untilClose()
	return time.Since(at), code, err
}

// untilClose reads to the close frame.
func (s *socket) untilClose() (frame.Code, error) {
	for {
		f, err := s.read()
		if err != nil {
			return 0, err
		}
		if f.op == frame.Close {
			return f.code(), nil
		}
	}
}

// fragments sends n fragments of size bytes of a message that goes on, as text or binary.
func (s *socket) fragments(n, size int, first frame.Op) error {
	op := first
	var all []byte
	for range n {
		all = appendMasked(all, frame.Header{Op: op}, make([]byte, size))
		op = frame.Continuation
	}
	_, err := s.Write(all)
	return err
}

// appendMasked adds a client's frame with the given payload.
func appendMasked(b []byte, h frame.Header, payload []byte) []byte {
	h.Masked, h.Mask, h.Len = true, [4]byte{9, 8, 7, 6}, int64(len(payload))
	b = frame.Append(b, h)
	at := len(b)
	b = append(b, payload...)
	frame.Mask(b[at:], h.Mask, 0)
	return b
}

var errClosedEarly = errors.New("closed although it had done nothing wrong yet")

// stillOpen asks for a pong, which comes when all before it was taken.
func (s *socket) stillOpen() error {
	if err := s.send(frame.Ping, []byte("still open")); err != nil {
		return err
	}
	f, err := s.read()
	if err != nil {
		return err
	}
	if f.op != frame.Pong {
		return errClosedEarly
	}
	return nil
}

func opOf(i int) frame.Op {
	if i%2 == 0 {
		return frame.Text
	}
	return frame.Binary
}

// tooLong fills the limit to the last byte, and then sends one byte more, of a fragment that announces more: of every other
// socket that is all, and the others go on to three times the limit.
func tooLong(s *socket, i int, ready func()) (time.Time, error) {
	if err := s.fragments(fragmentLimit/fragmentSize, fragmentSize, opOf(i)); err != nil {
		return time.Time{}, err
	}
	if err := s.stillOpen(); err != nil {
		return time.Time{}, err
	}
	ready()
	next := appendMasked(nil, frame.Header{Op: frame.Continuation}, make([]byte, fragmentSize))
	over := len(next) - fragmentSize + 1
	at := time.Now()
	if _, err := s.Write(next[:over]); err != nil {
		return at, err
	}
	if i/2%2 == 0 {
		return at, nil
	}
	for range 2 * fragmentLimit / fragmentSize {
		next = appendMasked(next, frame.Header{Op: frame.Continuation}, make([]byte, fragmentSize))
	}
	_, _ = s.Write(next[over:]) // it may be cut off: what counts is the close frame
	return at, nil
}

// tooMany sends as many fragments as a message may have, and then the last of it.
func tooMany(s *socket, i int, ready func()) (time.Time, error) {
	if err := s.fragments(fragmentCount, 1+i%16, opOf(i)); err != nil {
		return time.Time{}, err
	}
	if err := s.stillOpen(); err != nil {
		return time.Time{}, err
	}
	ready()
	at := time.Now()
	_, err := s.Write(appendMasked(nil, frame.Header{Fin: true, Op: frame.Continuation}, nil))
	return at, err
}

// unfinished sends one fragment, of a byte up to nearly the limit.
func unfinished(s *socket, i int, ready func()) (time.Time, error) {
	ready()
	at := time.Now()
	return at, s.fragments(1, 1+i*61%(fragmentLimit-1), opOf(i))
}
