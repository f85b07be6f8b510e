package bench_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"ticketgate/bench"
	"ticketgate/internal/porttest"
)

// host is a Handler that answers with what it got, once for each connection.
type host struct {
	counter
	all *[]*host
}

func (h *host) Opened(*bench.Conn) { *h.all = append(*h.all, h) }
func (h *host) Data(c *bench.Conn, b []byte) int {
	c.Write(b)
	return h.counter.Data(c, b)
}

// guest is a Handler that sends text and hears what comes back.
type guest struct {
	counter
	conn  *bench.Conn
	text  string
	heard string
}

func (g *guest) Opened(c *bench.Conn) {
	g.conn = c
	c.Write([]byte(g.text))
}

func (g *guest) Data(c *bench.Conn, b []byte) int {
	g.heard += string(b)
	return g.counter.Data(c, b)
}

// A loop that listens serves others and itself, each connection with a handler of its own.
func TestListen(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	address := porttest.Free(t)
	var hosts []*host
	if err := l.Listen(address, false, func() bench.Handler { return &host{all: &hosts} }); err != nil {
		t.Fatal(err)
	}
	const many = 600 // more than one wake brings
	guests := make([]*guest, many)
	bytes := 0
	for i := range guests {
		guests[i] = &guest{text: fmt.Sprintf("guest %d", i)}
		bytes += len(guests[i].text)
		if _, err := l.Dial(target(t, address), guests[i]); err != nil {
			t.Fatal(err)
		}
	}
	heard := func() (n int) {
		for _, g := range guests {
			n += g.bytes
		}
		return n
	}
	runUntil(t, l, func() bool { return heard() == bytes })
	if len(hosts) != many || l.Open() != 2*many {
		t.Errorf("%d connections were accepted, %d sockets are open", len(hosts), l.Open())
	}
	for _, g := range guests {
		if g.heard != g.text {
			t.Errorf("%q came back as %q", g.text, g.heard)
		}
		g.conn.Close()
	}
	ended := func() (n int) {
		for _, h := range hosts {
			n += len(h.ends)
		}
		return n
	}
	runUntil(t, l, func() bool { return ended() == many })
	if l.Open() != 0 || hosts[0].ends[0] != io.EOF {
		t.Errorf("%d are open, %v", l.Open(), hosts[0].ends)
	}
	if err := l.Listen(address, false, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("twice on one address: %v", err)
	}
	for _, bad := range []string{"", "localhost:80", "[::1]:0"} {
		if err := l.Listen(bad, false, nil); err == nil {
			t.Errorf("%q is listened on", bad)
		}
	}
}

// Whoever comes to a loop that has not dialled is heard: the first socket of a server is its own door.
func TestListenAlone(t *testing.T) {
	l, err := bench.NewLoop(bench.Options{})
	if err != nil {
		t.Fatal(err)
	}
	address := porttest.Free(t)
	var hosts []*host
	if err := l.Listen(address, false, func() bench.Handler { return &host{all: &hosts} }); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	func() {
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("the loop panics: %v", p)
			}
		}()
		runUntil(t, l, func() bool { return len(hosts) == 1 })
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp4", address); !errors.Is(err, syscall.ECONNREFUSED) { // Close has freed the port
		t.Errorf("%v, %v", c, err)
	}
	again, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
