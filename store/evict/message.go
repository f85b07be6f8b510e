package evict

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"ticketgate/ticket"
)

// What nodes say to each other, in fields of fixed length, the highest byte first. Each message has one length, and nothing else is
// taken for one:
//
//	version 1 | kind 1 | request 8 | incarnation of the sender 8 | ...
//	ask      subject 8 | idlest 1 | by 8             which of your sockets of the subject would have to go?
//	answer   found 1 | socket 8 | since 8            this one
//	evict    subject 8 | socket 8 | by 8             close it
//	ended    result 1                                that is done, and the store has acknowledged the count; or why not
//
// request is drawn at random, so that nobody answers what he was not asked. by and since are milliseconds of the store's clock: what
// comes after by is too late, and nothing is done.
type message struct {
	kind    kind
	request uint64
	from    ticket.Incarnation
	subject ticket.Subject
	idlest  bool
	found   bool
	socket  uint64
	at      int64 // by or since
	result  Result
}

type kind byte

const (
	kindAsk kind = iota + 1
	kindAnswer
	kindEvict
	kindEnded
)

const version = 1

// Length of the head, and of each kind with it.
const (
	headLen   = 18
	askLen    = headLen + 17
	answerLen = headLen + 17
	evictLen  = headLen + 24
	endedLen  = headLen + 1
)

var lengths = [...]int{kindAsk: askLen, kindAnswer: answerLen, kindEvict: evictLen, kindEnded: endedLen}

var errMessage = errors.New("not a message of this version")

// channel is what incarnation i listens to.
func channel(i ticket.Incarnation) string { return "evict:" + strconv.FormatUint(uint64(i), 16) }

// append appends m to dst.
func (m *message) append(dst []byte) []byte {
	be := binary.BigEndian
	dst = append(dst, version, byte(m.kind))
	dst = be.AppendUint64(be.AppendUint64(dst, m.request), uint64(m.from))
	switch m.kind {
	case kindAsk:
		dst = append(be.AppendUint64(dst, uint64(m.subject)), flag(m.idlest))
		dst = be.AppendUint64(dst, uint64(m.at))
	case kindAnswer:
		dst = be.AppendUint64(append(dst, flag(m.found)), m.socket)
		dst = be.AppendUint64(dst, uint64(m.at))
	case kindEvict:
		dst = be.AppendUint64(be.AppendUint64(dst, uint64(m.subject)), m.socket)
		dst = be.AppendUint64(dst, uint64(m.at))
	case kindEnded:
		dst = append(dst, byte(m.result))
	}
	return dst
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// parse reads what append has written.
func parse(b []byte) (m message, err error) {
	be := binary.BigEndian
	if len(b) < headLen || b[0] != version || b[1] == 0 || int(b[1]) >= len(lengths) || len(b) != lengths[b[1]] {
		return m, errMessage
	}
	m.kind, m.request, m.from = kind(b[1]), be.Uint64(b[2:]), ticket.Incarnation(be.Uint64(b[10:]))
	b = b[headLen:]
	switch m.kind {
	case kindAsk:
		m.subject, m.idlest, m.at = ticket.Subject(be.Uint64(b)), b[8] == 1, int64(be.Uint64(b[9:]))
		err = one(b[8])
	case kindAnswer:
		m.found, m.socket, m.at = b[0] == 1, be.Uint64(b[1:]), int64(be.Uint64(b[9:]))
		err = one(b[0])
	case kindEvict:
		m.subject, m.socket, m.at = ticket.Subject(be.Uint64(b)), be.Uint64(b[8:]), int64(be.Uint64(b[16:]))
	case kindEnded:
		if m.result = Result(b[0]); m.result == 0 || m.result > Doubt {
			err = errMessage
		}
	}
	if m.from == 0 || m.at < 0 {
		err = errMessage
	}
	if err != nil {
		return message{}, err
	}
	return m, nil
}

// one is for flags.
func one(b byte) error {
	if b > 1 {
		return errMessage
	}
	return nil
}

// until is how long it is from now to a moment of the store's clock that a message names.
func until(ms int64, now time.Time) time.Duration {
	return time.Duration(min(max(ms-now.UnixMilli(), -1), int64(totalMax/time.Millisecond))) * time.Millisecond
}
