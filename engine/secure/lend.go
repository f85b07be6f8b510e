package secure

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// A tls.Conn keeps for ever the largest buffer that it has ever needed: one that has seen a ClientHello and a record of 16 KiB
// holds 20 KiB while it is idle. It needs them only inside of Read, and no two of a loop's read at once, so each loop has one
// buffer that is lent to the tls.Conn for the length of a Read: 3 KiB a socket are left, and no allocation for a long record.
//
// There is no other way to these buffers than by their place in the struct. It is asked of the type by name, once; in a Go
// that has moved or renamed them nothing is lent, and everything works as before, but for the memory. A test says so.

// insides is where the buffers of a tls.Conn lie.
type insides struct {
	rawInput, hand, input uintptr
	known                 bool
}

var inside = findInsides(reflect.TypeFor[tls.Conn]())

func findInsides(t reflect.Type) (at insides) {
	raw, ok1 := t.FieldByName("rawInput") // a record as it came; empty between two records
	hand, ok2 := t.FieldByName("hand")    // handshake messages; the ClientHello is the longest
	input, ok3 := t.FieldByName("input")  // what Read has not given yet; it points into rawInput
	buffer, reader := reflect.TypeFor[bytes.Buffer](), reflect.TypeFor[bytes.Reader]()
	if ok1 && ok2 && ok3 && raw.Type == buffer && hand.Type == buffer && input.Type == reader {
		at = insides{raw.Offset, hand.Offset, input.Offset, true}
	}
	return at
}

func bufferAt(t *tls.Conn, offset uintptr) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(t), offset))
}

// slim takes away what the handshake has left: the buffers that the ClientHello needed. On t's only goroutine.
func slim(t *tls.Conn) {
	if !inside.known {
		return
	}
	for _, offset := range []uintptr{inside.rawInput, inside.hand} {
		if b := bufferAt(t, offset); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
}

// lentSize is room for the longest record, and for as much again as crypto/tls has bytes.Buffer make room for.
const lentSize = recordHeader + recordMax + 2048 + 2*bytes.MinRead

// open is c.t.Read with the loop's buffer.
func (c *conn) open(plain []byte) (int, error) {
	if !inside.known {
		return c.t.Read(plain)
	}
	loop := c.s.share(c.l)
	raw := bufferAt(c.t, inside.rawInput)
	*raw = *bytes.NewBuffer(loop.record)
	n, err := c.t.Read(plain)
	if raw.Len() == 0 {
		*raw = bytes.Buffer{}
		(*bytes.Reader)(unsafe.Add(unsafe.Pointer(c.t), inside.input)).Reset(nil)
	} else { // a fatal error, with part of a record unread: it keeps the buffer until the socket is closed
		loop.record = make([]byte, 0, lentSize)
	}
	return n, err
}
