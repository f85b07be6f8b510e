package frame_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"ticketgate/engine/frame"
)

func TestParse(t *testing.T) {
	mask := [4]byte{1, 2, 3, 4}
	for _, c := range []struct {
		name string
		wire string
		want frame.Header
		n    int
		err  error
	}{
		{name: "nothing"},
		{name: "one byte", wire: "\x81"},
		{name: "empty", wire: "\x81\x00", n: 2, want: frame.Header{Fin: true, Op: frame.Text}},
		{name: "masked", wire: "\x02\x85\x01\x02\x03\x04", n: 6, want: frame.Header{Op: frame.Binary, Masked: true, Mask: mask, Len: 5}},
		{name: "mask not whole", wire: "\x02\x85\x01\x02\x03", want: frame.Header{Op: frame.Binary, Masked: true, Len: 5}},
		{name: "125", wire: "\x82\x7d", n: 2, want: frame.Header{Fin: true, Op: frame.Binary, Len: 125}},
		{name: "126", wire: "\x82\x7e\x00\x7e", n: 4, want: frame.Header{Fin: true, Op: frame.Binary, Len: 126}},
		{name: "two bytes not whole", wire: "\x82\x7e\x00", want: frame.Header{Fin: true, Op: frame.Binary, Len: 126}},
		{name: "65535", wire: "\x82\x7e\xff\xff", n: 4, want: frame.Header{Fin: true, Op: frame.Binary, Len: 65535}},
		{name: "65536", wire: "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", n: 10, want: frame.Header{Fin: true, Op: frame.Binary, Len: 65536}},
		{name: "eight bytes not whole", wire: "\x82\x7f\x00\x00\x00\x00\x00\x01\x00", want: frame.Header{Fin: true, Op: frame.Binary, Len: 65536}},
		{name: "2^63-1", wire: "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", n: 10, want: frame.Header{Fin: true, Op: frame.Binary, Len: math.MaxInt64}},
		{name: "reserved bits and opcode", wire: "\x7f\x00", n: 2, want: frame.Header{Rsv: 7, Op: 15}},
		{name: "125 in two bytes", wire: "\x82\x7e\x00\x7d", want: frame.Header{Fin: true, Op: frame.Binary, Len: 126}, err: frame.ErrMinimal},
		{name: "65535 in eight bytes", wire: "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", want: frame.Header{Fin: true, Op: frame.Binary, Len: 65536}, err: frame.ErrMinimal},
		{name: "top bit", wire: "\x82\x7f\x80\x00\x00\x00\x00\x01\x00\x00", want: frame.Header{Fin: true, Op: frame.Binary, Len: 65536}, err: frame.ErrTopBit},
	} {
		h, n, err := frame.Parse([]byte(c.wire))
		if h != c.want || n != c.n || err != c.err {
			t.Errorf("%s: Parse gave %+v %d %v, want %+v %d %v", c.name, h, n, err, c.want, c.n, c.err)
		}
	}
}

func TestCheck(t *testing.T) {
	const server, client = frame.Server, frame.Client
	for _, c := range []struct {
		name string
		h    frame.Header
		role frame.Role
		open bool
		want error
	}{
		{"text from a client", frame.Header{Fin: true, Op: frame.Text, Masked: true}, server, false, nil},
		{"text from a server", frame.Header{Fin: true, Op: frame.Text}, client, false, nil},
		{"continuation", frame.Header{Op: frame.Continuation, Masked: true}, server, true, nil},
		{"ping between fragments", frame.Header{Fin: true, Op: frame.Ping, Masked: true, Len: 125}, server, true, nil},
		{"unmasked from a client", frame.Header{Fin: true, Op: frame.Text}, server, false, frame.ErrUnmasked},
		{"masked from a server", frame.Header{Fin: true, Op: frame.Text, Masked: true}, client, false, frame.ErrMasked},
		{"RSV1", frame.Header{Fin: true, Rsv: 4, Op: frame.Text, Masked: true}, server, false, frame.ErrReservedBits},
		{"RSV3 from a server", frame.Header{Fin: true, Rsv: 1, Op: frame.Pong}, client, false, frame.ErrReservedBits},
		{"opcode 3", frame.Header{Fin: true, Op: 3, Masked: true}, server, false, frame.ErrOpcode},
		{"opcode 11", frame.Header{Fin: true, Op: 11, Masked: true}, server, true, frame.ErrOpcode},
		{"long close", frame.Header{Fin: true, Op: frame.Close, Masked: true, Len: 126}, server, false, frame.ErrControl},
		{"ping in parts", frame.Header{Op: frame.Ping, Masked: true}, server, false, frame.ErrControl},
		{"continuation of nothing", frame.Header{Fin: true, Op: frame.Continuation, Masked: true}, server, false, frame.ErrNoMessage},
		{"binary inside a message", frame.Header{Fin: true, Op: frame.Binary, Masked: true}, server, true, frame.ErrInterrupted},
	} {
		if err := frame.Check(c.h, c.role, c.open); err != c.want {
			t.Errorf("%s: Check gave %v, want %v", c.name, err, c.want)
		}
	}
}

func TestAppendClose(t *testing.T) {
	long := strings.Repeat("r", 122)
	for _, c := range []struct {
		name   string
		code   frame.Code
		reason string
		want   string
	}{
		{"empty", 0, "ignored", "\x88\x00"},
		{"no status", frame.CloseNoStatus, "ignored", "\x88\x00"},
		{"code", frame.CloseNormal, "", "\x88\x02\x03\xe8"},
		{"code and reason", frame.CloseDrain, frame.CloseDrain.Reason(), "\x88\x07\x03\xf4drain"},
		{"reason at the limit", frame.CloseNormal, long + "x", "\x88\x7d\x03\xe8" + long + "x"},
		{"reason over the limit", frame.CloseNormal, long + "xy", "\x88\x7d\x03\xe8" + long + "x"},
		{"reason cut before a character", frame.CloseNormal, long + "€", "\x88\x7c\x03\xe8" + long},
		{"1006", frame.CloseAbnormal, "x", "\x88\x07\x03\xf3fault"},
		{"1015", frame.CloseTLS, "x", "\x88\x07\x03\xf3fault"},
		{"1004", 1004, "x", "\x88\x07\x03\xf3fault"},
		{"5000", 5000, "x", "\x88\x07\x03\xf3fault"},
	} {
		got := frame.AppendClose([]byte("before"), c.code, c.reason)
		if string(got) != "before"+c.want {
			t.Errorf("%s: AppendClose gave %q, want %q", c.name, got, c.want)
		}
		mask := [4]byte{9, 8, 7, 6}
		masked := frame.AppendCloseMasked(nil, c.code, c.reason, mask)
		h, n, err := frame.Parse(masked)
		if err != nil || !h.Masked || h.Mask != mask || int(h.Len) != len(masked)-n {
			t.Fatalf("%s: AppendCloseMasked gave header %+v, %v for %d bytes", c.name, h, err, len(masked))
		}
		frame.Mask(masked[n:], mask, 0)
		if string(masked[n:]) != c.want[2:] {
			t.Errorf("%s: AppendCloseMasked gave body %q, want %q", c.name, masked[n:], c.want[2:])
		}
	}
}

func TestParseClose(t *testing.T) {
	for _, c := range []struct {
		body   string
		code   frame.Code
		reason string
		err    error
	}{
		{"", 0, "", nil},
		{"\x03\xe8", 1000, "", nil},
		{"\x11\x4dlimit:x", frame.CloseLimit, "limit:x", nil},
		{"\x03\xed", 0, "", frame.ErrCloseCode},
		{"\x03", 0, "", frame.ErrCloseBody},
		{"\x03\xe8\xff", 0, "", frame.ErrCloseReason},
	} {
		code, reason, err := frame.ParseClose([]byte(c.body))
		if err == nil && (code != c.code || string(reason) != c.reason) || err != c.err {
			t.Errorf("ParseClose(%q) gave %d %q %v, want %d %q %v", c.body, code, reason, err, c.code, c.reason, c.err)
		}
	}
}

// Every code there is: what may be on the wire, both ways, and that the reason texts fit the 60 bytes we promise.
func TestEveryCode(t *testing.T) {
	for i := range 1 << 16 {
		code := frame.Code(i)
		want := i >= 1000 && i <= 1003 || i >= 1007 && i <= 1014 || i >= 3000 && i <= 4999
		got, _, err := frame.ParseClose(binary.BigEndian.AppendUint16(nil, uint16(code)))
		if (err == nil) != want || want && got != code {
			t.Fatalf("code %d: ParseClose gave %d, %v", i, got, err)
		}
		sent := frame.AppendClose(nil, code, "")
		switch body := sent[2:]; {
		case i == 0 || i == 1005:
			if len(body) != 0 {
				t.Fatalf("code %d: sent %q, want an empty body", i, body)
			}
		case want != (binary.BigEndian.Uint16(body) == uint16(code)):
			t.Fatalf("code %d: sent %q", i, body)
		}
		if r := code.Reason(); len(r) > 60 || !utf8.ValidString(r) || r != "" && !want {
			t.Fatalf("code %d: reason %q", i, r)
		}
	}
}

// FuzzParse: what Parse takes, Append gives back byte for byte, and ws.ReadHeader reads the same.
func FuzzParse(f *testing.F) {
	for _, c := range corpus() {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := frame.Parse(b)
		if n == 0 || err != nil {
			if n != 0 {
				t.Fatalf("n is %d beside error %v", n, err)
			}
			return
		}
		if got := frame.Append(nil, h); !bytes.Equal(got, b[:n]) || frame.HeaderLen(h) != n {
			t.Fatalf("%x parsed as %+v, which is %x (%d)", b[:n], h, got, frame.HeaderLen(h))
		}
		theirs, err := ws.ReadHeader(bytes.NewReader(b))
		if want := (ws.Header{Fin: h.Fin, Rsv: h.Rsv, OpCode: ws.OpCode(h.Op), Masked: h.Masked, Mask: h.Mask, Length: h.Len}); err != nil || theirs != want {
			t.Fatalf("%x: ws reads %+v, %v; we %+v", b[:n], theirs, err, want)
		}
		for _, state := range []ws.State{ws.StateServerSide, ws.StateClientSide, ws.StateServerSide | ws.StateFragmented} {
			role := frame.Server
			if state.ClientSide() {
				role = frame.Client
			}
			if ws.CheckHeader(theirs, state) != nil && !h.Op.Control() && frame.Check(h, role, state.Fragmented()) == nil {
				t.Fatalf("%+v in state %b: ws refuses it, we do not", h, state)
			}
		}
	})
}
