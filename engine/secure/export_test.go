package secure

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"reflect"
	"unsafe"

	"ticketgate/engine/reactor"
)

// For the tests in package secure_test.

const (
	HelloMax  = helloMax
	UnreadMax = unreadMax
	ConnSize  = unsafe.Sizeof(conn{})
)

// Suites are the ids of those that the kernel can take.
func Suites() (ids []uint16) {
	for _, s := range suites {
		ids = append(ids, s.id)
	}
	return ids
}

// Look is the collector over all that has come, given piece by piece: how many bytes it needed for its verdict, and the alert
// of a refusal.
func Look(pieces ...[]byte) (at int, whole bool, alert byte) {
	var h hello
	var all []byte
	for _, p := range pieces {
		all = append(all, p...)
		whole, bad := h.look(all)
		if bad != nil {
			return len(all), false, bad.alert
		}
		if whole {
			return len(all), true, 0
		}
	}
	return len(all), false, 0
}

// LookOnce is the collector over one reading.
func LookOnce(in []byte) bool {
	var h hello
	whole, _ := h.look(in)
	return whole
}

// ExpandLabel is for tests that write records of their own.
func ExpandLabel(suite int, secret []byte, label string, n int) ([]byte, error) {
	return expandLabel(suites[suite].hash, secret, label, n)
}

// Lends reports whether the buffers of a tls.Conn are where lend.go looks for them.
func Lends() bool { return inside.known }

// FindInsides is what lend.go would think of a tls.Conn of type t.
func FindInsides(t reflect.Type) bool { return findInsides(t).known }

// Buffers is how many bytes of buffers a socket's tls.Conn holds, and what it has not decoded.
func Buffers(t *tls.Conn) int {
	return bufferAt(t, inside.rawInput).Cap() + bufferAt(t, inside.hand).Cap() +
		(*bytes.Reader)(unsafe.Add(unsafe.Pointer(t), inside.input)).Len()
}

// StartConn is Start for tests that look inside: conn gives the socket's tls.Conn, nil while it has none.
func (s *Server) StartConn(l *reactor.Loop, id reactor.ID) (conn func() *tls.Conn) {
	c := newConn(s, l, id)
	l.SetFilter(id, c)
	return func() *tls.Conn { return c.t }
}

// A Numbers is what the kernel was to be told, beside what crypto/tls had counted.
type Numbers struct{ TX, RX, TrueTX, TrueRX uint64 }

// OnOffload has each attempt to hand a socket over be answered with what f returns.
func (s *Server) OnOffload(f func(l *reactor.Loop, id reactor.ID, tx, rx []byte) error) {
	s.toKernel = f
	s.kernel.Store(allSuites)
}

// SeqOf returns the record numbers of t, and those in tx and rx.
func SeqOf(t *tls.Conn, tx, rx []byte) Numbers {
	seq := func(half string) uint64 {
		return binary.BigEndian.Uint64(reflect.ValueOf(t).Elem().FieldByName(half).FieldByName("seq").Bytes())
	}
	return Numbers{binary.BigEndian.Uint64(number(tx)), binary.BigEndian.Uint64(number(rx)), seq("out"), seq("in")}
}
