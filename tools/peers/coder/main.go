// Command coder is a WebSocket server on net/http and github.com/coder/websocket, written as the echo and chat examples of
// that library are: /echo sends every message back, /feed sends one every tick. Each subscriber has a queue, and every write
// a context with a timeout. The library has no message that is prepared for many sockets.
//
// Everything else is the library's default: no compression, the buffers of net/http, no pings.
package main

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"

	"ticketgate/tools/peers/serve"
)

func main() { serve.Main("coder", run) }

func run(l net.Listener, f *serve.Feed) error {
	hub := serve.NewHub(f, func(message []byte) ([]byte, error) { return message, nil })
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", accepted(echo))
	mux.HandleFunc("/feed", accepted(func(c *websocket.Conn) { feed(c, hub) }))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: serve.HeadTimeout}
	return h.Serve(l)
}

func accepted(talk func(*websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // Accept has answered
		}
		defer c.CloseNow() //nolint:errcheck // it may be closed already
		c.SetReadLimit(serve.MessageMax)
		talk(c)
	}
}

// echo does not use the request's context: Accept says not to.
func echo(c *websocket.Conn) {
	ctx := context.Background()
	for {
		kind, message, err := c.Read(ctx)
		if err == nil {
			err = c.Write(ctx, kind, message)
		}
		if err != nil {
			return
		}
	}
}

func feed(c *websocket.Conn, hub *serve.Hub[[]byte]) {
	queue := hub.Join()
	defer hub.Leave(queue)
	ctx := c.CloseRead(context.Background())
	for {
		select {
		case m := <-queue:
			if err := write(ctx, c, m); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func write(ctx context.Context, c *websocket.Conn, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, serve.WriteTimeout)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, message)
}
