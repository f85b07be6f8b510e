// Command centrifuge is a server on github.com/centrifugal/centrifuge, a library with a protocol of its own over WebSocket.
// It has no echo: a client sends {"id":1,"connect":{}} as text on /connection/websocket, is subscribed to the channel "feed"
// by that, and gets a publication every tick, as JSON: {"push":{"channel":"feed","pub":{"data":...}}}. Messages that wait
// together come in one frame, with line feeds between them. Every 25 s comes {}, to which a client answers {} within 10 s.
//
// One node with its broker in memory, without history and presence, without logs. Write buffers come from a pool and commands
// are processed off the goroutine that reads, both of which the library has for many sockets that are mostly quiet. The rest
// is the library's default: no compression, a write may take 1 s and 1 MiB may wait for a client, which else is closed.
package main

import (
	"context"
	"net"
	"net/http"

	"github.com/centrifugal/centrifuge"

	"ticketgate/tools/peers/serve"
)

const channel = "feed"

func main() { serve.Main("centrifuge", run) }

func run(l net.Listener, f *serve.Feed) error {
	node, err := centrifuge.New(centrifuge.Config{LogLevel: centrifuge.LogLevelNone})
	if err != nil {
		return err
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		f.Start(func(message []byte) error {
			_, err := node.Publish(channel, message)
			return err
		})
		return centrifuge.ConnectReply{
			Credentials:   new(centrifuge.Credentials), // anonymous
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel: {}},
		}, nil
	})
	if err := node.Run(); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/connection/websocket", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		UseWriteBufferPool:         true,
		ProcessCommandsOffReadLoop: true,
	}))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: serve.HeadTimeout}
	return h.Serve(l)
}
