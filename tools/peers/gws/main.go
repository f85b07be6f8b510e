// Command gws is a WebSocket server on github.com/lxzan/gws: its own server, and an event handler for each path. /echo sends
// every message back, /feed sends one every tick by the library's Broadcaster, which makes one frame for all and queues its
// writing at each socket.
//
// Everything else is the library's default: no compression, no check of UTF-8, messages of a socket one after the other, no
// pings. The queue of a socket has no bound in the library, so subscribers that are behind are left out here.
package main

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/lxzan/gws"

	"ticketgate/tools/peers/serve"
)

func main() { serve.Main("gws", run) }

func run(l net.Listener, f *serve.Feed) error {
	option := func() *gws.ServerOption { return &gws.ServerOption{ReadMaxPayloadSize: serve.MessageMax} }
	s := gws.NewServer(echo{}, option())
	feeding := gws.NewUpgrader(&feed{feed: f, subscribers: gws.NewConcurrentMap[*gws.Conn, *subscriber]()}, option())
	s.OnRequest = func(c net.Conn, in *bufio.Reader, r *http.Request) {
		u := s.GetUpgrader()
		switch r.URL.Path {
		case "/echo":
		case "/feed":
			u = feeding
		default:
			c.Close()
			return
		}
		socket, err := u.UpgradeFromConn(c, in, r)
		if err != nil {
			return // it has answered, and closed
		}
		socket.ReadLoop()
	}
	s.OnError = func(c net.Conn, _ error) { // there was no request, or c is nil
		if c != nil {
			c.Close()
		}
	}
	return s.RunListener(l)
}

// Errors of writes are of no use here: the library closes the connection, and ReadLoop ends.

type echo struct{ gws.BuiltinEventHandler }

// OnPing implements gws.Event. The built-in one sends an empty pong.
func (echo) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// OnMessage implements gws.Event.
func (echo) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close() //nolint:errcheck // gives the buffer back, and returns nil
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

type feed struct {
	gws.BuiltinEventHandler
	feed        *serve.Feed
	subscribers *gws.ConcurrentMap[*gws.Conn, *subscriber]
}

// A subscriber knows what waits in its queue to within markEvery messages.
type subscriber struct {
	queued  int64        // messages; of the goroutine that broadcasts
	written atomic.Int64 // messages
}

const markEvery = 16

// OnOpen implements gws.Event.
func (f *feed) OnOpen(c *gws.Conn) {
	f.subscribers.Store(c, new(subscriber))
	f.feed.Start(f.broadcast)
}

// OnClose implements gws.Event.
func (f *feed) OnClose(c *gws.Conn, _ error) { f.subscribers.Delete(c) }

// OnPing implements gws.Event. The built-in one sends an empty pong.
func (*feed) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// OnMessage implements gws.Event.
func (*feed) OnMessage(_ *gws.Conn, m *gws.Message) {
	m.Close() //nolint:errcheck // gives the buffer back, and returns nil
}

func (f *feed) broadcast(message []byte) error {
	b := gws.NewBroadcaster(gws.OpcodeText, message)
	f.subscribers.Range(func(c *gws.Conn, s *subscriber) bool {
		s.add(c, b)
		return true
	})
	return b.Close()
}

func (s *subscriber) add(c *gws.Conn, b *gws.Broadcaster) {
	if s.queued-s.written.Load() >= serve.QueueMax {
		return // lost for this one
	}
	if b.Broadcast(c) != nil {
		return // it is closed
	}
	s.queued++
	if n := s.queued; n%markEvery == 0 {
		c.Async(func() { s.written.Store(n) })
	}
}
