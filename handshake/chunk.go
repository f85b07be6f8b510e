package handshake

import "bytes"

// chunks takes a chunked body apart (RFC 9112 section 7.1) in place: what is decoded lies in front of what is not.
//
//	b: head | first ── decoded ── out | read already | in ── coded
//
// No extensions and no trailers: nothing here would read them, and readers differ on where they end.
type chunks struct{ first, out, in int }

// sizeLineMax is the longest line that a chunk of at most bodyMax bytes needs, and some leading zeros.
const sizeLineMax = len("00004000\r\n")

// feed goes on with b. done: the body is b[c.first:c.out], and the next request begins at c.in.
func (c *chunks) feed(b []byte) (done bool, no Reason) {
	for {
		size, line, no := chunkSize(b[c.in:])
		if line == 0 || no != none {
			return false, no
		}
		if c.out-c.first+size > bodyMax {
			return false, bodyTooLarge
		}
		data := c.in + line
		if len(b) < data+size+2 {
			return false, none
		}
		if b[data+size] != '\r' || b[data+size+1] != '\n' {
			return false, badFraming // after the last chunk: a trailer
		}
		c.out += copy(b[c.out:], b[data:data+size])
		c.in = data + size + 2
		if size == 0 {
			return true, none
		}
	}
}

// chunkSize reads the size line that b begins with; line == 0: it is not complete.
func chunkSize(b []byte) (size, line int, no Reason) {
	end := bytes.IndexByte(b[:min(len(b), sizeLineMax)], '\n')
	if end < 0 {
		if len(b) >= sizeLineMax {
			return 0, 0, badFraming
		}
		return 0, 0, none
	}
	if end < 2 || b[end-1] != '\r' {
		return 0, 0, badFraming
	}
	for _, c := range b[:end-1] {
		switch {
		case isDigit(c):
			size = size<<4 | int(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			size = size<<4 | int(c|0x20-'a'+10)
		default:
			return 0, 0, badFraming
		}
	}
	return size, end + 1, none
}

// pack moves what is not decoded up to what is, and returns b without the gap.
func (c *chunks) pack(b []byte) []byte {
	b = append(b[:c.out], b[c.in:]...)
	c.in = c.out
	return b
}
