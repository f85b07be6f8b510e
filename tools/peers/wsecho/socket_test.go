package main

import (
	"bytes"
	"strings"
	"testing"
)

const request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// The answer is that of RFC 6455 1.3.
func TestUpgrade(t *testing.T) {
	for cut := range len(request) {
		s := new(socket)
		out, ok := s.answer([]byte(request[:cut]))
		if len(out) > 0 || !ok {
			t.Fatalf("%d bytes: %q, %t", cut, out, ok)
		}
		out, ok = s.answer([]byte(request[cut:]))
		if !ok || !s.open || !bytes.HasPrefix(out, []byte("HTTP/1.1 101 ")) || !bytes.HasSuffix(out, []byte("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")) {
			t.Fatalf("cut at %d: %q, %t", cut, out, ok)
		}
	}
	if out, ok := new(socket).answer([]byte(strings.ToLower(request[:80]) + request[80:])); len(out) == 0 || !ok {
		t.Errorf("names in lower case: %q, %t", out, ok)
	}
	for _, bad := range []string{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", request + "x", strings.Repeat("x", headMax)} {
		if out, ok := new(socket).answer([]byte(bad)); ok || len(out) > 0 {
			t.Errorf("%.40q: %q, %t", bad, out, ok)
		}
	}
}

// Frames come back unmasked, whatever pieces they come in.
func TestFrames(t *testing.T) {
	mask := []byte{1, 2, 3, 4}
	frame := func(head string, payload string) (in, out []byte) {
		in = append(append([]byte(head), mask...), payload...)
		for i := range payload {
			in[len(head)+4+i] ^= mask[i&3]
		}
		in[1] |= masked
		return in, append([]byte(head), payload...)
	}
	var in, want []byte
	for _, f := range []struct{ head, payload string }{
		{"\x81\x05", "hello"}, {"\x82\x00", ""}, {"\x01\x0d", "a longer text"}, {"\x80\x01", "x"},
		{"\x81\x7e\x01\x2c", strings.Repeat("0123456789", 30)}, {"\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x70", strings.Repeat("abcdefg", 10000)},
	} {
		a, b := frame(f.head, f.payload)
		in, want = append(in, a...), append(want, b...)
	}
	ping, _ := frame("\x89\x02", "hi")
	bye, goodbye := frame("\x88\x02", "\x03\xe8")
	in = append(append(in, ping...), bye...)
	want = append(append(want, "\x8a\x02hi"...), goodbye...)
	for _, size := range []int{1, 2, 3, 7, 64, 4096, len(in)} {
		s := &socket{open: true}
		var got []byte
		for rest := in; len(rest) > 0; {
			n := min(size, len(rest))
			out, ok := s.answer(bytes.Clone(rest[:n]))
			got, rest = append(got, out...), rest[n:]
			if ok != (len(rest) > 0) {
				t.Fatalf("pieces of %d: %d bytes before the end, open is %t", size, len(rest), ok)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("pieces of %d: %d bytes that differ from the %d wanted", size, len(got), len(want))
		}
	}
}

// A backend that allocates would be a load of its own kind.
func TestFramesAllocate(t *testing.T) {
	s := &socket{open: true}
	in := bytes.Repeat([]byte("\x81\x85\x01\x02\x03\x04hello"), 16)
	b := make([]byte, len(in))
	if n := testing.AllocsPerRun(100, func() {
		copy(b, in)
		if out, ok := s.answer(b); len(out) != 16*7 || !ok {
			t.Fatal("not an answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
