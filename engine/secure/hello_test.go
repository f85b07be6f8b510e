package secure_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"ticketgate/engine/secure"
)

// listener takes what a client says first, and answers nothing.
type listener struct {
	net.Conn
	heard []byte
}

func (l *listener) Write(b []byte) (int, error) {
	l.heard = append(l.heard, b...)
	return len(b), nil
}

func (l *listener) Read([]byte) (int, error) { return 0, io.EOF }
func (l *listener) Close() error             { return nil }

// clientHello is the first record of a client.
func clientHello(config *tls.Config) []byte {
	var l listener
	_ = tls.Client(&l, config).Handshake() // it ends with EOF
	return l.heard
}

// inRecords cuts the one record in hello into records of n bytes.
func inRecords(hello []byte, n int) (out []byte) {
	for piece := range slices.Chunk(hello[5:], n) {
		out = append(out, hello[0], hello[1], hello[2], byte(len(piece)>>8), byte(len(piece)))
		out = append(out, piece...)
	}
	return out
}

// Alerts of RFC 8446 6.2.
const (
	unexpectedMessage    = 10
	recordOverflow       = 22
	decodeError          = 50
	protocolVersion      = 70
	unsupportedExtension = 110
)

func pad(head string, n int) []byte { return append([]byte(head), make([]byte, n)...) }

type helloRow struct {
	name  string
	in    []byte
	at    int // bytes after which the verdict is there; 0: never
	alert byte
}

func helloRows() []helloRow {
	hello := clientHello(clientConfig())
	long := clientConfig()
	long.NextProtos = strings.Split(strings.Repeat(strings.Repeat("x", 250)+" ", 40)+"http/1.1", " ")
	return []helloRow{
		{"a hello", hello, len(hello), 0},
		{"a long hello", clientHello(long), len(clientHello(long)), 0},
		{"a hello and more", append(slices.Clone(hello), "more"...), len(hello), 0},
		{"the least hello", []byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), 9, 0},
		{"records of 1 byte", inRecords(hello, 1), len(inRecords(hello, 1)), 0},
		{"records of 3 bytes", inRecords(hello, 3), len(inRecords(hello, 3)), 0},
		{"records of 1,000 bytes", inRecords(hello, 1000), len(inRecords(hello, 1000)), 0},
		{"half a hello", hello[:len(hello)/2], 0, 0},
		{"one byte less", hello[:len(hello)-1], 0, 0},
		{"nothing", nil, 0, 0},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), 1, unexpectedMessage},
		{"SSL 2", []byte("\x80\x2e\x01\x00\x02"), 1, unexpectedMessage},
		{"an alert", []byte("\x15\x03\x01\x00\x02\x01\x00"), 1, unexpectedMessage},
		{"application data", []byte("\x17\x03\x03\x00\x05hello"), 1, unexpectedMessage},
		{"version 2", []byte("\x16\x02\x00\x00\x05"), 2, unexpectedMessage},
		{"version 4", []byte("\x16\x04\x00\x00\x05"), 2, unexpectedMessage},
		{"an empty record", []byte("\x16\x03\x01\x00\x00\x01"), 5, decodeError},
		{"an empty record behind the first", append(inRecords(hello, 100)[:105], 22, 3, 1, 0, 0), 110, decodeError},
		{"a record of 16 KiB + 1", []byte("\x16\x03\x01\x40\x01\x01"), 5, recordOverflow},
		{"a record of 64 KiB", []byte("\x16\x03\x01\xff\xff\x01"), 5, recordOverflow},
		{"a record just over what a hello may have", []byte("\x16\x03\x01\x3f\xfc\x01"), 5, recordOverflow},
		{"a hello of 16 KiB", []byte("\x16\x03\x01\x00\x10\x01\x00\x40\x00"), 8, recordOverflow},
		{"a hello of 64 KiB", []byte("\x16\x03\x01\x00\x10\x01\x01\x00\x00"), 7, recordOverflow},
		{"a ServerHello", []byte("\x16\x03\x01\x00\x10\x02\x00\x00\x0c"), 6, unexpectedMessage},
		{"a Finished in the second record", append(pad("\x16\x03\x01\x00\x01\x01", 0), 0x17), 7, unexpectedMessage},
		{"a length that never comes", pad("\x16\x03\x01\x3f\xfb\x01\x00\x3f\xf7", 0x3ffb-4), 16384, 0},
		{"records without end", inRecords(pad("\x16\x03\x01\x00\x00\x01\x00\x3f\xff", 12_000), 1), 16385, recordOverflow},
	}
}

// TestHello: the verdict comes with the byte that decides it, however the bytes come.
func TestHello(t *testing.T) {
	for _, row := range helloRows() {
		wantAt, wantWhole := row.at, row.at > 0 && row.alert == 0
		if wantAt == 0 {
			wantAt = len(row.in)
		}
		at, whole, alert := secure.Look(slices.Collect(slices.Chunk(row.in, 1))...)
		if at != wantAt || whole != wantWhole || alert != row.alert {
			t.Errorf("%s, byte by byte: after %d of %d bytes %v, alert %d; want %d, %v, %d", row.name, at, len(row.in), whole, alert, wantAt, wantWhole, row.alert)
		}
		if _, whole, alert = secure.Look(row.in); whole != wantWhole || alert != row.alert {
			t.Errorf("%s, at once: %v, alert %d", row.name, whole, alert)
		}
	}
}

func TestHelloDoesNotAllocate(t *testing.T) {
	hello := clientHello(clientConfig())
	if n := testing.AllocsPerRun(100, func() { secure.LookOnce(hello) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzHello: no way of cutting changes the verdict, and what is whole is what RFC 8446 says a ClientHello is.
func FuzzHello(f *testing.F) {
	for _, row := range helloRows() {
		f.Add(row.in, uint16(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		in = in[:min(len(in), secure.HelloMax+10)] // there is a verdict on more
		at, whole, alert := secure.Look(slices.Collect(slices.Chunk(in, 1))...)
		if _, w, a := secure.Look(in); w != whole || a != alert {
			t.Fatalf("at once %v, %d; byte by byte %v, %d", w, a, whole, alert)
		}
		if _, w, a := secure.Look(slices.Collect(slices.Chunk(in, 1+int(cut)))...); w != whole || a != alert {
			t.Fatalf("in pieces of %d %v, %d; byte by byte %v, %d", 1+int(cut), w, a, whole, alert)
		}
		if at > secure.HelloMax+5 {
			t.Fatalf("no verdict after %d bytes", at)
		}
		if whole != isHello(in[:at]) {
			t.Fatalf("%d bytes are whole: %v", at, whole)
		}
	})
}

// isHello reads in as a slow reader of the RFC would.
func isHello(in []byte) bool {
	var message bytes.Buffer
	for len(in) > 0 {
		if len(in) < 5 || in[0] != 22 || in[1] != 3 {
			return false
		}
		n := int(in[3])*256 + int(in[4])
		if n == 0 || n > 1<<14 || len(in) < 5+n {
			return false
		}
		message.Write(in[5 : 5+n])
		in = in[5+n:]
	}
	b := message.Bytes()
	return len(b) >= 4 && b[0] == 1 && len(b)-4 >= int(b[1])<<16+int(b[2])<<8+int(b[3])
}
