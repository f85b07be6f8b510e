package engine

import (
	"strconv"
	"strings"

	"ticketgate/engine/reactor"
)

// A connection's public id is "c_", 7 characters of base 36 that name the engine (drawn at its start, so that ids of two nodes differ),
// and the socket's number in base 36. It opens nothing.
const (
	connPrefix = "c_"
	tagChars   = 7
)

func (e *Engine) connName(id reactor.ID) string {
	tag := strconv.FormatUint(uint64(e.tag), 36)
	b := append(make([]byte, 0, len(connPrefix)+tagChars+13), connPrefix...)
	for range tagChars - len(tag) {
		b = append(b, '0')
	}
	return string(strconv.AppendUint(append(b, tag...), uint64(id), 36))
}

// ValidConn tells whether text may be the public id of a connection, on whichever node.
func ValidConn(text string) bool {
	_, _, ok := parseConn(text)
	return ok
}

// connID is the socket of this engine that text names. Whether it is still there, only its loop knows.
func (e *Engine) connID(text string) (id reactor.ID, ok bool) {
	tag, id, ok := parseConn(text)
	return id, ok && tag == uint64(e.tag) && id != 0 && id.Loop() < len(e.workers)
}

// Mine tells whether text is the public id of a connection that this engine has, or had.
func (e *Engine) Mine(text string) bool {
	_, ok := e.connID(text)
	return ok
}

func parseConn(text string) (tag uint64, id reactor.ID, ok bool) {
	rest, ok := strings.CutPrefix(text, connPrefix)
	if !ok || len(rest) <= tagChars || len(rest) > tagChars+13 || strings.ToLower(rest) != rest {
		return 0, 0, false
	}
	tag, err := strconv.ParseUint(rest[:tagChars], 36, 32)
	n, err2 := strconv.ParseUint(rest[tagChars:], 36, 64)
	return tag, reactor.ID(n), err == nil && err2 == nil && rest[0] != '+' && rest[tagChars] != '+'
}
