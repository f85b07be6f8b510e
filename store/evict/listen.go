package evict

import (
	"context"
	"time"

	"ticketgate/ticket"
)

// listen hears what others ask of the present life.
func (e *Evictor) listen() {
	for e.ctx.Err() == nil {
		e.mu.Lock()
		life, another := e.life, e.another
		e.mu.Unlock()
		ctx, cancel := context.WithCancel(e.ctx)
		over := make(chan struct{})
		go func() { // ends before the next round
			defer close(over)
			if life != 0 {
				e.o.Bus.Subscribe(ctx, channel(life), e.heard, func(bool) {})
			}
		}()
		select {
		case <-another:
		case <-e.ctx.Done():
		}
		cancel()
		<-over
	}
}

// heard takes a message. It does not wait: beyond what is in hand it is dropped, and who asked does without the answer.
func (e *Evictor) heard(b []byte) {
	m, err := parse(b)
	if err != nil {
		e.o.Log.Debug("heard something that is no message", "bytes", len(b))
		return
	}
	if m.kind == kindAnswer || m.kind == kindEnded {
		e.mu.Lock()
		to := e.pending[m.request]
		e.mu.Unlock()
		select {
		case to <- m: // nobody, if it is nil
		default: // more answers than were asked for
		}
		return
	}
	left := until(m.at, e.o.Node.StoreTime())
	if left <= 0 {
		return // the node was stopped, or the store slow: nobody waits any more
	}
	hands := e.asked
	if m.kind == kindEvict {
		hands = e.evicts
	}
	select {
	case hands <- struct{}{}:
	default:
		return
	}
	e.work.Go(func() {
		defer func() { <-hands }()
		e.serve(&m, left)
	})
}

// serve does what another node asks for.
func (e *Evictor) serve(m *message, left time.Duration) {
	reply := message{request: m.request, from: e.o.Node.Incarnation()}
	ctx, cancel := context.WithTimeout(e.ctx, left)
	defer cancel()
	if m.kind == kindAsk {
		v, found := e.o.Sockets.Victim(ctx, m.subject, m.idlest)
		reply.kind, reply.found = kindAnswer, found
		if found {
			reply.socket, reply.at = v.Socket, e.since(v)
		}
	} else {
		// By left it has to have begun; who asked waits a little longer.
		longer, cancel := context.WithTimeout(e.ctx, left+lastMoment)
		defer cancel()
		ctx = longer
		reply.kind, reply.result = kindEnded, e.close(longer, m.socket, m.subject, left)
	}
	if err := e.o.Bus.Publish(ctx, []ticket.Message{{Channel: channel(m.from), Payload: reply.append(nil)}}); err != nil {
		e.o.Log.Debug("another node did not get its answer", "reason", err)
	}
}
