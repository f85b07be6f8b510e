// Command gobwas is a WebSocket server on net and github.com/gobwas/ws: a goroutine for each connection, and the upgrade
// without net/http that the library calls zero-copy. /echo sends every message back, /feed sends one every tick. The feed's
// frames are compiled once for all, and go through a queue and a goroutine of each subscriber.
//
// wsutil reads a header with two or three reads of its source and writes with one write, so there is a buffer in front of
// the one and none behind the other. No compression, no pings.
package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/tools/peers/serve"
)

const (
	state       = ws.StateServerSide
	bufferBytes = 1024
	acceptPause = 5 * time.Millisecond // when descriptors have run out, as net/http begins
)

func main() { serve.Main("gobwas", run) }

func run(l net.Listener, f *serve.Feed) error {
	hub := serve.NewHub(f, func(message []byte) ([]byte, error) { return ws.CompileFrame(ws.NewTextFrame(message)) })
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		go serveConn(c, hub) // ends with the connection
	}
}

func serveConn(c net.Conn, hub *serve.Hub[[]byte]) {
	defer c.Close()
	talk, err := upgrade(c, hub)
	if err == nil {
		talk()
	}
}

// upgrade answers the request, and returns what its path asks for.
func upgrade(c net.Conn, hub *serve.Hub[[]byte]) (talk func(), err error) {
	u := ws.Upgrader{OnRequest: func(uri []byte) error {
		switch string(uri) {
		case "/echo":
			talk = func() { echo(c) }
		case "/feed":
			talk = func() { feed(c, hub) }
		default:
			return ws.RejectConnectionError(ws.RejectionStatus(http.StatusNotFound))
		}
		return nil
	}}
	if err := c.SetDeadline(time.Now().Add(serve.HeadTimeout)); err != nil {
		return nil, err
	}
	if _, err := u.Upgrade(c); err != nil {
		return nil, err
	}
	return talk, c.SetDeadline(time.Time{})
}

func newReader(c net.Conn) *wsutil.Reader {
	return &wsutil.Reader{
		Source:         bufio.NewReaderSize(c, bufferBytes),
		State:          state,
		MaxMessageSize: serve.MessageMax,
		OnIntermediate: wsutil.ControlFrameHandler(c, state),
	}
}

func echo(c net.Conn) {
	in, out := newReader(c), wsutil.NewWriterBufferSize(c, state, ws.OpText, bufferBytes)
	out.DisableFlush() // a message goes back in one frame; the buffer grows for it
	for {
		h, err := in.NextFrame()
		if err != nil {
			return
		}
		if h.OpCode.IsControl() {
			if err := in.OnIntermediate(h, in); err != nil {
				return
			}
			continue
		}
		out.ResetOp(h.OpCode)
		_, err = io.Copy(out, in)
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return
		}
	}
}

// feed reads, so that pings and the close frame are answered. The other goroutine ends when its queue does.
func feed(c net.Conn, hub *serve.Hub[[]byte]) {
	queue := hub.Join()
	defer hub.Leave(queue)
	go write(c, queue)
	for in := newReader(c); ; {
		h, err := in.NextFrame()
		switch {
		case err != nil:
		case h.OpCode.IsControl():
			err = in.OnIntermediate(h, in)
		default:
			err = in.Discard()
		}
		if err != nil {
			return
		}
	}
}

func write(c net.Conn, queue <-chan []byte) {
	defer c.Close() // which ends the reader
	for frame := range queue {
		err := c.SetWriteDeadline(time.Now().Add(serve.WriteTimeout))
		if err == nil {
			_, err = c.Write(frame)
		}
		if err != nil {
			return
		}
	}
}
