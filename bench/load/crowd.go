package load

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// A member is a socket that sends messages and hears answers.
type member interface {
	// write sends n messages that were due at due.
	write(due time.Duration, n int)
	// waiting is when the messages were due that have no answer.
	waiting() []time.Duration
	placed
}

// A placed knows its place in a slice, so that it can be taken out without a search.
type placed interface {
	// move tells it a new place.
	move(place int)
}

// drop takes the one at place out of all; the last one moves there.
func drop[P placed](all []P, place int) []P {
	last := len(all) - 1
	all[place] = all[last]
	all[place].move(place)
	clear(all[last:])
	return all[:last]
}

// A crowd is open sockets that send. With a schedule each message has its moment and its latency runs from there, over the
// sockets in turn, whatever the answers do; without, every socket keeps InFlight messages under way.
type crowd struct {
	w       *worker
	pacer   *pacer
	members []member
	turn    int
	missing int // answers
	labels  uint32
	running bool
}

func (c *crowd) begin(now time.Duration) error {
	c.running = true
	if c.pacer = c.w.pacer(); c.pacer != nil {
		return nil
	}
	for _, m := range c.members {
		m.write(now, c.w.job.InFlight)
	}
	return nil
}

func (c *crowd) tick(now time.Duration) time.Duration {
	if c.pacer == nil {
		return far
	}
	return c.w.due(c.pacer, now, c.one)
}

// one sends the message that was due at due.
func (c *crowd) one(due, now time.Duration) {
	c.w.behind(due, now)
	if len(c.members) == 0 {
		c.w.unanswered(classSlow, due)
		return
	}
	c.turn++
	c.members[c.turn%len(c.members)].write(due, 1)
}

func (c *crowd) finish()    { c.running = false }
func (c *crowd) idle() bool { return c.missing == 0 || len(c.members) == 0 }

func (c *crowd) giveUp() {
	for _, m := range c.members {
		c.unanswered(m, classNothing)
	}
}

func (c *crowd) unanswered(m member, class string) {
	for _, due := range m.waiting() {
		c.w.unanswered(class, due)
	}
}

func (c *crowd) join(m member) {
	m.move(len(c.members))
	c.members = append(c.members, m)
}

// wrote counts n messages.
func (c *crowd) wrote(n int) {
	c.missing += n
	c.w.Begun += uint64(n)
	if c.pacer == nil {
		c.w.Due += uint64(n)
	}
}

// heard counts n answers that m has heard, and lets it go on in a closed loop.
func (c *crowd) heard(m member, n int, now time.Duration) {
	c.missing -= n
	c.w.Done += uint64(n)
	if c.running && c.pacer == nil {
		m.write(now, n)
	}
}

// leave counts the end of the socket at place, and the answers that will not come.
func (c *crowd) leave(place int, err error) {
	m := c.members[place]
	c.members = drop(c.members, place)
	c.w.Lost++
	if len(m.waiting()) == 0 {
		c.w.fail(c.w.class(err), 1)
		return
	}
	c.missing -= len(m.waiting())
	c.unanswered(m, c.w.class(err))
}

// A label tells in 16 hex digits which socket a message is of, and which of its messages it is: without, an answer that comes twice, or on
// another's socket, is as good as the right one.
type label struct {
	id   uint64 // of the socket, in the whole run: its digits
	sent uint32 // messages
	next uint32 // of them, whose answer is the next to come
}

const (
	labelSize  = 16
	labelShift = 20 // of the worker's number in a socket's: a million sockets each
)

// label is that of another socket.
func (c *crowd) label() label {
	c.labels++
	return label{id: hexDigits(uint32(c.w.job.Index)<<labelShift | c.labels)}
}

// put writes the label of a message to dst.
func (m *label) put(dst []byte, message uint32) {
	binary.LittleEndian.PutUint64(dst, m.id)
	binary.LittleEndian.PutUint64(dst[labelSize/2:], hexDigits(message))
}

// hexDigits are the eight digits of v, the first in the lowest byte: hex.Encode takes each from a table, and every message needs 32 of
// them.
func hexDigits(v uint32) uint64 {
	const each = 0x0101010101010101
	x := uint64(bits.ReverseBytes32(v))
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = (x>>4 | x<<8) & (each * 0x0f)
	letters := (x + each*6) >> 4 & each // 1 where the digit is 10 or more
	return x + each*'0' + letters*('a'-'0'-10)
}
