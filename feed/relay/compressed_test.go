package relay_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
)

// counted counts what a client's connection carries.
type counted struct {
	net.Conn
	read, written *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// TestCompressedClients: two libraries compress through a relay whose backend knows nothing of it. What comes back is what
// was sent, in a part of the bytes; a backend's fragments come as they are.
func TestCompressedClients(t *testing.T) {
	backend := viaGorilla(t, func(c *gorilla.Conn) {
		for {
			kind, b, err := c.ReadMessage()
			if err != nil {
				return
			}
			if len(b) == 777 { // in fragments
				w, _ := c.NextWriter(kind)
				for _, part := range [][]byte{b[:100], b[100:]} {
					if _, err = w.Write(part); err != nil {
						return
					}
				}
				err = w.Close()
			} else {
				err = c.WriteMessage(kind, b)
			}
			if err != nil {
				return
			}
		}
	})
	r, err := relay.New(options(func(o *relay.Options) { o.Targets = []string{"ws://" + backend + "/"} }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	g := feedtest.New(t, feedtest.Options{Stream: r, Handlers: []reactor.Handler{r.Handler()}, Loops: 2, Compression: true}, func(e *engine.Engine) {
		if err := r.Bind(e); err != nil {
			t.Fatal(err)
		}
	})
	for name, dial := range map[string]func(func(net.Conn) net.Conn) func(string) string{
		"coder":   func(over func(net.Conn) net.Conn) func(string) string { return coderAsks(t, g, over) },
		"gorilla": func(over func(net.Conn) net.Conn) func(string) string { return gorillaAsks(t, g, over) },
	} {
		var read, written atomic.Int64
		ask := dial(func(c net.Conn) net.Conn { return &counted{c, &read, &written} })
		rnd := rand.New(rand.NewPCG(1, 2))
		sum := 0
		for n := range 200 {
			size := []int{0, 1, 20, 511, 512, 777, 4000, 30_000, 64 << 10}[n%9]
			var text strings.Builder
			for text.Len() < size {
				fmt.Fprintf(&text, `{"n":%d,"v":%d},`, n, rnd.IntN(100))
			}
			s := text.String()[:size]
			if got := ask(s); got != s {
				t.Fatalf("%s: %d bytes came back as %d", name, len(s), len(got))
			}
			sum += size
		}
		if read.Load() > int64(sum/3) || written.Load() > int64(sum/3) {
			t.Errorf("%s: %d bytes of messages took %d to the client and %d from it", name, sum, read.Load(), written.Load())
		}
	}
}

// coderAsks returns what sends a message and reads one.
func coderAsks(t *testing.T, g *feedtest.Gate, over func(net.Conn) net.Conn) func(string) string {
	c := g.DialCompressed(t, over)
	return func(s string) string {
		if err := c.Write(g.Deadline, coder.MessageText, []byte(s)); err != nil {
			t.Fatal(err)
		}
		_, b, err := c.Read(g.Deadline)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func gorillaAsks(t *testing.T, g *feedtest.Gate, over func(net.Conn) net.Conn) func(string) string {
	target, secret := g.Ticket(t)
	d := gorilla.Dialer{EnableCompression: true, NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return over(c), nil
	}}
	c, res, err := d.DialContext(g.Deadline, "ws://"+g.Addr+target, http.Header{"Ticketgate-Secret": {secret}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Cleanup(func() { _ = c.Close() })
	if got := res.Header.Get("Sec-WebSocket-Extensions"); !strings.Contains(got, "permessage-deflate") {
		t.Fatalf("not agreed: %q", got)
	}
	c.EnableWriteCompression(true)
	return func(s string) string {
		if err := c.WriteMessage(gorilla.TextMessage, []byte(s)); err != nil {
			t.Fatal(err)
		}
		_, r, err := c.NextReader()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}
