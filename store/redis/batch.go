package redis

import (
	"errors"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"ticketgate/ticket"
)

// A reply is what became of one command.
type reply struct {
	msg   rueidis.RedisMessage
	err   *unavailable // nil: msg is the answer
	shard ticket.Shard // that was asked
}

// A redirect is where a node of a cluster sends us.
type redirect struct {
	addr   string // host:port; the host may be missing: that of who said it
	asking bool   // for this command only (ASK); else for the slot from now on (MOVED)
}

// batch is what one lane sends in one round trip. It is used again and again.
type batch struct {
	primary  *primary
	calls    []*call
	commands []command
	asking   []bool // of commands
	wire     []rueidis.Completed
	over     *call // did not fit in the last batch
}

// fill takes first and what else waits.
func (b *batch) fill(first *call) {
	b.take(first)
	for len(b.commands) < laneMax && b.over == nil {
		select {
		case c := <-b.primary.queue:
			b.take(c)
		default:
			return
		}
	}
}

// take adds c, unless its caller has left.
func (b *batch) take(c *call) {
	if len(b.commands)+len(c.commands) > laneMax {
		b.over = c
		return
	}
	if c.state.CompareAndSwap(callQueued, callTaken) {
		b.calls = append(b.calls, c)
		b.commands = append(b.commands, c.commands...)
		for range c.commands {
			b.asking = append(b.asking, c.asking)
		}
	}
}

// run sends the batch, and the call that did not fit after it.
func (b *batch) run(l *link) {
	for len(b.commands) > 0 || b.over != nil {
		if len(b.commands) > 0 {
			b.deliver(l, b.send(l))
			b.calls, b.commands, b.asking = b.calls[:0], b.commands[:0], b.asking[:0]
		}
		if c := b.over; c != nil {
			b.over = nil
			b.take(c)
		}
	}
}

// deliver hands each call its replies. A broken connection counts once for the breaker, however many calls it hits.
func (b *batch) deliver(l *link, replies []reply) {
	b.notice(l, replies)
	for i, c := range b.calls {
		n := len(c.commands)
		c.replies, replies = replies[:n:n], replies[n:]
		close(c.done)
		b.calls[i] = nil
	}
	clear(b.commands)
}

// notice draws the conclusions from what went wrong: of each kind of answer once.
func (b *batch) notice(l *link, replies []reply) {
	p := b.primary
	answered, refused := false, false
	for i := range replies {
		switch err := replies[i].err; {
		case err == nil:
			answered = true
		case err.server:
			answered, refused = true, refused || err.redirect == nil
			if err.elsewhere() {
				p.store.lookAgain()
			}
			if err.demoted() {
				l.cut() // and look at the server anew before anything else is sent to it
			}
		default:
			p.failed(err)
			p.store.lookAgain()
			return
		}
	}
	if answered {
		p.store.refused.Store(refused)
	}
}

// send makes the round trip, and a second one for what the server had no script for.
func (b *batch) send(l *link) []reply {
	replies := make([]reply, len(b.commands))
	b.roundTrip(l, nil, replies)
	var again []int
	for i := range replies {
		if err := replies[i].err; err != nil && err.code() == "NOSCRIPT" {
			again = append(again, i)
		}
	}
	if len(again) > 0 {
		l.run(b.primary.store.cutAfter(), loading(l.client)...) // what fails shows as NOSCRIPT again
		b.roundTrip(l, again, replies)
	}
	return replies
}

// roundTrip sends the commands that only names, nil for all, and writes their replies.
func (b *batch) roundTrip(l *link, only []int, replies []reply) {
	b.wire = b.wire[:0]
	for i := range b.commands {
		if only != nil && !slices.Contains(only, i) {
			continue
		}
		if b.asking[i] {
			b.wire = append(b.wire, l.client.B().Asking().Build())
		}
		b.wire = append(b.wire, b.commands[i].wire(l.client))
	}
	results := l.run(b.primary.store.cutAfter(), b.wire...)
	at, whole := 0, true
	for i := range b.commands {
		if only != nil && !slices.Contains(only, i) {
			continue
		}
		if b.asking[i] {
			at++
		}
		replies[i] = replyOf(&results[at])
		whole = whole && (replies[i].err == nil || replies[i].err.server)
		at++
	}
	if !whole {
		b.wire = nil // rueidis may still be writing from it: its reader, which noticed that the connection is gone, does not wait for its writer
		return
	}
	clear(b.wire)
}

// wire is c as rueidis sends it.
func (c *command) wire(client rueidis.Client) rueidis.Completed {
	return client.B().Evalsha().Sha1(c.script.sha).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
}

// replyOf reads a result: the answer, or what its lack means.
func replyOf(r *rueidis.RedisResult) reply {
	m, err := r.ToMessage()
	if err == nil || rueidis.IsRedisNil(err) {
		return reply{msg: m}
	}
	if refusal, ok := rueidis.IsRedisErr(err); ok {
		return reply{err: refusalOf(refusal.Error())}
	}
	if errors.Is(err, errGone) {
		return reply{err: errBroken}
	}
	return reply{err: &unavailable{reason: err.Error(), sent: true}}
}

// notRun are the codes of errors by which a server refuses a command before it runs it. The same codes come from within a
// script, after part of it: then the text names the script.
var notRun = map[string]bool{
	"NOSCRIPT": true, "MOVED": true, "ASK": true, "TRYAGAIN": true, "CLUSTERDOWN": true, "CROSSSLOT": true, "READONLY": true,
	"MASTERDOWN": true, "LOADING": true, "NOREPLICAS": true, "MISCONF": true, "OOM": true, "BUSY": true, "NOPERM": true,
	"NOAUTH": true, "WRONGPASS": true,
}

func refusalOf(text string) *unavailable {
	u := &unavailable{reason: text, server: true}
	code := u.code()
	u.sent = !notRun[code] || strings.Contains(text, " script: ")
	if parts := strings.Fields(text); (code == "MOVED" || code == "ASK") && len(parts) == 3 && !u.sent {
		u.redirect = &redirect{parts[2], code == "ASK"}
	}
	return u
}

// code is the first word of an error that a server answered; empty for any other.
func (u *unavailable) code() string {
	if !u.server {
		return ""
	}
	code, _, _ := strings.Cut(u.reason, " ")
	return code
}

// elsewhere reports whether another server may be the right one.
func (u *unavailable) elsewhere() bool {
	switch u.code() {
	case "MOVED", "CLUSTERDOWN", "READONLY", "MASTERDOWN":
		return true
	}
	return false
}

// demoted reports whether the server is no primary any more.
func (u *unavailable) demoted() bool {
	return u.code() == "READONLY" || u.code() == "MASTERDOWN"
}
