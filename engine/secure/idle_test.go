package secure_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math"
	"net"
	"reflect"
	"runtime"
	"testing"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// What an idle socket that has said and heard long records holds on our heap, beside what it would without TLS. The tls.Conn itself is 900 bytes, its two AES-GCM
// states 900 each.
const (
	idleUser   = 3300 // crypto/tls on the loop
	idleKernel = 64   // TLS in the kernel
)

func TestIdleBytes(t *testing.T) {
	for _, row := range []struct {
		name    string
		version uint16
	}{
		{"TLS 1.3", tls.VersionTLS13},
		{"TLS 1.2", tls.VersionTLS12},
	} {
		t.Run(row.name, func(t *testing.T) {
			const sockets, said = 200, 16 << 10
			g := newGate(t, nil)
			config := clientConfig()
			config.MinVersion, config.MaxVersion = row.version, row.version
			g.meet(config, 50, said) // what is made once
			goroutines := runtime.NumGoroutine()
			each := math.MaxInt
			for range 3 { // what the process allocates once, whenever it does, is in one round only
				raw := make([]net.Conn, sockets)
				for i := range raw {
					raw[i] = g.dial()
				}
				before := heap()
				for i := range raw {
					talk(t, raw[i], config, said)
					g.ended()
				}
				each = min(each, (heap()-before)/sockets)
			}
			limit := idleUser
			if n := g.stats(); n.Kernel > 0 && row.version == tls.VersionTLS13 {
				limit = idleKernel
			}
			t.Logf("%d bytes a socket", each)
			if each > limit {
				t.Errorf("%d bytes a socket, at most %d", each, limit)
			}
			if n := runtime.NumGoroutine(); n > goroutines {
				t.Errorf("%d goroutines became %d", goroutines, n)
			}
		})
	}
}

// meet has n clients come, talk and stay.
func (g *gate) meet(config *tls.Config, n, say int) {
	for range n {
		talk(g.t, g.dial(), config, say)
		g.ended()
	}
}

// talk is a client whose TLS is forgotten when it has said n bytes and heard them again: what stays is the server's.
func talk(t *testing.T, raw net.Conn, config *tls.Config, n int) {
	t.Helper()
	_ = raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, config)
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func heap() int {
	var m runtime.MemStats
	for range 3 { // the pools of the libraries go in the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func TestConnSize(t *testing.T) {
	if secure.ConnSize > 112 {
		t.Errorf("a conn has %d bytes", secure.ConnSize)
	}
}

// TestLends: this Go's tls.Conn has its buffers where lend.go looks for them. If it fails after an update of Go, idle sockets
// cost up to 20 KiB more until findInsides has learned the new names.
func TestLends(t *testing.T) {
	if !secure.Lends() {
		t.Error("the buffers of tls.Conn are not found")
	}
	type retyped struct {
		rawInput []byte
		hand     bytes.Buffer
		input    bytes.Reader
	}
	type renamed struct{ rawInput, hands bytes.Buffer }
	for _, other := range []reflect.Type{
		reflect.TypeOf(renamed{rawInput: bytes.Buffer{}, hands: bytes.Buffer{}}),
		reflect.TypeOf(retyped{rawInput: nil, hand: bytes.Buffer{}, input: bytes.Reader{}}),
	} {
		if secure.FindInsides(other) {
			t.Errorf("buffers are found in %v", other)
		}
	}
}

// TestNothingIsKept: between two messages a tls.Conn has no buffer, whatever their length was.
func TestNothingIsKept(t *testing.T) {
	var inside func() *tls.Conn
	g := newGate(t, func(g *gate, o *secure.Options) {
		o.KernelTLS = secure.Off
		g.open = func(l *reactor.Loop, id reactor.ID) { inside = g.s.StartConn(l, id) }
	})
	c := tls.Client(g.dial(), clientConfig())
	for _, n := range []int{1, 16 << 10, 100_000} {
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		kept := make(chan int)
		g.r.Post(0, reactor.Work{P: func(*reactor.Loop) {}})
		for i := range 2 { // on either loop: it is its own
			g.r.Post(i, reactor.Work{P: func(l *reactor.Loop) {
				at := 0
				l.Each(func(reactor.ID) { at += secure.Buffers(inside()) })
				kept <- at
			}})
			if b := wait(t, kept, "the loop"); b != 0 {
				t.Errorf("%d bytes are kept after a message of %d", b, n)
			}
		}
	}
}

// TestEchoAllocates: what one message each way costs the collector: crypto/tls lets two nonces escape, and its caller's slice.
func TestEchoAllocates(t *testing.T) {
	g := newGate(t, func(_ *gate, o *secure.Options) { o.KernelTLS = secure.Off })
	c := g.connectRaw()
	b := make([]byte, 16<<10)
	client := testing.AllocsPerRun(100, func() { // both ends
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations a message, both ends", client)
	if client > 12 {
		t.Errorf("%v allocations a message", client)
	}
}

func (g *gate) connectRaw() *tls.Conn {
	c := tls.Client(g.dial(), clientConfig())
	say(g.t, c, "first words")
	g.ended()
	return c
}
