package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[44] = test{"panic containment: only the hit sockets and requests fail, all are counted, no secret in the trace", panics}
}

const (
	panicEvery    = 10_000 // messages, and handshakes at each of three stages
	panicTime     = 5 * time.Minute
	panicSitters  = 200             // sockets that send one message after the other
	panicArrivals = 8               // clients that come one after the other
	panicAfter    = 50              // sockets that are opened at the end
	panicStages   = 3               // that one attempt goes through
	panicSlots    = 2               // of a client that uses one: the slot of one that was hit comes back before the next is hit
	panicSlotTime = 7 * time.Second // for that, and for the slot of a ticket whose upgrade was hit before the ticket was spent
	panicSecret   = "what-only-the-client-knows"
)

// panics runs a gateway that panics now and then, and compares three counts: what must have happened by the numbers of
// messages and handshakes, what clients saw, and what the gateway says.
func panics(ctx context.Context, x *exam) error {
	log := new(journal)
	b, err := startEchoBackend()
	if err != nil {
		return err
	}
	defer b.Close()
	every := int64(x.n(panicEvery, 50))
	c, err := start(ctx, x, clusterOptions{memory: true, count: panicSlots, yaml: "tickets: { ttl: 5s }\n", backend: "ws://" + b.Addr().String() + "/", tags: []string{"faults"}, log: log,
		env: []string{fmt.Sprintf("GATE_FAULTS=message=%d,head=%d,join=%d,ticket=%d", every, every, every, every)}})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	p := &panicky{cluster: c, odd: map[string]int{}}
	p.play(ctx, x.lasting(panicTime))
	alive := 0
	for range panicAfter {
		for range 1 + panicStages { // each stage may have its turn to panic in one of them
			if p.arrive(0) {
				alive++
				break
			}
		}
	}
	m, err := c.metrics(ctx)
	if err != nil {
		return err
	}
	p.compare(x, every, m)
	x.figure("sockets opened afterwards: %d of %d", alive, panicAfter)
	x.want(alive == panicAfter, "%d of %d sockets opened afterwards", alive, panicAfter)
	for what, n := range p.odd {
		x.want(false, "%d times %s", n, what)
	}
	log.judge(x, c, p)
	return nil
}

// panicky counts what clients send and get.
type panicky struct {
	*cluster
	tickets, heads, messages atomic.Int64 // asked for, sent
	noTicket, noSocket, cut  atomic.Int64 // answered 500; the last: closed 1011
	mu                       sync.Mutex
	odd                      map[string]int
}

// play lets sitters talk and others come for d.
func (p *panicky) play(ctx context.Context, d time.Duration) {
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	var done sync.WaitGroup
	for i := range panicSitters {
		done.Go(func() {
			for ctx.Err() == nil {
				p.sit(ctx, i)
			}
		})
	}
	for i := range panicArrivals {
		done.Go(func() {
			for ctx.Err() == nil {
				p.arrive(i)
			}
		})
	}
	done.Wait()
}

func (p *panicky) strange(what string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.odd[fmt.Sprintf("%s: %s", what, plain(err))]++
}

// ticket asks for one; nil: a 500 was in the way. A slot may take a moment to come back.
func (p *panicky) ticket(ctx context.Context, q request) *rig.Ticket {
	for since := time.Now(); ; {
		p.tickets.Add(1)
		t, err := p.issue(ctx, 0, q)
		var refused *rig.Refused
		switch {
		case err == nil:
			return t
		case refusedWith(err, "connection-limit") && time.Since(since) < panicSlotTime && rest(ctx, sampleEvery/10) == nil:
			continue
		case errors.As(err, &refused) && refused.Status == http.StatusInternalServerError:
			p.noTicket.Add(1)
		case refused != nil:
			p.strange("ticket", errors.New(refused.Problem()))
		default:
			p.strange("ticket", err)
		}
		return nil
	}
}

// enter opens a socket; nil: a 500 was in the way. What has begun is finished, so that all is counted.
func (p *panicky) enter(stream, client string) *socket {
	ctx, cancel := context.WithTimeout(context.Background(), 4*answerWithin)
	defer cancel()
	t := p.ticket(ctx, request{Stream: stream, Client: client})
	if t == nil {
		return nil
	}
	p.heads.Add(1)
	s, err := dialRaw(ctx, p.nodes[0].Gate, t)
	switch {
	case err == nil:
		return s
	case strings.Contains(err.Error(), "upgrade: 500"):
		p.noSocket.Add(1)
	default:
		p.strange("upgrade", err)
	}
	return nil
}

// arrive opens a socket and closes it in order, and reports whether it could.
func (p *panicky) arrive(i int) bool {
	s := p.enter("echo", "arrival"+strconv.Itoa(i))
	if s == nil {
		return false
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return false
	}
	if err := s.send(frame.Close, []byte{3, 0xe8}); err != nil {
		p.strange("close", err)
		return false
	}
	if code, err := s.untilClose(); err != nil || code != frame.CloseNormal {
		p.strange("close answered with "+strconv.Itoa(int(code)), err)
	}
	return true
}

// sit sends messages on one socket, through the echo or through a relay, until it is cut or ctx ends.
func (p *panicky) sit(ctx context.Context, i int) {
	s := p.enter([]string{"echo", "relay"}[i%2], "sitter"+strconv.Itoa(i))
	if s == nil {
		return
	}
	defer s.Close()
	for n := 0; ctx.Err() == nil; n++ {
		p.messages.Add(1)
		err := s.echo(fmt.Sprintf("%s: %d of %d", panicSecret, n, i))
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "closed with 1011"):
			p.cut.Add(1)
			return
		default:
			p.strange("message", err)
			return
		}
	}
}

// compare holds the three counts next to each other.
func (p *panicky) compare(x *exam, every int64, m map[string]float64) {
	heads := p.heads.Load()
	joins := heads - heads/every
	want := struct{ message, gate, ticket int64 }{p.messages.Load() / every, heads/every + joins/every, p.tickets.Load() / every}
	counted, front := int64(m["ticketgate_panics_total"]), int64(m[`ticketgate_tickets_rejected_total{reason="fault"}`])
	x.figure("%d messages, %d upgrades, %d requests for tickets, one panic in %d at each of four places", p.messages.Load(), heads, p.tickets.Load(), every)
	x.figure("injected: %d in messages, %d in upgrades, %d in requests; seen: %d sockets closed 1011, %d upgrades and %d requests answered 500",
		want.message, want.gate, want.ticket, p.cut.Load(), p.noSocket.Load(), p.noTicket.Load())
	x.figure("counted by the gateway: %d while sockets were served, %d in requests", counted, front)
	x.want(want.message > 0 && want.gate > 0 && want.ticket > 0, "not every place has panicked: nothing is shown")
	x.want(p.cut.Load() == want.message, "%d sockets closed 1011, want %d", p.cut.Load(), want.message)
	x.want(p.noSocket.Load() == want.gate, "%d upgrades answered 500, want %d", p.noSocket.Load(), want.gate)
	x.want(p.noTicket.Load() == want.ticket, "%d requests answered 500, want %d", p.noTicket.Load(), want.ticket)
	x.want(counted == want.message+want.gate, "the panic counter says %d, want %d", counted, want.message+want.gate)
	x.want(front == want.ticket, "the front end counts %d faults, want %d", front, want.ticket)
}

// journal keeps what nodes log.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

// judge wants a trace of every panic, and nothing in them that only clients should know.
func (j *journal) judge(x *exam, c *cluster, p *panicky) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := j.text.Bytes()
	traces := bytes.Count(text, []byte(`"stack"`))
	want := int(p.cut.Load() + p.noSocket.Load() + p.noTicket.Load())
	found := 0
	for _, secret := range []string{panicSecret, "injected", "tgs_", c.key.Text, strings.TrimPrefix(c.key.Text, "tgk_exam_"), "/t/"} {
		n := bytes.Count(text, []byte(secret))
		found += n
		x.want(n == 0, "the log has %q %d times", secret[:min(len(secret), 12)], n)
	}
	x.figure("log: %d bytes, %d traces, secrets found %d", len(text), traces, found)
	x.want(traces == want, "%d traces in the log, want %d", traces, want)
}

// startEchoBackend runs a WebSocket server that sends every message back, until its listener is closed.
func startEchoBackend() (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go echoBack(c)
		}
	}()
	return ln, nil
}

func echoBack(c net.Conn) {
	defer c.Close()
	s, err := acceptRaw(c)
	if err != nil {
		return
	}
	for {
		f, err := s.read()
		if err != nil || f.op == frame.Close {
			return
		}
		h := frame.Header{Fin: f.fin, Op: f.op, Len: int64(len(f.payload))}
		if _, err := s.Write(append(frame.Append(nil, h), f.payload...)); err != nil {
			return
		}
	}
}
