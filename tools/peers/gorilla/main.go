// Command gorilla is a WebSocket server on net/http and github.com/gorilla/websocket, written as the chat and echo examples
// of that library are: /echo sends every message back, /feed sends one every tick. The feed's messages are prepared once for
// all (PreparedMessage), and go through a queue and a goroutine of each subscriber.
//
// Buffers are as small as in the chat example; those for writing come from a pool, which the library recommends where many
// sockets write now and then. No compression. There are no pings: peers of a bench do not vanish.
package main

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"ticketgate/tools/peers/serve"
)

const bufferBytes = 1024

func main() { serve.Main("gorilla", run) }

func run(l net.Listener, f *serve.Feed) error {
	s := &server{
		upgrader: websocket.Upgrader{ReadBufferSize: bufferBytes, WriteBufferSize: bufferBytes, WriteBufferPool: new(sync.Pool)},
		hub: serve.NewHub(f, func(message []byte) (*websocket.PreparedMessage, error) {
			return websocket.NewPreparedMessage(websocket.TextMessage, message)
		}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", s.upgraded(echo))
	mux.HandleFunc("/feed", s.upgraded(s.feed))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: serve.HeadTimeout}
	return h.Serve(l)
}

type server struct {
	upgrader websocket.Upgrader
	hub      *serve.Hub[*websocket.PreparedMessage]
}

// upgraded has talk called in a goroutine of its own, so that what net/http holds for the request can be collected.
func (s *server) upgraded(talk func(*websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		c.SetReadLimit(serve.MessageMax)
		go func() { // ends with the connection
			defer c.Close() //nolint:errcheck // it may be closed already
			talk(c)
		}()
	}
}

func echo(c *websocket.Conn) {
	for {
		kind, message, err := c.ReadMessage()
		if err == nil {
			err = c.WriteMessage(kind, message)
		}
		if err != nil {
			return
		}
	}
}

// feed reads, so that pings and the close frame are answered. The other goroutine ends when its queue does.
func (s *server) feed(c *websocket.Conn) {
	queue := s.hub.Join()
	defer s.hub.Leave(queue)
	go write(c, queue)
	for {
		if _, _, err := c.NextReader(); err != nil {
			return
		}
	}
}

func write(c *websocket.Conn, queue <-chan *websocket.PreparedMessage) {
	defer c.Close() //nolint:errcheck // it ends the reader, or may be closed already
	for m := range queue {
		err := c.SetWriteDeadline(time.Now().Add(serve.WriteTimeout))
		if err == nil {
			err = c.WritePreparedMessage(m)
		}
		if err != nil {
			return
		}
	}
}
